"""Everything that a backend can do wrong, one row each, and what must be true afterwards."""

import gzip
import json
import struct
import zlib
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from ssl import SSLContext, create_default_context
from typing import Any, Protocol, TypeVar

import pytest

from src.models.errors import (
    BackendBusy,
    BackendFailed,
    BackendProtocolError,
    BackendTimeout,
    EmptyResult,
    InferenceManagerError,
    StreamCut,
    UnknownModel,
)
from src.models.events import BackendChanged, Ended, Event, ModelPaused, Retried, Started
from src.models.jobs import Job, JobState
from src.models.modality import Modality
from src.models.results import Chunk, TextDelta

from . import virtual_time
from .certificates import Authority, server_side
from .front import Call, Script, Step
from .staging import CANARY, EPOCH, Stage
from .utils.localai_asking import base64_of, png
from .utils.raw_server import DONE, END, SSE_HEAD, Act, Heard, chunk, delta, event, reply

CONNECT_S, FIRST_BYTE_S, IDLE_S, ATTEMPT_S = 3.0, 20.0, 30.0, 60.0
LARGEST = 4 * 2**20
"""The patience of the client, and the largest answer that it takes, in bytes."""

HALF, LATE = "half of it", "too late"
"""What faults say; no simulator would."""

CHAT, DRAW = "/v1/chat/completions", "/v1/images/generations"
WORK = frozenset({CHAT, DRAW, "/v1/embeddings", "/v1/audio/speech"})

SMALL: Mapping[Modality, Mapping[str, object]] = {
    Modality.TXT2TXT: {"prompt": f"tell of {CANARY}", "max_tokens": 20, "model": "sim-chat"},
    Modality.TXT2IMG: {
        "prompt": f"draw {CANARY}",
        "size": "64x64",
        "steps": 5,
        "model": "sim-image",
    },
    Modality.IMG2IMG: {
        "image": base64_of(png(64)),
        "prompt": f"more {CANARY}",
        "steps": 5,
        "model": "sim-image",
    },
    Modality.TXT2VEC: {"input": [CANARY, "another"], "model": "sim-embed"},
    Modality.TXT2AUDIO: {"input": f"say {CANARY}", "model": "sim-voice"},
}

E = TypeVar("E", bound=Event)


@dataclass
class Story:
    """What came of a fault. Times are Unix seconds."""

    it: Stage
    idle: bool
    struck: float
    ceased: float
    probe: Job
    """The job that was submitted when the fault had struck."""
    read: Sequence[Chunk]
    """What its caller read of it meanwhile, where somebody did."""
    jobs: Sequence[Job]
    """All jobs, from before the fault and from within it."""

    @property
    def since(self) -> list[tuple[float, Event]]:
        """The events since the fault struck, with their times."""
        return [(at, event) for at, event in self.it.witness.told if at >= self.struck]

    def told(self, kind: type[E]) -> list[tuple[float, E]]:
        """Return those of one kind."""
        return [(at, event) for at, event in self.since if isinstance(event, kind)]

    def calls(self, job: Job) -> list[Call]:
        """Return the calls for a job."""
        return [call for call in self.it.front.calls if call.job_id == job.id]

    @property
    def hit(self) -> list[Job]:
        """The jobs that met the fault; there is always one."""
        met = {call.job_id for call in self.it.front.calls if call.scripted}
        hit = [job for job in self.jobs if job.id in met]
        assert hit
        return hit


class Fault(Protocol):
    """Something that goes wrong for a while."""

    async def strike(self, it: Stage, /) -> None:
        """Begin."""
        ...

    async def cease(self, it: Stage, /) -> None:
        """Be over."""
        ...


Sentence = Callable[[Story], None]


