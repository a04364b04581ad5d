"""Faults on command: rules that match requests, count, and say what shall go wrong.

Rules are tried in order and the first that acts decides. `skip` first matches pass, then `times`
matches act (for ever if not given), each with the given probability, only every `every`-th.
Nothing here does anything: the rest of the simulator looks at the action it is given.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from .seeds import rng_for


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Status(_Strict):
    """An HTTP error in LocalAI's envelope."""

    kind: Literal["status"] = "status"
    status: int = Field(default=500, ge=400, le=599)
    retry_after: float | None = None
    message: str = "simulated failure"


class Rejected(_Strict):
    """Turned away because the model's limit is reached: 503 `admission_rejected`."""

    kind: Literal["rejected"] = "rejected"
    retry_after: float = 1.0


class LoadFailure(_Strict):
    """The next loads of the model fail; acts only on requests that need the model loaded."""

    kind: Literal["load_failure"] = "load_failure"
    times: int = Field(default=1, ge=1)


class Loading(_Strict):
    """The model goes out of memory, and the next load takes so long; acts only while it is idle."""

    kind: Literal["loading"] = "loading"
    seconds: float = Field(default=10.0, ge=0)


class Starting(_Strict):
    """`/readyz` says for so many seconds that the server is starting; everything else goes on."""

    kind: Literal["starting"] = "starting"
    seconds: float = Field(default=10.0, ge=0)


class Oom(_Strict):
    """Out of memory: the load fails, or the work does and the model's process is gone."""

    kind: Literal["oom"] = "oom"
    at: Literal["load", "work"] = "work"
    """`load` acts only on requests that need the model loaded."""


class Crash(_Strict):
    """The model's process dies after so many tokens or steps, and everybody there with it."""

    kind: Literal["crash"] = "crash"
    after_tokens: int | None = Field(default=None, ge=0)
    after_steps: int | None = Field(default=None, ge=0)
    """Whatever is given counts what the model makes; neither: as soon as it works."""

    @model_validator(mode="after")
    def _once(self) -> Self:
        if self.after_tokens is not None and self.after_steps is not None:
            raise ValueError("after_tokens or after_steps, not both")
        return self

    @property
    def after(self) -> int:
        """How much is made before."""
        return self.after_tokens or self.after_steps or 0


class Reset(_Strict):
    """A TCP reset, before any byte or after so many tokens."""

    kind: Literal["reset"] = "reset"
    after_tokens: int | None = Field(default=None, ge=0)


class Cut(_Strict):
    """The connection closes in the middle: no last chunk, no `[DONE]`, half a body."""

    kind: Literal["cut"] = "cut"
    after_tokens: int = Field(default=1, ge=0)


