"""What LocalAI answers to a text that it goes on with, event by event. Pure."""

from collections.abc import Iterable, Iterator

from ..models.errors import BackendProtocolError, EmptyResult, StreamCut
from ..models.results import ChoiceEnd, TextDelta
from .localai_answers import answer_in, tokens_in
from .localai_errors import Failure, Scene, error_of
from .strict_json import JsonObject, encodable

_FAILURE = "Internal error: "


class Continuation:
    """One streamed completion.

    LocalAI writes a failure as text, says `stop`, and then ends without `[DONE]`; so what may be a
    failure is held back until more has come. It says `stop` for every end: that of an answer which
    has as many tokens as were allowed is called `length` here.
    """

    def __init__(self, scene: Scene, *, choice: int = 0, longest: int | None = None) -> None:
        self.begun = False
        self.done = False
        self.tokens = (0, 0)
        self._scene = scene
        self._number = choice
        self._longest = longest
        self._reason = ""
        self._doubtful = ""

    def __repr__(self) -> str:
        return f"<Continuation [done={self.done}, reason={self._reason!r}]>"

    def read_all(self, events: Iterable[str]) -> Iterator[TextDelta]:
        """Take the events that came together, up to the last; yield their pieces of text.

        Raises:
            BackendError: an event reports a failure, or is none that a completion should have.

        """
        for event in events:
            if (delta := self.read(event)) is not None:
                yield delta
            if self.done:
                return

    def read(self, event: str) -> TextDelta | None:
        """Take one event; return its piece of text, if it has one.

        Raises:
            BackendError: the event reports a failure, or is none that a completion should have.

        """
        if event.strip() == "[DONE]":
            self.done = True
            return self._piece("")
        told = answer_in(event, self._scene)
        if isinstance(told.get("usage"), dict):
            self.tokens = tokens_in(told)
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

    def end(self) -> ChoiceEnd:
        """Say why the text ended, now that the stream has.

        Raises:
            BackendError: it ended with a failure, before it was done, or with nothing at all.

        """
        backend = self._scene.backend
        if self._doubtful:
            words = self._doubtful.removeprefix(_FAILURE)
            raise error_of(Failure(500, text=words), self._scene)
        if not self.done:
            raise StreamCut(f"the answer of backend {backend} was cut short")
        if not self._reason:
            raise EmptyResult(f"backend {backend} answered without saying why it ended")
        full = self._longest is not None and self.tokens[1] >= self._longest
        return ChoiceEnd("length" if full else self._reason, self._number)

    def _choice(self, choice: JsonObject) -> TextDelta | None:
        reason, text = choice.get("finish_reason"), choice.get("text")
        if not isinstance(reason, str | None) or not isinstance(text, str | None):
            raise self._strange()
        self._reason = reason or self._reason
        text = encodable(text or "")
        if reason and text.startswith(_FAILURE) and not self._doubtful:
            self._doubtful = text
            return None
        return self._piece(text)

    def _piece(self, text: str) -> TextDelta | None:
        text, self._doubtful = self._doubtful + text, ""
        if not text:
            return None
        self.begun = True
        return TextDelta(text, choice=self._number)

    def _strange(self) -> BackendProtocolError:
        return BackendProtocolError(
            f"backend {self._scene.backend} sent an event that is no part of a completion"
        )