async def _nothing(_: Stage) -> None:
    """Look at nothing."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A fault, how long it lasts, and what must be true after it.

    Attributes:
        modality: of the job that is submitted while it lasts.
        read: whether a caller reads that job's pieces as they come.
        during: looks at the stage before the fault ceases.

    """

    fault: Fault
    after: Sentence
    seconds: float = 10.0
    modality: Modality = Modality.TXT2TXT
    read: bool = False
    host: str = "127.0.0.1"
    during: Callable[[Stage], Awaitable[None]] = _nothing


# The faults


class Refuses:
    """Nobody listens at the port."""

    async def strike(self, it: Stage) -> None:
        it.front.close_port()

    async def cease(self, it: Stage) -> None:
        await it.front.open()


class Unresolved:
    """The host's name leads nowhere."""

    async def strike(self, _: Stage) -> None:
        virtual_time.here().names["localai.test"] = ""

    async def cease(self, _: Stage) -> None:
        virtual_time.here().names["localai.test"] = "127.0.0.1"


class Deaf:
    """Whoever wants to connect hears nothing."""

    async def strike(self, it: Stage) -> None:
        it.front.be_deaf()

    async def cease(self, it: Stage) -> None:
        await it.front.open()


class Frozen:
    """The server stands still, its kernel accepts."""

    async def strike(self, it: Stage) -> None:
        it.front.freeze()

    async def cease(self, it: Stage) -> None:
        it.front.thaw()


@dataclass
class Answers:
    """Requests are answered by a script: all of some paths, or the first of each job."""

    script: Script
    to: frozenset[str] = WORK
    model: str | None = None
    per_job: int | None = None
    _met: dict[str, int] = field(default_factory=dict[str, int])

    async def strike(self, it: Stage) -> None:
        self._met.clear()
        it.front.script = self._choose

    async def cease(self, it: Stage) -> None:
        it.front.script = lambda _: None

    def _choose(self, heard: Heard) -> Script | None:
        if heard.path not in self.to:
            return None
        if self.model is not None and heard.json["model"] != self.model:
            return None
        job_id = (heard.header("x-correlation-id") or "").removeprefix("chatcmpl-")
        self._met[job_id] = self._met.get(job_id, 0) + 1
        if self.per_job is not None and self._met[job_id] > self.per_job:
            return None
        return self.script


@dataclass
class Certificate:
    """The server shows a certificate that must not be trusted."""

    issue: Callable[[Authority, Path], Path]
    _good: SSLContext | None = None
    _bad: SSLContext | None = None

    def set_up(self, folder: Path) -> tuple[SSLContext, SSLContext]:
        """Return what a good server shows, and whom its client trusts."""
        authority = Authority(folder)
        self._good = server_side(authority.issue("good"))
        self._bad = server_side(self.issue(authority, folder))
        return self._good, create_default_context(cafile=str(authority.file))

    async def strike(self, it: Stage) -> None:
        await self._show(it, self._bad)

    async def cease(self, it: Stage) -> None:
        await self._show(it, self._good)

    async def _show(self, it: Stage, certificate: SSLContext | None) -> None:
        it.front.close_port()
        it.front.tls = certificate
        await it.front.open()


class Uninstalled:
    """A model is not there any more, whatever the last list said."""

    async def strike(self, it: Stage) -> None:
        simulation = it.sites[0].simulation
        models = {name: model.model_dump() for name, model in simulation.config.models.items()}
        self._before = simulation.config
        simulation.reconfigure(simulation.config.patched({"models": {**models, "sim-chat": None}}))

    async def cease(self, it: Stage) -> None:
        it.sites[0].simulation.reconfigure(self._before)


class Unlisted:
    """A model is missing in the list, though it would still answer."""

    async def strike(self, it: Stage) -> None:
        it.front.script = self._choose

    async def cease(self, it: Stage) -> None:
        it.front.script = lambda _: None

    def _choose(self, heard: Heard) -> Script | None:
        if heard.path != "/v1/models/capabilities":
            return None
        able = {"sim-image": "image", "sim-embed": "embeddings", "sim-voice": "tts"}
        data = [{"id": name, "capabilities": [what]} for name, what in able.items()]
        return [reply(200, {"object": "list", "data": data})]


