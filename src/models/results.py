"""What a backend yields piece by piece, and what is kept when the pieces are complete."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import assert_never


@dataclass(frozen=True, slots=True)
class TextDelta:
    """A piece of text; `reasoning` is the model's thinking, which is not part of the answer."""

    text: str
    reasoning: str = ""


@dataclass(frozen=True, slots=True)
class Image:
    """One finished picture: encoded bytes, checked to decode to `width` x `height` pixels."""

    data: bytes
    media_type: str
    width: int
    height: int
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Finish:
    """The last piece: why the backend stopped and what it counted (tokens; zero when unknown)."""

    reason: str = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0
    simulated: bool = False


Chunk = TextDelta | Image | Finish


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """All pieces of one successful attempt."""

    text: str = ""
    reasoning: str = ""
    images: tuple[Image, ...] = ()
    finish: Finish = Finish()

    @property
    def size_bytes(self) -> int:
        """About how much memory the result holds."""
        return 2 * (len(self.text) + len(self.reasoning)) + sum(len(i.data) for i in self.images)


def collect(chunks: Iterable[Chunk]) -> Result:
    """Put the pieces of one attempt together."""
    text: list[str] = []
    reasoning: list[str] = []
    images: list[Image] = []
    finish = Finish()
    for chunk in chunks:
        match chunk:
            case TextDelta():
                text.append(chunk.text)
                reasoning.append(chunk.reasoning)
            case Image():
                images.append(chunk)
            case Finish():
                finish = chunk
            case _:
                assert_never(chunk)
    return Result(
        text="".join(text), reasoning="".join(reasoning), images=tuple(images), finish=finish
    )
