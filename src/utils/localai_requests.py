"""What is said to LocalAI: requests become JSON or forms. Pure.

What a request leaves out is left out here as well, for the model has defaults of its own.
"""

import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never, cast

from ..models.messages import Message, TextPart
from ..models.requests import (
    Audio2TxtRequest,
    CompletionRequest,
    Img2ImgRequest,
    Img2TxtRequest,
    InferenceRequest,
    InpaintRequest,
    ModerationRequest,
    RerankRequest,
    Txt2AudioRequest,
    Txt2ImgRequest,
    Txt2SoundRequest,
    Txt2TxtRequest,
    Txt2VecRequest,
    Txt2VideoRequest,
)
from .localai_media import audio_type
from .strict_json import Json, JsonObject

DEFAULT_SIDE = 512
_SEEDS = 2**31
_encoder = json.JSONEncoder(allow_nan=False, separators=(",", ":"))
_ENDINGS = {
    "image/png": "png",
    "image/jpeg": "jpg",
    "image/webp": "webp",
    "audio/wav": "wav",
    "audio/mpeg": "mp3",
    "audio/flac": "flac",
    "audio/ogg": "ogg",
    "audio/mp4": "m4a",
    "audio/aac": "aac",
    "audio/webm": "webm",
}


@dataclass(frozen=True, slots=True)
class Form:
    """A multipart form: texts, and files with their name and media type."""

    texts: Mapping[str, str]
    files: Mapping[str, tuple[str, bytes, str]]


def encode(body: JsonObject) -> bytes:
    """Write JSON in ASCII, so that no text can break it."""
    return _encoder.encode(body).encode("ascii")


def chat(
    request: Txt2TxtRequest | Img2TxtRequest,
    model: str,
    pictures: Sequence[bytes] = (),
    number: int = 0,
) -> JsonObject:
    """Build the body of a chat completion, for the `number`-th answer of the request.

    It is streamed, with the usage at its end, unless it is to tell how likely its tokens were:
    LocalAI does that in one piece only.
    """
    tools = cast("list[Json]", list(request.tools))
    told: JsonObject = {"logprobs": True} if request.logprobs else dict(_STREAMED)
    return {
        **_sampling(request, number),
        "model": model,
        "messages": _messages(request, pictures),
        **_given(tools=tools or None),
        **told,
    }


def completion(request: CompletionRequest, model: str, prompt: str, number: int) -> JsonObject:
    """Build the body that has a text gone on with."""
    return {**_sampling(request, number), "model": model, "prompt": prompt, **_STREAMED}


def moderation(request: ModerationRequest, model: str) -> JsonObject:
    """Build the body that has texts judged."""
    return {"model": model, "input": list(request.input)}


_STREAMED: JsonObject = {"stream": True, "stream_options": {"include_usage": True}}


def _sampling(
    request: Txt2TxtRequest | Img2TxtRequest | CompletionRequest, number: int
) -> JsonObject:
    """Say how the `number`-th answer is sampled; with one seed for all, all would be equal."""
    return {
        **request.options,
        **_given(
            temperature=request.temperature,
            top_p=request.top_p,
            top_k=request.top_k,
            max_tokens=request.max_tokens,
            stop=None if request.stop is None else list(request.stop),
            seed=None if request.seed is None else (request.seed + number) % _SEEDS,
            presence_penalty=request.presence_penalty,
            frequency_penalty=request.frequency_penalty,
        ),
    }


def _messages(request: Txt2TxtRequest | Img2TxtRequest, pictures: Sequence[bytes]) -> list[Json]:
    shown = [_shown(picture) for picture in pictures]
    if request.messages:
        return [_turn(message, shown) for message in request.messages]
    asked = cast("Img2TxtRequest", request).question
    return [{"role": "user", "content": [*shown, {"type": "text", "text": asked}]}]


def _turn(message: Message, shown: Sequence[Json]) -> Json:
    content: Json = (
        message.content
        if isinstance(message.content, str)
        else [
            {"type": "text", "text": part.text} if isinstance(part, TextPart) else shown[part.image]
            for part in message.content
        ]
    )
    return {**message.more, "role": _role(message), "content": content}


def _shown(picture: bytes) -> Json:
    """Write a picture as a data: URI, or LocalAI drops it and answers from the words alone."""
    url = f"data:{_picture_type(picture)};base64,{_base64(picture)}"
    return {"type": "image_url", "image_url": {"url": url}}


def _role(message: Message) -> str:
    """Return the role; chat templates of open models know `system` but hardly ever `developer`."""
    return "system" if message.role == "developer" else message.role


def drawing(
    request: Txt2ImgRequest | Img2ImgRequest, model: str, number: int, source: bytes = b""
) -> JsonObject:
    """Build the body for one picture, the `number`-th of the request.

    LocalAI splits the prompt at the first ``|`` into what to draw and what to avoid, and drops
    everything after a second one. So a ``|`` in the prompt becomes a comma.
    """
    prompt = request.prompt.replace("|", ",")
    if request.negative_prompt.strip():
        prompt = f"{prompt}|{request.negative_prompt}"
    width, height = size_of(request)
    body: JsonObject = {
        **request.options,
        "model": model,
        "prompt": prompt,
        "size": f"{width}x{height}",
        "n": 1,
        "response_format": "b64_json",
        **_given(step=request.steps, seed=seed_of(request, number)),
    }
    if isinstance(request, Img2ImgRequest):
        # Without the `data:` prefix, or LocalAI drops the picture and draws from words alone.
        body |= {"file": _base64(source), **_given(strength=request.strength)}
    return body