# What must be true afterwards


def _all_done(story: Story) -> None:
    assert {job.state for job in story.jobs} == {JobState.COMPLETED}


def it_was_taken_up_gently(story: Story) -> None:
    """All is done; after its return a model has 1 attempt, then 2, 4, ... with each success."""
    _all_done(story)
    back = [at for at, event in story.told(BackendChanged) if event.up]
    assert back
    running: defaultdict[str | None, set[str]] = defaultdict(set)
    won = Counter[str | None]()
    for at, each in story.since:
        match each:
            case Started(job) if at >= back[-1]:
                running[job.model].add(job.id)
                assert len(running[job.model]) <= 2 ** won[job.model]
            case Ended(job) | Retried(job):
                running[job.model].discard(job.id)
                won[job.model] += at >= back[-1] and job.state is JobState.COMPLETED
            case _:
                pass


def it_was_only_waited(story: Story) -> None:
    """No attempt is used up on a dead host; it is known to be down within 5 s, and why."""
    it_was_taken_up_gently(story)
    assert {job.attempts for job in story.jobs} == {1}
    [(down, why), (back, _)] = story.told(BackendChanged)
    assert down - story.struck <= 5.0
    assert why.up is False
    assert "cannot be reached" in why.detail or "was silent" in why.detail
    assert back >= story.ceased


def the_resolver_was_not_hammered(story: Story) -> None:
    it_was_only_waited(story)
    asked = [at for at, name in virtual_time.here().asked if name == "localai.test"]
    during = [at for at in asked if story.struck <= EPOCH + at < story.ceased]
    assert 0 < len(during) <= story.ceased - story.struck


def connecting_took_three_seconds(story: Story) -> None:
    it_was_only_waited(story)
    took = [seconds for seconds, _ in _attempts_that_failed(story)]
    assert took
    assert max(took) <= CONNECT_S + 0.1


def nothing_was_said_to_a_stranger(story: Story) -> None:
    it_was_only_waited(story)
    met = [c for c in story.it.front.calls if story.struck <= EPOCH + c.at < story.ceased]
    assert not met


def it_was_tried_again(story: Story) -> None:
    _all_done(story)
    assert {job.attempts for job in story.hit} == {2}


def what_was_read_was_not_repeated(story: Story) -> None:
    """A cut is final for those who saw a piece; the others' jobs are tried again."""
    assert story.probe.state is JobState.FAILED
    assert isinstance(story.probe.error, StreamCut)
    assert story.probe.attempts == 1
    assert _text(story.read) == HALF
    others = [job for job in story.jobs if job.id != story.probe.id]
    assert all(job.state is JobState.COMPLETED for job in others)
    assert {job.attempts for job in story.hit if job is not story.probe} <= {2}


def within(limit: float) -> Sentence:
    """Say that a silent attempt ended in time and its slot was used again."""

    def every_attempt_ended_in_time(story: Story) -> None:
        _all_done(story)
        failed = _attempts_that_failed(story)
        assert failed
        assert all(isinstance(error, BackendTimeout) for _, error in failed)
        assert max(seconds for seconds, _ in failed) <= limit + 0.1
        late = [job for job in story.jobs if job.result and LATE in job.result.text]
        assert not late, "an answer that came too late was taken for a result"

    return every_attempt_ended_in_time


def came_back(asked_s: float | None = None, *, until: float | None = None) -> Sentence:
    """Say that its wish was granted, within five minutes, and no attempt was used up."""

    def it_came_back_when_told(story: Story) -> None:
        _all_done(story)
        assert {job.attempts for job in story.jobs} == {1}
        told = story.told(Retried)
        assert told
        for at, retried in told:
            assert isinstance(retried.error, BackendBusy)
            assert not retried.counted
            waits = (retried.job.retry_at or 0.0) - at
            assert waits >= (asked_s or 0.0) - 0.001
            assert until is None or retried.job.retry_at == pytest.approx(until)
            assert not story.idle or waits <= 300.0

    return it_came_back_when_told


