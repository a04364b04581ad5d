"""Everything that a backend can do wrong, one row each, and what must be true afterwards."""

import gzip
import json
import re
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from ssl import SSLContext, create_default_context
from typing import Protocol, TypeVar

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

    def told(self, kind: type[E]) -> list[tuple[float, E]]:
        """Return the events of a kind since the fault struck, with their times."""
        since = [(at, event) for at, event in self.it.witness.told if at >= self.struck]
        return [(at, event) for at, event in since if isinstance(event, kind)]

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

    async def strike(self, it: Stage) -> None:
        """Begin."""
        ...

    async def cease(self, it: Stage) -> None:
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
    during: Callable[[Stage], "object"] = _nothing


# The faults


class Refuses:
    """Nobody listens at the port."""

    async def strike(self, it: Stage) -> None:
        it.front.close_port()

    async def cease(self, it: Stage) -> None:
        await it.front.open()


class Unresolved:
    """The host's name leads nowhere."""

    async def strike(self, it: Stage) -> None:
        virtual_time.here().names["localai.test"] = ""

    async def cease(self, it: Stage) -> None:
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
        job_id = heard.header("x-correlation-id") or ""
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


def it_was_only_waited(story: Story) -> None:
    """No attempt is used up on a dead host; it is known to be down within 5 s, and why."""
    _all_done(story)
    assert {job.attempts for job in story.jobs} == {1}
    [(down, why), (back, _)] = story.told(BackendChanged)
    assert down - story.struck <= 5.0
    assert why.up is False
    assert "cannot be reached" in why.detail
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
    assert _text(story.read) == "half"
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
        late = [job for job in story.jobs if job.result and "late" in job.result.text]
        assert not late, "an answer that came too late was taken for a result"

    return every_attempt_ended_in_time


def came_back(asked_s: float | None = None, *, until: float | None = None) -> Sentence:
    """Say that its wish was granted, within five minutes, and no attempt was used up."""

    def it_came_back_when_told(story: Story) -> None:
        _all_done(story)
        assert {job.attempts for job in story.jobs} == {1}
        told = story.told(Retried)
        assert told
        for at, event in told:
            assert isinstance(event.error, BackendBusy)
            assert not event.counted
            waits = (event.job.retry_at or 0.0) - at
            assert waits >= (asked_s or 0.0) - 0.001
            assert until is None or event.job.retry_at == pytest.approx(until)
            assert not story.idle or waits <= 300.0

    return it_came_back_when_told


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


def broken(kind: type[InferenceManagerError], kept: str = "half") -> Sentence:
    """Say that a broken stream was never a success; what came of it was kept and labelled."""

    def it_was_never_a_success(story: Story) -> None:
        assert story.probe.state is JobState.FAILED or not kept
        assert _text(story.read).startswith(kept)
        if story.probe.state is JobState.FAILED:
            assert type(story.probe.error) is kind
        for job in story.jobs:
            assert job.result is None or "half" not in job.result.text
        assert all(job.state is JobState.COMPLETED for job in story.jobs if job not in story.hit)
        assert all(job.attempts <= 3 for job in story.hit)

    return it_was_never_a_success


def its_jobs_were_parked(story: Story) -> None:
    _all_done(story)
    assert story.probe.ended_at is not None


async def unknown_models_are_refused(it: Stage) -> None:
    """Say so to whoever asks for the model now."""
    with pytest.raises(UnknownModel) as refused:
        await it.submit(Modality.TXT2TXT, SMALL[Modality.TXT2TXT])
    assert refused.value.code == "model_not_found"


def it_was_taken_up_gently(story: Story) -> None:
    """All is done; after the thaw a model has 1 attempt, then 2, 4, ... with each success."""
    _all_done(story)
    back = [at for at, event in story.told(BackendChanged) if event.up]
    assert back
    running: dict[str, set[str]] = {}
    won: dict[str, int] = {}
    for at, each in story.it.witness.told:
        if at < back[-1]:
            continue
        match each:
            case Started(job):
                model = str(job.model)
                running.setdefault(model, set()).add(job.id)
                assert len(running[model]) <= 2 ** won.get(model, 0)
            case Ended(job) | Retried(job):
                running.get(str(job.model), set()).discard(job.id)
                if job.state is JobState.COMPLETED:
                    won[str(job.model)] = won.get(str(job.model), 0) + 1
            case _:
                pass


def _attempts_that_failed(story: Story) -> list[tuple[float, InferenceManagerError]]:
    """Return how long each attempt since the fault struck took until it failed, and why."""
    began: dict[str, float] = {}
    failed: list[tuple[float, InferenceManagerError]] = []
    for at, each in story.told(Event):  # type: ignore[type-abstract]
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