def size_of(request: Txt2ImgRequest | Img2ImgRequest) -> tuple[int, int]:
    """Return the width and height that are asked for."""
    return request.width or DEFAULT_SIDE, request.height or DEFAULT_SIDE


def seed_of(request: Txt2ImgRequest | Img2ImgRequest, number: int) -> int | None:
    """Return the seed of the `number`-th picture: with one seed for all, all would be equal."""
    return None if request.seed is None else (request.seed + number) % _SEEDS


def inpainting(request: InpaintRequest, model: str, image: bytes, mask: bytes) -> Form:
    """Build the form that has a part of a picture drawn anew."""
    texts = {"model": model, "prompt": request.prompt}
    if request.steps is not None:
        texts["steps"] = str(request.steps)
    files = {
        "image": _file("image", image, _picture_type(image)),
        "mask": _file("mask", mask, _picture_type(mask)),
    }
    return Form(texts, files)


def embedding(
    request: Txt2VecRequest, texts: Sequence[str | tuple[int, ...]], model: str
) -> JsonObject:
    """Build the body that turns some of the request's texts into vectors."""
    told: list[Json] = [text if isinstance(text, str) else list(text) for text in texts]
    return {**request.options, "model": model, "input": told}


def reranking(request: RerankRequest, model: str) -> JsonObject:
    """Build the body that orders documents."""
    return {
        **request.options,
        "model": model,
        "query": request.query,
        "documents": list(request.documents),
        **_given(top_n=request.top_n),
    }


def speech(request: Txt2AudioRequest, model: str) -> JsonObject:
    """Build the body that has a text spoken."""
    return {
        **request.options,
        "model": model,
        "input": request.input,
        "response_format": request.format,
        **_given(
            voice=request.voice,
            language=request.language,
            instructions=request.instructions,
            speed=request.speed,
        ),
    }


def sound(request: Txt2SoundRequest, model: str) -> JsonObject:
    """Build the body that has a sound made; its fields are named as ElevenLabs names them."""
    return {
        "model_id": model,
        "text": request.prompt,
        **_given(
            duration_seconds=request.seconds,
            lyrics=request.lyrics,
            bpm=request.bpm,
            instrumental=request.instrumental,
        ),
    }


def transcription(request: Audio2TxtRequest, model: str, recording: bytes) -> Form:
    """Build the form that has a recording written down."""
    texts = {"model": model, "response_format": "verbose_json"}
    texts |= {
        name: value
        for name, value in (("language", request.language), ("prompt", request.prompt))
        if value
    }
    if request.temperature is not None:
        texts["temperature"] = str(request.temperature)
    if request.translate:
        texts["translate"] = "true"
    kind = audio_type(recording[:16]) or "application/octet-stream"
    return Form(texts, {"file": _file("recording", recording, kind)})


def film(request: Txt2VideoRequest, model: str, first: bytes = b"") -> JsonObject:
    """Build the body that has a film made; it is fetched from the address in the answer."""
    return {
        "model": model,
        "prompt": request.prompt,
        "response_format": "url",
        **_given(
            negative_prompt=request.negative_prompt,
            start_image=_base64(first),
            width=request.width,
            height=request.height,
            num_frames=request.num_frames,
            fps=request.fps,
            step=request.steps,
            cfg_scale=request.cfg_scale,
            seed=request.seed,
        ),
    }


def sources_of(request: InferenceRequest) -> tuple[str, ...]:
    """Return the pictures and recordings of a request, as they are written in it."""
    match request:
        case Img2TxtRequest():
            return request.images
        case Img2ImgRequest():
            return (request.image,)
        case InpaintRequest():
            return (request.image, request.mask)
        case Audio2TxtRequest():
            return (request.audio,)
        case Txt2VideoRequest():
            return () if request.image is None else (request.image,)
        case (
            Txt2TxtRequest()
            | CompletionRequest()
            | ModerationRequest()
            | Txt2ImgRequest()
            | Txt2VecRequest()
            | RerankRequest()
            | Txt2AudioRequest()
            | Txt2SoundRequest()
        ):
            return ()
        case _:
            assert_never(request)


def words_of(request: InferenceRequest) -> tuple[str, ...]:
    """Return what the caller wrote: none of it may appear in an error."""
    match request:
        case Txt2TxtRequest():
            return tuple(message.words for message in request.messages)
        case Img2TxtRequest():
            return (request.question, *(message.words for message in request.messages))
        case CompletionRequest():
            return request.prompts
        case ModerationRequest():
            return request.input
        case Txt2ImgRequest() | Img2ImgRequest() | Txt2VideoRequest():
            return (request.prompt, request.negative_prompt)
        case InpaintRequest() | Audio2TxtRequest():
            return (request.prompt,)
        case Txt2VecRequest():
            return tuple(text for text in request.input if isinstance(text, str))
        case RerankRequest():
            return (request.query, *request.documents)
        case Txt2AudioRequest():
            return (request.input, request.instructions)
        case Txt2SoundRequest():
            return (request.prompt, request.lyrics)
        case _:
            assert_never(request)


def _given(**fields: Json) -> JsonObject:
    return {name: value for name, value in fields.items() if value is not None and value != ""}


def _base64(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode("ascii")


def _file(name: str, data: bytes, kind: str) -> tuple[str, bytes, str]:
    ending = _ENDINGS.get(kind)
    return f"{name}.{ending}" if ending else name, data, kind


def _picture_type(data: bytes) -> str:
    """Return the media type of a picture; the door lets PNG, JPEG and WEBP pass, nothing else."""
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    return "image/webp" if data.startswith(b"RIFF") else "image/png"