class Hang(_Strict):
    """Silence on an open connection: on arrival, or (holding a slot) later."""

    kind: Literal["hang"] = "hang"
    where: Literal["arrival", "before_headers", "after_tokens"] = "arrival"
    after_tokens: int | None = Field(default=None, ge=0)
    """If given, `where` need not be."""
    seconds: float | None = Field(default=None, ge=0)
    """None: for ever."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if self.after_tokens is not None and self.where == "before_headers":
            raise ValueError("before_headers comes before any token")
        if self.after_tokens is None and self.where == "after_tokens":
            raise ValueError("after_tokens is missing")
        return self

    @property
    def after(self) -> int | None:
        """How many tokens are made before; None for arrival."""
        return 0 if self.where == "before_headers" else self.after_tokens


class StreamError(_Strict):
    """An error event inside a stream that began with 200; a plain 500 where nothing streams."""

    kind: Literal["stream_error"] = "stream_error"
    after_tokens: int = Field(default=0, ge=0)
    message: str = "rpc error: code = Unavailable desc = error reading from server: EOF"


class NoDone(_Strict):
    """A stream that is complete except for its `[DONE]`."""

    kind: Literal["no_done"] = "no_done"


class Drip(_Strict):
    """The answer in pieces of so many bytes, which split characters and lines."""

    kind: Literal["drip"] = "drip"
    bytes: int = Field(default=1, ge=1)
    delay: float = Field(default=0.01, ge=0)
    """Seconds between two pieces."""


class Slow(_Strict):
    """Everything takes so many times longer for this request, a load on its behalf included."""

    kind: Literal["slow"] = "slow"
    factor: float = Field(default=10.0, gt=0)


class Garbage(_Strict):
    """A 200 whose body does not parse."""

    kind: Literal["garbage"] = "garbage"
    what: Literal["truncated_json", "html", "wrong_type", "not_utf8", "empty_body", "bad_gzip"] = (
        "truncated_json"
    )


class EmptyImage(_Strict):
    """A 200 without picture: no `b64_json`, or the address of an empty file."""

    kind: Literal["empty_image"] = "empty_image"


class CorruptImage(_Strict):
    """Sound base64 of a PNG that is cut short."""

    kind: Literal["corrupt_image"] = "corrupt_image"


class DuplicateIds(_Strict):
    """Tool calls that share one id."""

    kind: Literal["duplicate_ids"] = "duplicate_ids"


class Refuse(_Strict):
    """Every connection is reset and new ones are refused, for so many real seconds.

    Real ones, because nobody could move the simulated clock meanwhile.
    """

    kind: Literal["refuse"] = "refuse"
    seconds: float = Field(default=1.0, gt=0)


AnyAction = (
    Status
    | Rejected
    | LoadFailure
    | Loading
    | Starting
    | Oom
    | Crash
    | Reset
    | Cut
    | NoDone
    | StreamError
    | Hang
    | Drip
    | Slow
    | Garbage
    | EmptyImage
    | CorruptImage
    | DuplicateIds
    | Refuse
)
Action = Annotated[AnyAction, Field(discriminator="kind")]
ACTIONS: tuple[type[AnyAction], ...] = get_args(AnyAction)


class Match(_Strict):
    """Which requests: every given condition must hold."""

    path: str | None = None
    model: str | None = None
    modality: str | None = None
    work: bool | None = None
    """Whether a model is to answer; lists, health and loads by name are no work."""
    stream: bool | None = None
    prompt: str | None = None
    """A regular expression, searched for in the prompt."""
    header: Mapping[str, str] = {}

    @field_validator("prompt")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        try:
            re.compile(pattern or "")
        except re.error as error:
            raise ValueError(f"no regular expression: {error}") from error
        return pattern

    def holds(self, facts: "Facts") -> bool:
        """Whether a request is meant."""
        wanted = (
            (self.path, facts.path),
            (self.model, facts.model),
            (self.modality, facts.modality),
            (self.work, facts.modality is not None),
            (self.stream, facts.stream),
        )
        headers = all(facts.headers.get(key.lower()) == value for key, value in self.header.items())
        prompt = self.prompt is None or re.search(self.prompt, facts.prompt) is not None
        return headers and prompt and all(wish in (None, fact) for wish, fact in wanted)


class When(_Strict):
    """Which of the matches act."""

    skip: int = Field(default=0, ge=0)
    times: int | None = Field(default=None, ge=1)
    probability: float = Field(default=1.0, ge=0, le=1)
    every: int | None = Field(default=None, ge=1)


class FaultRule(_Strict):
    """One rule: which requests, which of them, and what goes wrong."""

    id: str = ""
    match: Match = Match()
    when: When = When()
    do: Action


@dataclass(frozen=True, slots=True)
class Facts:
    """What a rule may look at."""

    path: str
    headers: Mapping[str, str]
    model: str | None = None
    modality: str | None = None
    stream: bool = False
    prompt: str = ""
    needs_load: bool = False
    idle: bool = False


@dataclass(frozen=True, slots=True)
class Fault:
    """An action that a rule has decided on."""

    rule: str
    action: Action


@dataclass(slots=True)
class Counted:
    """A rule and how often it matched and acted."""

    rule: FaultRule
    matched: int = 0
    acted: int = 0


@dataclass(slots=True)
class FaultBook:
    """The rules in force."""

    rules: list[Counted] = field(default_factory=list[Counted])
    _named: int = 0

    def add(self, rule: FaultRule) -> FaultRule:
        """Add a rule at the end; one with the same id is replaced in its place."""
        if not rule.id:
            self._named += 1
            rule = rule.model_copy(update={"id": f"a{self._named}"})
        for place, counted in enumerate(self.rules):
            if counted.rule.id == rule.id:
                self.rules[place] = Counted(rule)
                return rule
        self.rules.append(Counted(rule))
        return rule

    def replace(self, rules: Sequence[FaultRule]) -> None:
        """Have these rules and no others."""
        self.rules.clear()
        for rule in rules:
            self.add(rule)

    def remove(self, rule_id: str) -> bool:
        """Remove a rule; say whether it was there."""
        kept = [counted for counted in self.rules if counted.rule.id != rule_id]
        found = len(kept) < len(self.rules)
        self.rules = kept
        return found

    def decide(self, facts: Facts, *, seed: int) -> Fault | None:
        """Say what shall go wrong with a request, and count."""
        for counted in self.rules:
            rule = counted.rule
            if _possible(rule.do, facts) and rule.match.holds(facts):
                counted.matched += 1
                if _acts(counted, seed):
                    counted.acted += 1
                    return Fault(rule.id, rule.do)
        return None


def _possible(action: AnyAction, facts: Facts) -> bool:
    match action:
        case LoadFailure() | Oom(at="load"):
            return facts.needs_load
        case Loading():
            return facts.idle
        case Oom() | Crash():
            return facts.modality is not None
        case _:
            return True


def _acts(counted: Counted, seed: int) -> bool:
    when = counted.rule.when
    nth = counted.matched - when.skip
    if nth < 1 or (when.times is not None and counted.acted >= when.times):
        return False
    if when.every is not None and nth % when.every:
        return False
    return rng_for(seed, counted.rule.id, counted.matched).random() < when.probability
