"""What LocalAI answers to a conversation: event by event, or all at once. Pure."""

import re
from collections.abc import Iterable, Iterator
from typing import cast

from ..models.errors import BackendProtocolError, EmptyResult, StreamCut
from ..models.results import Call, ChoiceEnd, Chunk, Logprobs, TextDelta
from .localai_answers import answer_in, tokens_in
from .localai_errors import Scene
from .strict_json import Json, JsonObject, encodable

_PLAIN = re.compile(r'[^"\\\x00-\x1f]+')
"""A text that JSON writes as it is."""

_USUAL = frozenset({"role", "content", "reasoning"})


class ChatAnswer:
    """One streamed chat answer, told event by event.

    Args:
        scene: where failures happen.
        choice: which of the answers to its request it is.
        name: the `id` that its events should have, if they are to be passed on as they are.

    """

    def __init__(self, scene: Scene, *, choice: int = 0, name: str = "") -> None:
        self.begun = False
        self.done = False
        self.reason = ""
        self.tokens = (0, 0)
        self._scene = scene
        self._number = choice
        self._name = name
        self._told = False
        self._calls = _CallIds()
        self._around: tuple[str, str] | None = None
        """What stood before and after the text of an event: with these, it need not be parsed."""

    def __repr__(self) -> str:
        return f"<ChatAnswer [done={self.done}, reason={self.reason!r}]>"

    def read_all(self, events: Iterable[str]) -> Iterator[TextDelta]:
        """Take the events that came together, up to the last; yield their pieces of text.

        Those that are passed on as they are become one piece.

        Raises:
            BackendError: an event reports a failure, or is none that a chat should have.

        """
        texts: list[str] = []
        passed: list[str] = []
        for event in events:
            if self._around is not None and (text := _between(event, *self._around)):
                texts.append(text)
                passed.append(event)
                continue
            if texts:
                yield TextDelta("".join(texts), event=_together(passed))
                texts, passed = [], []
            if (delta := self.read(event)) is not None:
                yield delta
            if self.done:
                return
        if texts:
            yield TextDelta("".join(texts), event=_together(passed))

    def read(self, event: str) -> TextDelta | None:
        """Take one event; return its piece of text, if it has one.

        Raises:
            BackendError: the event reports a failure, or is none that a chat should have.

        """
        if event.strip() == "[DONE]":
            self.done = True
            return None
        told = answer_in(event, self._scene)
        self._told = True
        if isinstance(told.get("usage"), dict):
            self.tokens = tokens_in(told)
        match told.get("choices"):
            case None | []:
                return None
            case [dict() as choice, *_]:
                return self._choice(choice, event if self._is_ours(told) else "")
            case _:
                raise _strange(self._scene)

    def last(self, events: Iterable[str]) -> None:
        """Take what the stream ended with in the middle of a line: perhaps a bare `[DONE]`."""
        self.done = self.done or any(event.strip() == "[DONE]" for event in events)

    def end(self) -> ChoiceEnd:
        """Say why the answer ended, now that the stream has.

        A whole answer tells why it ended and then says `[DONE]`. llama-cpp-python, interrupted by
        another request, says `[DONE]` in the middle of a word and gives no reason. An empty text
        is a result when a reason came with it: LocalAI has then tried several times by itself.

        Raises:
            StreamCut: it ended before it was done.
            EmptyResult: it was done without a text and without a reason.

        """
        backend = self._scene.backend
        if not self.reason and not self.begun and (self.done or not self._told):
            raise EmptyResult(f"backend {backend} answered without a text")
        if not self.done or not self.reason:
            raise StreamCut(f"the answer of backend {backend} was cut short")
        return ChoiceEnd(self.reason, self._number)

    def _is_ours(self, told: JsonObject) -> bool:
        """Whether an event has the shape that OpenAI's have, as far as it can be seen so early."""
        return (
            self._name != ""
            and told.get("id") == self._name
            and told.get("object") == "chat.completion.chunk"
            and "created" in told
            and "model" in told
            and "usage" not in told
        )

    def _choice(self, choice: JsonObject, event: str) -> TextDelta | None:
        match choice.get("finish_reason"):
            case None:
                pass
            case str(reason):
                self.reason = reason or self.reason
                event = ""
            case _:
                raise _strange(self._scene)
        match choice.get("delta"):
            case None:
                return None
            case dict() as delta:
                text, reasoning = _words(delta, self._scene)
                calls = self._calls.read(delta.get("tool_calls"), self._scene)
            case _:
                raise _strange(self._scene)
        if not text and not reasoning and not calls:
            return None
        self.begun = True
        strange = self._number or calls or "\n" in event
        if event and (strange or not _passes(choice, delta, text, reasoning)):
            event = ""
        if event and not reasoning:
            self._around = _around(event, text)
        return TextDelta(text, reasoning, self._number, calls, event)


