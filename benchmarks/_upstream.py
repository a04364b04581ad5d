"""A LocalAI that costs next to nothing: raw asyncio, with answers that lie ready.

    python benchmarks/_upstream.py 8080

It knows what proxies ask of LocalAI for chats and pictures, and no more. A chat answer has as many
words as `max_tokens` says. Streamed, one word is one event: up to `BURST` of them come at once,
more of them at `PACE` a second, as from a model at work.
"""

import asyncio
import base64
import io
import json
import random
import sys

import PIL.Image

CHAT, PAINTER = "bench-chat", "bench-image"
WORD = "word"
BURST = 16
PACE = 25.0
SIZE = (960, 704)

_CREATED = 1790000000
_DONE = b"data: [DONE]\n\n"
_END = b"0\r\n\r\n"
_STREAM = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
    b"Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n"
)


class Upstream(asyncio.Protocol):
    """One connection."""

    def __init__(self, picture: bytes) -> None:
        self._picture = picture
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Hold the way back."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's
        """Say no more."""
        self._transport = None

    def data_received(self, data: bytes) -> None:
        """Answer every request that is there as a whole."""
        self._received += data
        while (at := self._received.find(b"\r\n\r\n")) >= 0:
            head = self._received[:at]
            end = at + 4 + int(_header(head, b"content-length") or 0)
            if len(self._received) < end:
                return
            body, self._received = self._received[at + 4 : end], self._received[end:]
            self._answer(head, body)

    def _answer(self, head: bytes, body: bytes) -> None:
        path = head.split(b" ", 2)[1]
        name = (_header(head, b"x-correlation-id") or b"5d0c0000").decode("ascii")
        if path == b"/v1/chat/completions":
            self._chat(name, json.loads(body))
        elif path == b"/v1/images/generations":
            start = f'{{"created":{_CREATED},"id":"{name}","data":['.encode("ascii")
            self._write(_json(start + self._picture))
        else:
            self._write(_LISTS.get(path) or _json(b'{"error":{"code":404}}', b"404 Not Found"))

    def _chat(self, name: str, asked: dict[str, object]) -> None:
        words = int(str(asked.get("max_tokens") or asked.get("max_completion_tokens") or 1))
        if not asked.get("stream"):
            self._write(_json(_whole(name, words)))
            return
        told = [_chunk(_event(name, delta={"content": word})) for word in _words(words)]
        end = _chunk(_event(name, "stop") + _usage(name, words) + _DONE) + _END
        first = _STREAM + _chunk(_event(name, delta={"role": "assistant", "content": None}))
        if words <= BURST:
            self._write(b"".join((first, *told, end)))
        else:
            self._write(first)
            self._pace([*told[:-1], told[-1] + end])

    def _pace(self, told: list[bytes]) -> None:
        loop = asyncio.get_running_loop()
        start = loop.time()

        def tell(number: int) -> None:
            self._write(told[number])
            if number + 1 < len(told) and self._transport is not None:
                loop.call_at(start + (number + 1) / PACE, tell, number + 1)

        tell(0)

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)


def painting() -> bytes:
    """Return a PNG of about 1.5 MB: noise in the lower five bits, which is 5/8 of the pixels."""
    width, height = SIZE
    noise = random.Random(4).randbytes(3 * width * height)
    pixels = noise.translate(bytes(value & 31 for value in range(256)))
    buffer = io.BytesIO()
    PIL.Image.frombytes("RGB", SIZE, pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _header(head: bytes, name: bytes) -> bytes | None:
    at = head.lower().find(b"\r\n" + name + b":")
    if at < 0:
        return None
    return head[at + len(name) + 3 :].partition(b"\r\n")[0].strip()


def _json(body: bytes, status: bytes = b"200 OK") -> bytes:
    return (
        b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        % (status, len(body))
    ) + body


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _event(
    name: str, reason: str | None = None, delta: dict[str, str | None] | None = None
) -> bytes:
    choice = {"index": 0, "finish_reason": reason, "delta": delta or {"content": None}}
    return _data({"object": "chat.completion.chunk", "id": name, "choices": [choice]})


def _usage(name: str, words: int) -> bytes:
    return _data(
        {"id": name, "object": "chat.completion.chunk", "choices": [], "usage": _tokens(words)}
    )


def _whole(name: str, words: int) -> bytes:
    message = {"role": "assistant", "content": "".join(_words(words))}
    return _compact(
        {
            "object": "chat.completion",
            "id": name,
            "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
            "usage": _tokens(words),
        }
    )


def _words(count: int) -> list[str]:
    """Return so many words, each another one than that before: LiteLLM ends what repeats itself."""
    return [f"{WORD}{number % 10} " for number in range(count)]


def _tokens(words: int) -> dict[str, int]:
    return {"prompt_tokens": 5, "completion_tokens": words, "total_tokens": 5 + words}


def _data(event: dict[str, object]) -> bytes:
    return b"data: " + _compact(event) + b"\n\n"


def _compact(value: dict[str, object]) -> bytes:
    return json.dumps({"created": _CREATED, "model": CHAT, **value}, separators=(",", ":")).encode(
        "ascii"
    )


def _model(name: str, capability: str, made: str) -> dict[str, object]:
    return {
        "id": name,
        "object": "model",
        "capabilities": [capability],
        "input_modalities": ["text"],
        "output_modalities": [made],
    }


def _lists() -> dict[bytes, bytes]:
    models = [_model(CHAT, "chat", "text"), _model(PAINTER, "image", "image")]
    listed = {"object": "list", "data": models}
    loaded = {"backends": [], "loaded_models": [{"id": CHAT}, {"id": PAINTER}]}
    answers: dict[bytes, object] = {
        b"/v1/models": listed,
        b"/v1/models/capabilities": listed,
        b"/system": loaded,
        b"/version": {"version": "v4.9.0 (benchmark)"},
        b"/backend/load": {"loaded": [CHAT], "message": "model loaded"},
    }
    ready = {path: _json(json.dumps(value).encode("ascii")) for path, value in answers.items()}
    return {**ready, b"/readyz": _json(b""), b"/healthz": _json(b"")}


_LISTS = _lists()


async def main(port: int) -> None:
    """Serve until the process is ended."""
    item = {"embedding": None, "index": 0, "b64_json": base64.b64encode(painting()).decode("ascii")}
    usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    rest = f'{json.dumps(item)}],"usage":{json.dumps(usage)}}}'.encode("ascii")
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Upstream(rest), "127.0.0.1", port, backlog=512)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
