"""How far somebody has followed a job, so that they can go on exactly where they broke off.

A place in a job's story is written as one word: how many steps were told, the attempt whose text is
being told, and how many characters of it were: `4.1.120`. Text that is reasoning, or that
belongs to further answers, is counted by itself: `4.1.120-80-64`.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from .errors import InvalidInput
from .results import Chunk, TextDelta

SLICE = 16_384
"""Characters that are told at once."""

_WORD = re.compile(r"(\d{1,9})\.(\d{1,9})\.(\d{1,12}(?:-\d{1,12}){0,63})", re.ASCII)


class Delta(NamedTuple):
    """A piece of text that was not told yet: of which answer, and whether it is reasoning."""

    text: str
    choice: int
    reasoning: bool


@dataclass(slots=True)
class Bookmark:
    """How far somebody has come.

    Attributes:
        steps: how many were told; so it is the version of the first one that was not.
        fence: the attempt of which text was told.
        told: characters of its text and of its reasoning, of one answer after the other.

    """

    steps: int = 0
    fence: int = 0
    told: list[int] = field(default_factory=list[int])

    def __str__(self) -> str:
        return f"{self.steps}.{self.fence}.{'-'.join(map(str, self.told)) or 0}"

    @classmethod
    def read(cls, word: str) -> "Bookmark":
        """Read what `str` has written.

        Raises:
            InvalidInput: it is no such word; `param` is `Last-Event-ID`.

        """
        found = _WORD.fullmatch(word.strip())
        if found is None:
            raise InvalidInput(
                "Last-Event-ID is not the id of an event of this stream",
                param="Last-Event-ID",
                hint="send the last id that came, or leave it out to begin at the start",
            )
        told = [int(number) for number in found[3].split("-")]
        return cls(int(found[1]), int(found[2]), told if any(told) else [])


class Script:
    """Tells of the text of attempts what was not told before, from a bookmark on."""

    def __init__(self, bookmark: Bookmark) -> None:
        self.bookmark = bookmark
        self._passed: list[int] = []

    def turn_to(self, fence: int) -> bool:
        """Go on with an attempt; say whether text of an earlier one was told and is void now."""
        mark = self.bookmark
        if fence == mark.fence:
            return False
        void = bool(mark.told)
        mark.fence, mark.told, self._passed = fence, [], []
        return void

    def news(self, pieces: Iterable[Chunk]) -> Iterator[Delta]:
        """Yield what the next pieces of the attempt say; each is counted as told when it comes."""
        for delta in _joined(pieces):
            channel = 2 * delta.choice + delta.reasoning
            began = _at(self._passed, channel)
            _put(self._passed, channel, began + len(delta.text))
            at = max(_at(self.bookmark.told, channel) - began, 0)
            while at < len(delta.text):
                text = delta.text[at : at + SLICE]
                at += len(text)
                _put(self.bookmark.told, channel, began + at)
                yield Delta(text, delta.choice, delta.reasoning)


def _joined(pieces: Iterable[Chunk]) -> Iterator[Delta]:
    """Join the texts that follow one another."""
    texts: list[str] = []
    last = (0, False)
    for piece in pieces:
        if not isinstance(piece, TextDelta):
            continue
        for text, reasoning in ((piece.reasoning, True), (piece.text, False)):
            if not text:
                continue
            if last != (piece.choice, reasoning) and texts:
                yield Delta("".join(texts), *last)
                texts.clear()
            last = (piece.choice, reasoning)
            texts.append(text)
    if texts:
        yield Delta("".join(texts), *last)


def _at(counts: list[int], channel: int) -> int:
    return counts[channel] if channel < len(counts) else 0


def _put(counts: list[int], channel: int, value: int) -> None:
    counts.extend([0] * (channel + 1 - len(counts)))
    counts[channel] = value
