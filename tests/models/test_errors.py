import re

import pytest

from src.models import errors
from src.models.errors import (
    BackendError,
    BackendUnavailable,
    InferenceManagerError,
    InvalidInput,
    ModelLoadFailed,
    QueueFull,
    Refused,
    UnknownJob,
    UnknownModel,
)


def family(root: type[InferenceManagerError]) -> list[type[InferenceManagerError]]:
    return [root, *(one for child in root.__subclasses__() for one in family(child))]


EVERYONE = family(InferenceManagerError)


def test_the_drawn_tree_is_the_tree() -> None:
    tree = (errors.__doc__ or "").split("::")[1]
    drawn = re.findall(r"^ {4}([│ ├└─]*)(\w+)(?= |$)", tree, re.MULTILINE)
    names = [name for _, name in drawn if name[0].isupper() and hasattr(errors, name)]

    assert names == [one.__name__ for one in EVERYONE]
    for one in EVERYONE[1:]:
        depth = next(len(lines) // 4 for lines, name in drawn if name == one.__name__)
        assert depth == len(one.__mro__) - len(InferenceManagerError.__mro__)


@pytest.mark.parametrize("error", EVERYONE)
def test_every_error_has_a_code_of_its_own(error: type[InferenceManagerError]) -> None:
    sharing = [e for e in EVERYONE if e.code == error.code and e is not Refused]

    assert re.fullmatch(r"[a-z_]+", error.code)
    assert error is Refused or sharing == [error]


def test_an_error_carries_its_facts() -> None:
    full = QueueFull("3 jobs are waiting", retry_after=2.5, hint="wait")
    invalid = InvalidInput("too large", param="size")
    unknown = UnknownModel("no", nearest=["a", "b"])

    assert (str(full), full.message, full.hint, full.retry_after) == (
        "3 jobs are waiting",
        "3 jobs are waiting",
        "wait",
        2.5,
    )
    assert (invalid.param, invalid.hint, invalid.retry_after) == ("size", "", None)
    assert unknown.nearest == ("a", "b")
    assert not BackendUnavailable("gone", reached=False).reached
    assert ModelLoadFailed("hot", cooling=True, retry_after=9).cooling


def test_a_job_that_is_not_there_is_always_spoken_of_in_the_same_words() -> None:
    told = UnknownJob.of_that_id()

    assert (str(told), told.hint) == (str(UnknownJob.of_that_id()), UnknownJob.of_that_id().hint)
    assert "no job with this id" in str(told)


def test_only_what_another_attempt_may_heal_is_transient() -> None:
    healing = {
        error.__name__: error.attempts
        for error in EVERYONE
        if issubclass(error, BackendError) and error.transient
    }

    assert healing == {
        "BackendUnavailable": None,
        "BackendTimeout": None,
        "BackendBusy": None,
        "ModelLoadFailed": None,
        "ModelCrashed": None,
        "BackendFailed": 2,
        "StreamCut": None,
        "EmptyResult": 2,
    }