def in_one_piece(answer: JsonObject, scene: Scene, choice: int = 0) -> Iterator[Chunk]:
    """Yield the pieces of an answer that was not streamed, and its end.

    Raises:
        BackendError: it is none that a chat should have, or has neither text nor reason.

    """
    match answer.get("choices"):
        case [{"message": dict() as message} as told, *_]:
            told = cast("JsonObject", told)
        case _:
            raise _strange(scene)
    text, reasoning = _words(cast("JsonObject", message), scene)
    calls = _CallIds().read(cast("JsonObject", message).get("tool_calls"), scene)
    reason = told.get("finish_reason")
    if not isinstance(reason, str) or not reason:
        raise EmptyResult(f"backend {scene.backend} answered without saying why it ended")
    if text or reasoning or calls:
        yield TextDelta(text, reasoning, choice, calls)
    match told.get("logprobs"):
        case {"content": [*content]}:
            yield Logprobs(tuple(content), choice)
        case _:
            pass
    yield ChoiceEnd(reason, choice)


class _CallIds:
    """Reads pieces of calls; gives each call an id of its own, as LocalAI's may be all the same."""

    def __init__(self) -> None:
        self._ids: dict[int, str] = {}

    def read(self, calls: Json, scene: Scene) -> tuple[Call, ...]:
        match calls:
            case None:
                return ()
            case list():
                return tuple(self._call(place, call, scene) for place, call in enumerate(calls))
            case _:
                raise _strange(scene)

    def _call(self, place: int, call: Json, scene: Scene) -> Call:
        if not isinstance(call, dict):
            raise _strange(scene)
        index, function = call.get("index", place), call.get("function")
        if not isinstance(index, int) or not isinstance(function, dict | None):
            raise _strange(scene)
        function = function or {}
        own = self._own(index, _text(call.get("id"), scene))
        name, arguments = function.get("name"), function.get("arguments")
        return Call(index, own, _text(name, scene), _text(arguments, scene))

    def _own(self, index: int, told: str) -> str:
        """Return the id of a call with its first piece, nothing with the others."""
        if index in self._ids:
            return ""
        own = told or f"call-{index}"
        while own in self._ids.values():
            own = f"{own}-{index}"
        self._ids[index] = own
        return own


def _together(events: Iterable[str]) -> str:
    """Write events as one, as they are sent."""
    return "\n\ndata: ".join(events)


def _around(event: str, text: str) -> tuple[str, str] | None:
    """Return what stands before and after a text in its event, if that can be told for sure."""
    if not _PLAIN.fullmatch(text):
        return None
    for name in ('"content":"', '"content": "'):
        before, found, after = event.partition(f'{name}{text}"')
        if found:
            return (before + name, f'"{after}') if '"content"' not in before + after else None
    return None


def _between(event: str, before: str, after: str) -> str:
    """Return the text of an event that differs in a text without escapes alone; else nothing."""
    if not event.startswith(before) or not event.endswith(after):
        return ""
    text = event[len(before) : len(event) - len(after)]
    return text if _PLAIN.fullmatch(text) else ""


def _words(said: JsonObject, scene: Scene) -> tuple[str, str]:
    """Return the text of a message or of a piece of one, and the thinking."""
    text = _text(said.get("content"), scene)
    reasoning = _text(said.get("reasoning"), scene)
    return text, reasoning or _text(said.get("reasoning_content"), scene)


def _passes(choice: JsonObject, delta: JsonObject, text: str, reasoning: str) -> bool:
    """Whether a piece is written as OpenAI would: no nulls for texts, and nothing strange."""
    return (
        choice.get("index") == 0
        and "finish_reason" in choice
        and delta.keys() <= _USUAL
        and None not in delta.values()
        and delta.get("content", "") == text
        and delta.get("reasoning", "") == reasoning
    )


def _text(value: Json, scene: Scene) -> str:
    if value is not None and not isinstance(value, str):
        raise _strange(scene)
    return encodable(value or "")


def _strange(scene: Scene) -> BackendProtocolError:
    return BackendProtocolError(f"backend {scene.backend} sent an event that is no part of a chat")
