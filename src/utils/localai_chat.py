"""What LocalAI answers event by event: the stream of a chat. Pure."""

from collections.abc import Iterable

from ..models.errors import BackendProtocolError, EmptyResult, StreamCut
from ..models.results import Finish, TextDelta
from .localai_answers import answer_in, tokens_in
from .localai_errors import Scene
from .strict_json import Json, JsonObject, encodable


class ChatAnswer:
    """One streamed chat answer, told event by event."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self.begun = False
        self._told = False
        self._reason = ""
        self._tokens = (0, 0)
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
        told = answer_in(event, self._scene)
        self._told = True
        if isinstance(told.get("usage"), dict):
            self._tokens = tokens_in(told)
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

        A whole answer tells why it ended and then says `[DONE]`. llama-cpp-python, interrupted by
        another request, says `[DONE]` in the middle of a word and gives no reason. An empty text
        is a result when a reason came with it: LocalAI has then tried several times by itself.

        Raises:
            StreamCut: it ended before it was done.
            EmptyResult: it was done without a text and without a reason.

        """
        backend = self._scene.backend
        if not self._reason and not self.begun and (self.done or not self._told):
            raise EmptyResult(f"backend {backend} answered without a text")
        if not self.done or not self._reason:
            raise StreamCut(f"the answer of backend {backend} was cut short")
        return Finish(self._reason, *self._tokens, simulated)

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
        return encodable(value or "")

    def _strange(self) -> BackendProtocolError:
        return BackendProtocolError(
            f"backend {self._scene.backend} sent an event that is no part of a chat"
        )
