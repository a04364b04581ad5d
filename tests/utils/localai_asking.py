"""A client of a raw server, and short ways to ask it."""

import asyncio
import base64
import io
import ssl
import struct
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager

import pytest
from PIL import Image as Pillow

from src.models.errors import InferenceManagerError
from src.models.requests import (
    Audio2TxtRequest,
    Img2ImgRequest,
    InferenceRequest,
    InpaintRequest,
    RerankRequest,
    Txt2AudioRequest,
    Txt2ImgRequest,
    Txt2SoundRequest,
    Txt2TxtRequest,
    Txt2VecRequest,
    Txt2VideoRequest,
)
from src.models.results import Chunk
from src.utils.localai_client import LocalAIClient
from tests.utils.raw_server import END, SSE_HEAD, Act, RawServer, Script, raw_server, reply

TLS = ssl.create_default_context()
NOW = 1_790_000_000.0
CANARY = "canary-7d1f"


def png(size: int = 32, color: str = "red") -> bytes:
    buffer = io.BytesIO()
    Pillow.new("RGB", (size, size), color).save(buffer, "PNG")
    return buffer.getvalue()


def wav(seconds: float = 0.5, *, rate: int = 8000, told: int | None = None) -> bytes:
    """Write a WAV of one channel and two bytes a sample; `told` is a length that may not be so."""
    sound = bytes(int(seconds * rate) * 2)
    length = len(sound) if told is None else told
    head = struct.pack("<4sI4s4sIHHIIHH", b"RIFF", 36 + len(sound), b"WAVE", b"fmt ", 16, 1, 1,
                       rate, rate * 2, 2, 16)  # fmt: skip
    return head + struct.pack("<4sI", b"data", length & 0xFFFFFFFF) + sound


def box(name: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I4s", 8 + len(content), name) + content


FILM = box(b"ftyp", b"isom") + box(b"moov", bytes(90)) + box(b"free") + box(b"mdat", bytes(3000))


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


PNG = base64_of(png())
DATA_URI = f"data:image/png;base64,{PNG}"
SOUND_URI = f"data:audio/wav;base64,{base64_of(wav())}"

HELLO = Txt2TxtRequest.model_validate({"prompt": f"hello {CANARY}"})
FOX = Txt2ImgRequest(prompt=f"a red fox {CANARY}", seed=7, width=32, height=32)
SNOW = Img2ImgRequest(image=DATA_URI, prompt=f"make it snow {CANARY}")
HAT = InpaintRequest(image=DATA_URI, mask=DATA_URI, prompt=f"a hat {CANARY}")
TEXTS = Txt2VecRequest(input=(f"one {CANARY}", "two"))
ORDER = RerankRequest(query=f"which {CANARY}", documents=(f"a {CANARY}", "b", "c"))
SAY = Txt2AudioRequest(input=f"say it {CANARY}")
RAIN = Txt2SoundRequest(prompt=f"rain {CANARY}")
LISTEN = Audio2TxtRequest(audio=SOUND_URI, prompt=CANARY)
MOVIE = Txt2VideoRequest(prompt=f"waves {CANARY}")

Pair = tuple[LocalAIClient, RawServer]


def drawn(*data: object) -> bytes:
    return reply(200, {"created": 1, "id": "u", "data": list(data), "usage": None}, keep=True)


ONE_PICTURE = (drawn({"embedding": None, "index": 0, "b64_json": PNG}), Act.KEEP)


def small(**fields: object) -> Txt2ImgRequest:
    """Ask for pictures of about the size that `ONE_PICTURE` has."""
    return Txt2ImgRequest.model_validate({"prompt": "p", "size": "32x32", **fields})


def stream(*events: bytes) -> Script:
    return (SSE_HEAD, *events, END, Act.KEEP)


def media(data: bytes, kind: str = "audio/wav", **headers: str) -> bytes:
    """Write an answer that is a recording or a film."""
    return reply(200, data, keep=True, content_type=kind, **headers)


@asynccontextmanager
async def client_of(*scripts: Script, **options: object) -> AsyncGenerator[Pair]:
    """Make a client of a raw server; its patience is short unless a test says otherwise."""
    patience: dict[str, object] = {"first_byte_s": 5.0, "idle_s": 5.0, "connect_s": 1.0}
    async with raw_server(*scripts) as server:
        usual = {"name": "gpu", "url": server.url, "verify": TLS, "clock": lambda: NOW}
        made = {**usual, **patience, **options}
        client = LocalAIClient(**made)  # type: ignore[arg-type]
        try:
            yield client, server
        finally:
            await client.close()


async def answer(client: LocalAIClient, request: InferenceRequest = HELLO) -> list[Chunk]:
    async with asyncio.timeout(10), aclosing(client.run(request, "m", "job-1")) as chunks:
        return [chunk async for chunk in chunks]


async def failure(
    client: LocalAIClient, request: InferenceRequest = HELLO
) -> InferenceManagerError:
    with pytest.raises(InferenceManagerError) as failed:
        await answer(client, request)
    assert CANARY not in f"{failed.value.message} {failed.value.hint}"
    return failed.value


async def failure_of(
    *script: bytes | Act | asyncio.Event, request: InferenceRequest = HELLO, **options: object
) -> InferenceManagerError:
    async with client_of(script, **options) as (client, _):
        return await failure(client, request)