def what_was_read_is_the_result(story: Story) -> None:
    """A reader sees one attempt only: a broken one to its end, or none of it."""
    if story.probe.result is None:
        assert isinstance(story.probe.error, BackendFailed)
        assert _text(story.read) == HALF
    else:
        assert _text(story.read) == story.probe.result.text


def an_internal_error_is_worth_one_more(story: Story) -> None:
    for job in story.hit:
        assert job.state is JobState.COMPLETED or isinstance(job.error, BackendFailed)
        assert job.attempts <= 2
    assert all(job.state is JobState.COMPLETED for job in story.jobs if job not in story.hit)


def only_that_model_was_concerned(story: Story) -> None:
    an_internal_error_is_worth_one_more(story)
    others = [job for job in story.jobs if job.model != "sim-chat"]
    assert all(job.state is JobState.COMPLETED and job.attempts == 1 for job in others)
    assert {event.model for _, event in story.told(ModelPaused)} <= {"sim-chat"}


def it_failed_with_its_name_and_no_loop(story: Story) -> None:
    """Each job that met it has a typed error; only an empty answer is asked for once more."""
    for job in story.hit:
        if job.state is JobState.COMPLETED:
            assert job.attempts == 2
            assert any(
                isinstance(event.error, EmptyResult)
                for _, event in story.told(Retried)
                if event.job.id == job.id
            )
        else:
            assert isinstance(job.error, BackendProtocolError)
            assert job.attempts == (2 if isinstance(job.error, EmptyResult) else 1)
        assert len(story.calls(job)) == job.attempts
    assert all(job.state is JobState.COMPLETED for job in story.jobs if job not in story.hit)


def little_of_it_was_read(story: Story) -> None:
    it_failed_with_its_name_and_no_loop(story)
    assert max(call.sent for call in story.it.front.calls if call.scripted) <= LARGEST + 8 * 2**20


def nobody_went_elsewhere(story: Story) -> None:
    it_failed_with_its_name_and_no_loop(story)
    assert "elsewhere.test" not in {name for _, name in virtual_time.here().asked}


def says(text: str) -> Sentence:
    """Say that a strange but whole stream was read as it was meant."""

    def it_was_read_as_it_was_meant(story: Story) -> None:
        _all_done(story)
        assert {job.attempts for job in story.jobs} == {1}
        assert {job.result.text for job in story.hit if job.result} == {text}
        assert _text(story.read) == text

    return it_was_read_as_it_was_meant


def broken(*kinds: type[InferenceManagerError], kept: str = HALF) -> Sentence:
    """Say that a broken stream was never a success; what came of it was kept and labelled."""

    def it_was_never_a_success(story: Story) -> None:
        if story.probe.state is JobState.FAILED:
            assert type(story.probe.error) in kinds
            assert _text(story.read).startswith(kept)
        else:  # it broke before its reader had taken a piece, and was repeated
            assert HALF not in _text(story.read)
            assert story.probe.state is JobState.COMPLETED
        for job in story.jobs:
            assert job.result is None or HALF not in job.result.text
        assert all(job.state is JobState.COMPLETED for job in story.jobs if job not in story.hit)
        assert all(job.attempts <= 3 for job in story.hit)

    return it_was_never_a_success


def its_jobs_were_parked(story: Story) -> None:
    """They wait until the model is there again; none fails, and the others' go on."""
    _all_done(story)
    others = [job for job in story.jobs if job.model != "sim-chat"]
    assert all((job.ended_at or 0.0) < story.ceased for job in others)


def the_latest_of_them_too(story: Story) -> None:
    its_jobs_were_parked(story)
    assert (story.probe.ended_at or 0.0) > story.ceased


