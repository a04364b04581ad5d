"""Ready-made weather: lists of fault rules, and what else a profile changes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from .faults import (
    ACTIONS,
    AnyAction,
    CorruptImage,
    Crash,
    Cut,
    DuplicateIds,
    EmptyImage,
    FaultRule,
    Hang,
    Match,
    NoDone,
    Oom,
    Refuse,
    Rejected,
    Reset,
    Status,
    When,
)

ProfileName = Literal["calm", "busy", "flaky-network", "tight-memory", "cold", "everything"]


@dataclass(frozen=True, slots=True)
class Profile:
    """The rules in force, and values of the configuration that differ from the given ones."""

    about: str
    rules: tuple[FaultRule, ...] = ()
    changes: Mapping[str, float] = field(default_factory=dict[str, float])


def _now_and_then(probability: float, name: str, action: AnyAction) -> FaultRule:
    """Return a rule for work of the kind that the action can spoil."""
    match action:
        case EmptyImage() | CorruptImage():
            meant = Match(modality="txt2img")
        case DuplicateIds():
            meant = Match(modality="txt2txt")
        case NoDone():
            meant = Match(stream=True, work=True)
        case _:
            meant = Match(work=True)
    return FaultRule(id=name, match=meant, when=When(probability=probability), do=action)


def _each_kind() -> Iterator[FaultRule]:
    given: dict[type[AnyAction], AnyAction] = {
        Hang: Hang(seconds=5.0),
        Crash: Crash(after_tokens=5),
        Refuse: Refuse(seconds=0.5),
    }
    for kind in ACTIONS:
        action = given.get(kind) or kind()
        yield _now_and_then(0.02, action.kind, action)
    yield _now_and_then(0.02, "oom_at_load", Oom(at="load"))


PROFILES: Mapping[ProfileName, Profile] = {
    "calm": Profile("Nothing goes wrong."),
    "busy": Profile(
        "10 % of the work is rejected with a 503, 1 % fails with a 500.",
        (
            _now_and_then(0.1, "rejected", Rejected()),
            _now_and_then(0.01, "failed", Status(status=500)),
        ),
    ),
    "flaky-network": Profile(
        "Of the work, 2 % is reset on arrival and 2 % later, 3 % is cut, 2 % hangs for 20 s.",
        (
            _now_and_then(0.02, "reset", Reset()),
            _now_and_then(0.02, "reset_later", Reset(after_tokens=5)),
            _now_and_then(0.03, "cut", Cut(after_tokens=3)),
            _now_and_then(0.02, "hang", Hang(where="before_headers", seconds=20.0)),
        ),
    ),
    "tight-memory": Profile("The memory budget is 5 GB.", changes={"memory_gb": 5.0}),
    "cold": Profile("Models leave the memory when idle for 2 s.", changes={"unload_idle_s": 2.0}),
    "everything": Profile(
        "Each kind of fault befalls 2 % of the work that it can befall.", tuple(_each_kind())
    ),
}

CHANGED = sorted({key for profile in PROFILES.values() for key in profile.changes})
"""What a profile may change."""
