"""What a backend yields piece by piece, and what is kept when the pieces are complete."""

from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import assert_never

from .blobs import Blob, Content, size_of


@dataclass(frozen=True, slots=True)
class TextDelta:
    """A piece of text; `reasoning` is the model's thinking, which is not part of the answer."""

    text: str
    reasoning: str = ""


@dataclass(frozen=True, slots=True)
class Image:
    """One finished picture, encoded, checked to decode to `width` x `height` pixels."""

    data: Content
    media_type: str
    width: int
    height: int
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Audio:
    """One finished recording, encoded; `seconds` is None where its format does not say."""

    data: Content
    media_type: str
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Video:
    """One finished film, encoded."""

    data: Content
    media_type: str


@dataclass(frozen=True, slots=True)
class Vector:
    """The embedding of one input, as numbers of double precision (`array("d")`)."""

    values: "array[float]"


@dataclass(frozen=True, slots=True)
class Rank:
    """How relevant a document is; `index` counts the documents of the request from 0."""

    index: int
    score: float


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a transcript: from `start` to `end`, in seconds; `speaker` where it is known."""

    start: float
    end: float
    text: str
    speaker: str = ""


@dataclass(frozen=True, slots=True)
class Heard:
    """What was found out about a recording: its language, its length in seconds, its parts."""

    language: str = ""
    seconds: float | None = None
    segments: tuple[Segment, ...] = ()


@dataclass(frozen=True, slots=True)
class Finish:
    """The last piece: why the backend stopped and what it counted (tokens; zero when unknown)."""

    reason: str = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0
    simulated: bool = False


Media = Image | Audio | Video
Chunk = TextDelta | Media | Vector | Rank | Heard | Finish


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """All pieces of one successful attempt."""

    text: str = ""
    reasoning: str = ""
    images: tuple[Image, ...] = ()
    audio: tuple[Audio, ...] = ()
    videos: tuple[Video, ...] = ()
    vectors: tuple[Vector, ...] = ()
    ranking: tuple[Rank, ...] = ()
    heard: Heard | None = None
    finish: Finish = Finish()

    @property
    def media(self) -> Iterable[Media]:
        """Everything that is shown or played."""
        return chain(self.images, self.audio, self.videos)

    @property
    def size_bytes(self) -> int:
        """About how much room the result takes."""
        texts = 2 * (len(self.text) + len(self.reasoning)) + 16 * len(self.ranking)
        if self.heard is not None:
            texts += sum(100 + 2 * len(segment.text) for segment in self.heard.segments)
        numbers = sum(8 * len(vector.values) for vector in self.vectors)
        return texts + numbers + sum(size_of(medium.data) for medium in self.media)


def blobs_in(chunks: Iterable[Chunk]) -> Iterable[Blob]:
    """Yield the blobs that pieces refer to."""
    for chunk in chunks:
        if isinstance(chunk, Image | Audio | Video) and isinstance(chunk.data, Blob):
            yield chunk.data


def collect(chunks: Iterable[Chunk]) -> Result:
    """Put the pieces of one attempt together."""
    text: list[str] = []
    reasoning: list[str] = []
    images: list[Image] = []
    audio: list[Audio] = []
    videos: list[Video] = []
    vectors: list[Vector] = []
    ranking: list[Rank] = []
    heard: Heard | None = None
    finish = Finish()
    for chunk in chunks:
        match chunk:
            case TextDelta():
                text.append(chunk.text)
                reasoning.append(chunk.reasoning)
            case Image():
                images.append(chunk)
            case Audio():
                audio.append(chunk)
            case Video():
                videos.append(chunk)
            case Vector():
                vectors.append(chunk)
            case Rank():
                ranking.append(chunk)
            case Heard():
                heard = chunk
            case Finish():
                finish = chunk
            case _:
                assert_never(chunk)
    return Result(
        text="".join(text),
        reasoning="".join(reasoning),
        images=tuple(images),
        audio=tuple(audio),
        videos=tuple(videos),
        vectors=tuple(vectors),
        ranking=tuple(ranking),
        heard=heard,
        finish=finish,
    )