async def unknown_models_are_refused(it: Stage) -> None:
    """Say so to whoever asks for the model now."""
    with pytest.raises(UnknownModel) as refused:
        await it.submit(Modality.TXT2TXT, SMALL[Modality.TXT2TXT])
    assert refused.value.code == "model_not_found"


def _attempts_that_failed(story: Story) -> list[tuple[float, InferenceManagerError]]:
    """Return how long each attempt since the fault struck took until it failed, and why."""
    began: dict[str, float] = {}
    failed: list[tuple[float, InferenceManagerError]] = []
    for at, each in story.since:
        match each:
            case Started(job):
                began[job.id] = at
            case Retried(job, error, _):
                if job.id in began:
                    failed.append((at - began[job.id], error))
            case _:
                pass
    return failed


def _text(chunks: Sequence[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks if isinstance(chunk, TextDelta))


# The scripts

STREAM = SSE_HEAD.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")


class Endless:
    """A beginning, and then the same again and again, at once or every `pause` seconds."""

    def __init__(self, head: bytes, piece: bytes, *, pause: float | None = None) -> None:
        self._head = head
        self._again: tuple[Step, ...] = (piece,) if pause is None else (pause, piece)

    def __iter__(self) -> Iterator[Step]:
        yield self._head
        while True:
            yield from self._again


def _stream(*pieces: bytes | str) -> Script:
    """Answer a chat with these bytes, as they are."""
    return [STREAM, *(p if isinstance(p, bytes) else chunk(p) for p in pieces), END]


def _cut(*pieces: bytes | str, end: Script = ()) -> Script:
    """Answer a chat with a piece of text and these bytes, and then break off."""
    said = [p if isinstance(p, bytes) else chunk(p) for p in pieces]
    return [STREAM, delta(HALF), *said, 0.1, *end]


def _drawn(**item: object) -> Script:
    return [reply(200, {"created": 1, "data": [item]})]


def _head_of_png(side: int) -> bytes:
    """Write the beginning of a picture that says how large it is."""
    size = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    check = struct.pack(">I", zlib.crc32(b"IHDR" + size))
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + size + check


def _wrong(body: bytes | str | object = b"", **headers: Any) -> Row:
    """Answer everything with 200 and a body that is none."""
    return Row(
        fault=Answers([reply(200, body, **headers)]),
        after=it_failed_with_its_name_and_no_loop,
        seconds=5.0,
    )


def _picture(**item: object) -> Row:
    return Row(
        fault=Answers(_drawn(**item), to=frozenset({DRAW})),
        after=it_failed_with_its_name_and_no_loop,
        modality=Modality.TXT2IMG,
        seconds=5.0,
    )


def _sse(script: Script, after: Sentence) -> Row:
    return Row(fault=Answers(script, to=frozenset({CHAT})), after=after, seconds=5.0, read=True)


def _later(status: int, header: str | None, after: Sentence) -> Row:
    told: Any = {"retry_after": header} if header is not None else {}
    body = {"error": {"code": status, "message": f"later, {CANARY}", "type": ""}}
    return Row(fault=Answers([reply(status, body, **told)]), after=after, seconds=5.0)


_LATE: Script = [FIRST_BYTE_S + 5.0, STREAM, delta(LATE, "stop"), DONE, END]
_BOOM = [reply(500, {"error": {"code": 500, "message": f"boom: {CANARY}", "type": ""}})]
_OTHER_DATE = EPOCH + 100.0

WISHES: dict[str, tuple[str | None, Sentence]] = {
    "without a word when": (None, came_back()),
    "at once": ("0", came_back()),
    "in a second": ("1", came_back(1.0)),
    "in a day": ("99999", came_back(300.0)),
    "yesterday": ("-5", came_back()),
    "by a date": (formatdate(_OTHER_DATE, usegmt=True), came_back(until=_OTHER_DATE)),
    "in junk": ("soon, soon", came_back()),
}


def _said(text: str, reason: str | None = "stop") -> str:
    choice = {"index": 0, "finish_reason": reason, "delta": {"content": text}}
    return "data: " + json.dumps({"choices": [choice]}, ensure_ascii=False)


_FOX = _said("a \U0001f98a").encode() + b"\n\n"
_AT = _FOX.index("\U0001f98a".encode()) + 2

ROWS: dict[str, Row] = {
    "nobody listens": Row(fault=Refuses(), after=it_was_only_waited, seconds=30.0),
    "the name does not resolve": Row(
        fault=Unresolved(),
        after=the_resolver_was_not_hammered,
        host="localai.test",
        seconds=30.0,
    ),
    "nobody picks up": Row(fault=Deaf(), after=connecting_took_three_seconds, seconds=30.0),
    "reset before a byte": Row(
        fault=Answers([Act.RESET], per_job=1), after=it_was_tried_again, seconds=5.0
    ),
    "reset in the middle": Row(
        fault=Answers(_cut(end=[Act.RESET]), to=frozenset({CHAT}), per_job=1),
        after=what_was_read_was_not_repeated,
        seconds=5.0,
        read=True,
    ),
    "silence": Row(fault=Answers([Act.HANG], per_job=1), after=within(FIRST_BYTE_S), seconds=25.0),
    "an answer that comes too late": Row(
        fault=Answers(_LATE, per_job=1), after=within(FIRST_BYTE_S), seconds=25.0
    ),
    "a text drop by drop": Row(
        fault=Answers(Endless(STREAM, chunk(":"), pause=10.0), to=frozenset({CHAT}), per_job=1),
        after=within(ATTEMPT_S),
        seconds=25.0,
    ),
    "a picture drop by drop": Row(
        fault=Answers(
            Endless(reply(200, b" " * 9000)[:-9000], b" ", pause=10.0),
            to=frozenset({DRAW}),
            per_job=1,
        ),
        after=within(ATTEMPT_S),
        modality=Modality.TXT2IMG,
        seconds=25.0,
    ),
    **{
        f"{status} and to come back {name}": _later(status, *wish)
        for status in (429, 503)
        for name, wish in WISHES.items()
    },
    "internal errors": Row(
        fault=Answers(_BOOM), after=an_internal_error_is_worth_one_more, seconds=10.0
    ),
    "internal errors of one model": Row(
        fault=Answers(_BOOM, model="sim-chat"), after=only_that_model_was_concerned, seconds=10.0
    ),
    "a web page": _wrong(f"<html>{CANARY}</html>", content_type="text/html"),
    "nothing": _wrong(),
    "half of JSON": _wrong('{"created": 1, "data": [{"b64_'),
    "JSON of another shape": _wrong({"data": {}, "choices": {}, "results": {}}),
    "no numbers": _wrong('{"data": NaN, "choices": NaN}'),
    "keys twice": _wrong('{"data": [], "data": [], "choices": [], "choices": []}'),
    "a mark of byte order": _wrong(b"\xef\xbb\xbf{"),
    "a gzip bomb": _wrong(gzip.compress(bytes(10_000_000)), content_encoding="gzip"),
    "another content type": _wrong("data: [DONE]\n\n", content_type="text/plain"),
    "a gigabyte": Row(
        fault=Answers(Endless(reply(200, b"", content_length="1073741824"), b" " * 2**20)),
        after=little_of_it_was_read,
        seconds=5.0,
    ),
    "an address elsewhere, for good": Row(
        fault=Answers([reply(301, location=f"http://elsewhere.test{CHAT}")]),
        after=nobody_went_elsewhere,
        seconds=5.0,
    ),
    "an address elsewhere, for now": Row(
        fault=Answers([reply(302, location=f"http://elsewhere.test{CHAT}")]),
        after=nobody_went_elsewhere,
        seconds=5.0,
    ),
    "an event cut in the middle": _sse(_cut('data: {"choices": [{"del'), broken(StreamCut)),
    "a stream without its DONE": _sse(_cut(END), broken(StreamCut)),
    "data without a line end": _sse(_stream(_said("one") + "\n\n", "data: [DONE]"), says("one")),
    "line ends of every kind": _sse(
        _stream(_said("one", None) + "\r\n\r\n" + _said(" two") + "\r\r", "data: [DONE]\n\n"),
        says("one two"),
    ),
    "a line of ten megabytes": _sse(
        [STREAM, delta(HALF), 0.1, *[chunk(b"x" * 2**20)] * 10], broken(BackendProtocolError)
    ),
    "nothing but comments": _sse(
        _stream(": one\n\n", ": two\n\n"), broken(StreamCut, EmptyResult, kept="")
    ),
    "an error inside a stream": _sse(
        _cut(event({"error": {"message": f"oh {CANARY}", "type": "server_error"}}), DONE, END),
        broken(BackendFailed),
    ),
    "a piece and an error at once": Row(
        fault=Answers(
            [STREAM, delta(HALF) + event({"error": {"message": "oh"}}), DONE, END],
            to=frozenset({CHAT}),
            per_job=1,
        ),
        after=what_was_read_is_the_result,
        seconds=5.0,
        read=True,
    ),
    "DONE twice": _sse(_stream(delta("one", "stop"), DONE, DONE), says("one")),
    "characters split in two": _sse(
        _stream(chunk(_FOX[:_AT]), chunk(_FOX[_AT:]), DONE),
        says("a \U0001f98a"),
    ),
    "an event that is no event": _sse(
        _cut('data: {"choices": [{"delta": {"content": NaN}}]}\n\n'),
        broken(BackendProtocolError),
    ),
    "a picture that is none": _picture(b64_json=base64_of(b"no picture")),
    "a picture of no bytes": _picture(b64_json=""),
    "a picture of one pixel": _picture(b64_json=base64_of(png(1))),
    "a picture of 20,000 pixels a side": _picture(b64_json=base64_of(_head_of_png(20_000))),
    "a picture that was cut": _picture(b64_json=base64_of(png(64)[:60])),
    "the address of a picture elsewhere": Row(
        fault=Answers(
            _drawn(url="http://elsewhere.test/generated-images/x.png"), to=frozenset({DRAW})
        ),
        after=nobody_went_elsewhere,
        modality=Modality.TXT2IMG,
        seconds=5.0,
    ),
    "the address of something else elsewhere": Row(
        fault=Answers(_drawn(url="http://elsewhere.test/secrets"), to=frozenset({DRAW})),
        after=nobody_went_elsewhere,
        modality=Modality.TXT2IMG,
        seconds=5.0,
    ),
    "a certificate that has expired": Row(
        fault=Certificate(lambda authority, _: authority.issue("old", days=-1)),
        after=nothing_was_said_to_a_stranger,
        seconds=30.0,
    ),
    "a certificate of another host": Row(
        fault=Certificate(lambda authority, _: authority.issue("other", host="127.0.0.2")),
        after=nothing_was_said_to_a_stranger,
        seconds=30.0,
    ),
    "a certificate that nobody signed": Row(
        fault=Certificate(lambda _, folder: Authority(folder, "self-signed").file),
        after=nothing_was_said_to_a_stranger,
        seconds=30.0,
    ),
    "a model that is gone": Row(
        fault=Uninstalled(),
        after=the_latest_of_them_too,
        during=unknown_models_are_refused,
        seconds=45.0,
    ),
    "a model that is not listed any more": Row(
        fault=Unlisted(),
        after=its_jobs_were_parked,
        during=unknown_models_are_refused,
        seconds=45.0,
    ),
    "a server that stands still for ten minutes": Row(
        fault=Frozen(), after=it_was_taken_up_gently, seconds=600.0
    ),
}
