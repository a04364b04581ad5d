"""What is said to LocalAI and how its answers read: requests to JSON, JSON to values. Pure.

Answers are read leniently where LocalAI is known to be loose (nulls, empty strings, extra events,
missing counts) and strictly where a mistake could pass for a result. What does not fit raises
`BackendProtocolError`, never a KeyError, and no piece of an answer is quoted.
"""

import binascii
import json
from collections.abc import Iterable, Iterator
from typing import assert_never

from ..models.errors import BackendProtocolError, EmptyResult, StreamCut
from ..models.modality import Modality
from ..models.ports import OfferedModel
from ..models.requests import (
    Img2ImgRequest,
    Img2TxtRequest,
    InferenceRequest,
    Message,
    Txt2ImgRequest,
    Txt2TxtRequest,
)
from ..models.results import Finish, Image, TextDelta
from .images import inspect_result
from .localai_errors import Scene, error_of, failure_in
from .strict_json import Json, JsonObject, parse

DEFAULT_SIDE = 512
_SEEDS = 2**31

# What we say


def chat(request: Txt2TxtRequest | Img2TxtRequest, model: str) -> JsonObject:
    """Build the body of a chat completion: always streamed, with the usage at its end."""
    body: JsonObject = {
        "model": model,
        "messages": _messages(request),
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    sampling: dict[str, Json] = {
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": request.top_k,
        "max_tokens": request.max_tokens,
        "stop": None if request.stop is None else list(request.stop),
        "seed": request.seed,
        "presence_penalty": request.presence_penalty,
        "frequency_penalty": request.frequency_penalty,
    }
    body.update((name, value) for name, value in sampling.items() if value is not None)
    return body


def _messages(request: Txt2TxtRequest | Img2TxtRequest) -> list[Json]:
    if isinstance(request, Txt2TxtRequest):
        return [{"role": _role(turn), "content": turn.content} for turn in request.messages]
    pictures: list[Json] = [
        {"type": "image_url", "image_url": {"url": image}} for image in request.images
    ]
    return [{"role": "user", "content": [*pictures, {"type": "text", "text": request.question}]}]


def _role(message: Message) -> str:
    """Return the role; chat templates of open models know `system` but hardly ever `developer`."""
    return "system" if message.role == "developer" else message.role


def drawing(request: Txt2ImgRequest | Img2ImgRequest, model: str, number: int) -> JsonObject:
    """Build the body for one picture, the `number`-th of the request.

    LocalAI splits the prompt at the first ``|`` into what to draw and what to avoid, and drops
    everything after a second one. So a ``|`` in the prompt becomes a comma.
    """
    prompt = request.prompt.replace("|", ",")
    if request.negative_prompt.strip():
        prompt = f"{prompt}|{request.negative_prompt}"
    width, height = request.width or DEFAULT_SIDE, request.height or DEFAULT_SIDE
    body: JsonObject = {
        "model": model,
        "prompt": prompt,
        "size": f"{width}x{height}",
        "n": 1,
        "response_format": "b64_json",
    }
    if request.steps is not None:
        body["step"] = request.steps
    if (seed := seed_of(request, number)) is not None:
        body["seed"] = seed
    if isinstance(request, Img2ImgRequest):
        # Without the `data:` prefix, or LocalAI drops the picture and draws from words alone.
        body["file"] = request.image.rpartition(",")[2]
        if request.strength is not None:
            body["strength"] = request.strength
    return body


def seed_of(request: Txt2ImgRequest | Img2ImgRequest, number: int) -> int | None:
    """Return the seed of the `number`-th picture: with one seed for all, all would be equal."""
    return None if request.seed is None else (request.seed + number) % _SEEDS


def encode(body: JsonObject) -> bytes:
    """Write JSON in ASCII, so that no text can break it."""
    return json.dumps(body, allow_nan=False, separators=(",", ":")).encode("ascii")


def words_of(request: InferenceRequest) -> tuple[str, ...]:
    """Return what the caller wrote: none of it may appear in an error."""
    match request:
        case Txt2TxtRequest():
            return tuple(message.content for message in request.messages)
        case Img2TxtRequest():
            return (request.question,)
        case Txt2ImgRequest() | Img2ImgRequest():
            return (request.prompt, request.negative_prompt)
        case _:
            assert_never(request)


# What we hear


class ChatAnswer:
    """One streamed chat answer, told event by event."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self.begun = False
        self._reason = ""
        self._prompt_tokens = 0
        self._completion_tokens = 0
        self.done = False

    def __repr__(self) -> str:
        return f"<ChatAnswer [done={self.done}, reason={self._reason!r}]>"

    def read(self, event: str) -> TextDelta | None:
        """Take one event; return its piece of text, if it has one.

        Raises:
            BackendError: the event reports a failure, or is none that a chat should have.

        """
        if event.strip() == "[DONE]":
            self.done = True
            return None
        told = _parsed(event, self._scene.backend)
        if not isinstance(told, dict):
            raise self._strange()
        if (error := told.get("error")) is not None:
            raise error_of(failure_in(error), self._scene)
        self._count(told.get("usage"))
        match told.get("choices"):
            case None | []:
                return None
            case [dict() as choice, *_]:
                return self._choice(choice)
            case _:
                raise self._strange()

    def last(self, events: Iterable[str]) -> None:
        """Take what the stream ended with in the middle of a line: perhaps a bare `[DONE]`."""
        self.done = self.done or any(event.strip() == "[DONE]" for event in events)

    def finish(self, *, simulated: bool) -> Finish:
        """Return the last piece, now that the stream has ended.

        A stream that says `[DONE]` is complete even when no event gave a reason. An empty text is
        a result when a reason came with it: LocalAI has then tried several times by itself.

        Raises:
            StreamCut: it ended before it was done.
            EmptyResult: it was done without a text and without a reason.

        """
        if not self.done:
            raise StreamCut(f"the answer of backend {self._scene.backend} was cut short")
        if not self._reason and not self.begun:
            raise EmptyResult(f"backend {self._scene.backend} answered without a text")
        return Finish(
            self._reason or "stop", self._prompt_tokens, self._completion_tokens, simulated
        )

    def _choice(self, choice: JsonObject) -> TextDelta | None:
        match choice.get("finish_reason"):
            case None:
                pass
            case str(reason):
                self._reason = reason or self._reason
            case _:
                raise self._strange()
        match choice.get("delta"):
            case None:
                return None
            case dict() as delta:
                text = self._text(delta.get("content"))
                reasoning = self._text(delta.get("reasoning"))
                reasoning = reasoning or self._text(delta.get("reasoning_content"))
            case _:
                raise self._strange()
        if not text and not reasoning:
            return None
        self.begun = True
        return TextDelta(text, reasoning)

    def _text(self, value: Json) -> str:
        if value is not None and not isinstance(value, str):
            raise self._strange()
        return value or ""

    def _count(self, usage: Json) -> None:
        if isinstance(usage, dict):
            self._prompt_tokens = _count(usage.get("prompt_tokens"))
            self._completion_tokens = _count(usage.get("completion_tokens"))

    def _strange(self) -> BackendProtocolError:
        return BackendProtocolError(
            f"backend {self._scene.backend} sent an event that is no part of a chat"
        )


def picture(body: bytes, scene: Scene, seed: int | None) -> Image:
    """Take the one picture out of an answer, and check it. Slow: call it in a thread.

    Raises:
        BackendError: there is none, or it is none.

    """
    nothing = EmptyResult(f"backend {scene.backend} answered without a picture")
    strange = BackendProtocolError(f"backend {scene.backend} answered with what is no picture")
    answer = _parsed(body, scene.backend)
    match answer:
        case {"error": error} if error is not None:
            raise error_of(failure_in(error), scene)
        case {"data": [dict() as item, *_]}:
            pass
        case {"data": None | []}:
            raise nothing
        case dict() if "created" in answer and "data" not in answer:
            raise nothing
        case _:
            raise strange
    match item.get("b64_json"):
        case None | "" if not item.get("url"):
            raise nothing
        case str(text) if text:
            try:
                data = binascii.a2b_base64(text.encode("ascii"), strict_mode=True)
            except ValueError:
                raise strange from None
            return inspect_result(data, backend=scene.backend, seed=seed)
        case _:
            raise strange


def offered(body: bytes, backend: str) -> list[OfferedModel]:
    """Read a list of models, with capabilities or without; skip entries that are none.

    `vision` may appear only after a model was loaded for the first time, and img2img is never
    reported: all there is, is an image model whose definition says that it takes images.
    """
    match _parsed(body, backend):
        case {"data": None}:
            return []
        case {"data": [*entries]}:
            return [model for entry in entries for model in _offered(entry)]
        case _:
            raise BackendProtocolError(f"the models of backend {backend} cannot be read")


def _offered(entry: Json) -> Iterator[OfferedModel]:
    if not isinstance(entry, dict):
        return
    name = entry.get("id")
    if not isinstance(name, str) or not 0 < len(name) <= 256 or not name.isprintable():
        return
    if "capabilities" not in entry:
        yield OfferedModel(name, None)
        return
    capabilities, inputs = _names(entry["capabilities"]), _names(entry.get("input_modalities"))
    yield OfferedModel(name, modalities(capabilities, inputs))


def modalities(capabilities: frozenset[str], inputs: frozenset[str]) -> frozenset[Modality]:
    """Return what a model with these capabilities can do."""
    found: set[Modality] = set()
    if capabilities & {"chat", "completion"}:
        found.add(Modality.TXT2TXT)
    if "vision" in capabilities or ("chat" in capabilities and "image" in inputs):
        found.add(Modality.IMG2TXT)
    if "image" in capabilities:
        found.add(Modality.TXT2IMG)
        if "image" in inputs:
            found.add(Modality.IMG2IMG)
    return frozenset(found)


def resident(body: bytes, backend: str) -> frozenset[str]:
    """Read which models are in memory, from `/system` or from `/api/ps`."""
    match _parsed(body, backend):
        case {"loaded_models": entries} | {"models": entries}:
            return _names(entries)
        case _:
            raise BackendProtocolError(f"what backend {backend} has in memory cannot be read")


def _names(entries: Json) -> frozenset[str]:
    """Return the names in a list; whatever else it holds has none."""
    return (
        frozenset(filter(None, map(_name, entries))) if isinstance(entries, list) else frozenset()
    )


def _name(entry: Json) -> str:
    match entry:
        case str(name) | {"id": str(name)} | {"name": str(name)} | {"model": str(name)}:
            return name
        case _:
            return ""


def version(body: bytes) -> str:
    """Read the version; empty if there is none."""
    try:
        match parse(body):
            case {"version": str(text)}:
                return "".join(filter(str.isprintable, text))[:100].strip()
            case _:
                return ""
    except ValueError:
        return ""


def _parsed(text: str | bytes, backend: str) -> Json:
    try:
        return parse(text)
    except ValueError:
        raise BackendProtocolError(f"backend {backend} answered with what is no JSON") from None


def _count(value: Json) -> int:
    """Read a number of tokens; what is none counts as zero, which means unknown."""
    return value if type(value) is int and 0 <= value < 2**53 else 0
