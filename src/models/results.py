"""What a backend yields piece by piece, and what is kept when the pieces are complete."""

from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple, assert_never

from pydantic import JsonValue

from .blobs import Blob, Content, size_of


@dataclass(frozen=True, slots=True)
class Call:
    """A function that the model calls, or a piece of one; pieces with one `index` belong together.

    `arguments` is JSON as the model wrote it: it may be none.
    """

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


class TextDelta(NamedTuple):
    """A piece of text, or of calls.

    Attributes:
        text: what is said.
        reasoning: the model's thinking, which is not part of the answer.
        choice: to which answer it belongs, where several were asked for.
        calls: pieces of the functions that are called.
        event: the same as OpenAI's event, in JSON on one line, if the backend wrote it just so;
            several of them stand as they are sent, with `data: ` before all but the first.

    """

    text: str
    reasoning: str = ""
    choice: int = 0
    calls: tuple[Call, ...] = ()
    event: str = ""

    @property
    def size(self) -> int:
        """About how many bytes it takes to send."""
        return len(self.event) or 200 + len(self.text) + len(self.reasoning)


def chat_id(job_id: str) -> str:
    """Return the `id` that OpenAI's events have in the answers of a job."""
    return f"chatcmpl-{job_id}"


@dataclass(frozen=True, slots=True)
class Logprobs:
    """How likely the tokens of an answer were, as OpenAI writes it."""

    content: tuple[JsonValue, ...]
    choice: int = 0


@dataclass(frozen=True, slots=True)
class ChoiceEnd:
    """The end of one answer, and why it ended."""

    reason: str
    choice: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found out about texts, as OpenAI writes it."""

    results: tuple[JsonValue, ...]


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
Chunk = TextDelta | Logprobs | ChoiceEnd | Verdict | Media | Vector | Rank | Heard | Finish


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the answers to a request."""

    text: str = ""
    reasoning: str = ""
    calls: tuple[Call, ...] = ()
    logprobs: tuple[JsonValue, ...] = ()
    reason: str = "stop"

    @property
    def size_bytes(self) -> int:
        """About how much room it takes."""
        calls = sum(100 + len(call.name) + len(call.arguments) for call in self.calls)
        return 2 * (len(self.text) + len(self.reasoning)) + calls + 300 * len(self.logprobs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """All pieces of one successful attempt.

    `text` and `reasoning` are those of the first answer. `others` are the answers after it, and
    `calls` and `logprobs` belong to the first.
    """

    text: str = ""
    reasoning: str = ""
    calls: tuple[Call, ...] = ()
    logprobs: tuple[JsonValue, ...] = ()
    others: tuple[Choice, ...] = ()
    verdict: Verdict | None = None
    images: tuple[Image, ...] = ()
    audio: tuple[Audio, ...] = ()
    videos: tuple[Video, ...] = ()
    vectors: tuple[Vector, ...] = ()
    ranking: tuple[Rank, ...] = ()
    heard: Heard | None = None
    finish: Finish = Finish()

    @property
    def choices(self) -> tuple[Choice, ...]:
        """All answers."""
        first = Choice(self.text, self.reasoning, self.calls, self.logprobs, self.finish.reason)
        return (first, *self.others)

    @property
    def media(self) -> Iterable[Media]:
        """Everything that is shown or played."""
        return chain(self.images, self.audio, self.videos)

    @property
    def size_bytes(self) -> int:
        """About how much room the result takes."""
        texts = sum(choice.size_bytes for choice in self.choices) + 16 * len(self.ranking)
        if self.verdict is not None:
            texts += 1000 * len(self.verdict.results)
        if self.heard is not None:
            texts += sum(100 + 2 * len(segment.text) for segment in self.heard.segments)
        numbers = sum(8 * len(vector.values) for vector in self.vectors)
        return texts + numbers + sum(size_of(medium.data) for medium in self.media)


def blobs_in(chunks: Iterable[Chunk]) -> Iterable[Blob]:
    """Yield the blobs that pieces refer to."""
    for chunk in chunks:
        if isinstance(chunk, Image | Audio | Video) and isinstance(chunk.data, Blob):
            yield chunk.data


def pieces_of(result: Result) -> Iterator[Chunk]:
    """Take a result apart again, into as few pieces as it can be put together from."""
    for number, choice in enumerate(result.choices):
        if choice.text or choice.reasoning or choice.calls:
            yield TextDelta(choice.text, choice.reasoning, number, choice.calls)
        if choice.logprobs:
            yield Logprobs(choice.logprobs, number)
        yield ChoiceEnd(choice.reason, number)
    yield from result.media
    yield from result.vectors
    yield from result.ranking
    if result.heard is not None:
        yield result.heard
    if result.verdict is not None:
        yield result.verdict
    yield result.finish


class _Answer:
    """The pieces of one answer."""

    def __init__(self) -> None:
        self.text: list[str] = []
        self.reasoning: list[str] = []
        self.calls: dict[int, Call] = {}
        self.logprobs: tuple[JsonValue, ...] = ()
        self.reason = "stop"

    def add(self, piece: TextDelta | Logprobs | ChoiceEnd) -> None:
        match piece:
            case TextDelta():
                self.text.append(piece.text)
                self.reasoning.append(piece.reasoning)
                for call in piece.calls:
                    self._call(call)
            case Logprobs():
                self.logprobs = piece.content
            case ChoiceEnd():
                self.reason = piece.reason
            case _:
                assert_never(piece)

    def _call(self, call: Call) -> None:
        so_far = self.calls.get(call.index, Call(call.index))
        self.calls[call.index] = Call(
            call.index,
            so_far.id or call.id,
            so_far.name + call.name,
            so_far.arguments + call.arguments,
        )

    def whole(self) -> Choice:
        calls = tuple(self.calls[index] for index in sorted(self.calls))
        text, reasoning = "".join(self.text), "".join(self.reasoning)
        return Choice(text, reasoning, calls, self.logprobs, self.reason)


def collect(chunks: Iterable[Chunk]) -> Result:
    """Put the pieces of one attempt together."""
    answers: defaultdict[int, _Answer] = defaultdict(_Answer)
    images: list[Image] = []
    audio: list[Audio] = []
    videos: list[Video] = []
    vectors: list[Vector] = []
    ranking: list[Rank] = []
    heard: Heard | None = None
    verdict: Verdict | None = None
    finish = Finish()
    for chunk in chunks:
        match chunk:
            case TextDelta() | Logprobs() | ChoiceEnd():
                answers[chunk.choice].add(chunk)
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
            case Verdict():
                verdict = chunk
            case Finish():
                finish = chunk
            case _:
                assert_never(chunk)
    first = answers.pop(0, _Answer()).whole()
    return Result(
        text=first.text,
        reasoning=first.reasoning,
        calls=first.calls,
        logprobs=first.logprobs,
        others=tuple(answers[number].whole() for number in sorted(answers)),
        verdict=verdict,
        images=tuple(images),
        audio=tuple(audio),
        videos=tuple(videos),
        vectors=tuple(vectors),
        ranking=tuple(ranking),
        heard=heard,
        finish=finish,
    )
