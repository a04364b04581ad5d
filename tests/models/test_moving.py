"""Jobs that change places among themselves."""

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.models.capacity import BackendLimits, Capacity
from src.models.errors import InvalidInput
from src.models.jobs import Level
from src.models.moving import LARGEST_MOVE, Place, Target, places
from src.models.queues import Entry
from src.models.scheduler import Scheduler, Start

from .making import CHAT, DRAW, entry

ME, OTHER = "me", "other"
ENDS = ("front", "back")


@st.composite
def lines(draw: st.DrawFn) -> list[Entry]:
    """Waiting jobs of two callers, with one of mine among them."""
    several = draw(
        st.lists(
            st.tuples(
                st.sampled_from((ME, OTHER)),
                st.sampled_from((CHAT, CHAT, DRAW)),
                st.sampled_from((Level.NORMAL, Level.NORMAL, Level.LOW)),
            ),
            max_size=12,
        )
    )
    mine = (ME, CHAT, Level.NORMAL)
    numbered = enumerate([*several, mine, mine], start=1)
    return [entry(n, caller=c, modality=m, level=lv, model="m") for n, (c, m, lv) in numbered]


def waiting(entries: list[Entry]) -> Scheduler:
    scheduler = Scheduler(Capacity({"gpu": BackendLimits()}))
    for one in entries:
        scheduler.submit(one)
    return scheduler


def mine_beside(job: Entry, entries: list[Entry]) -> list[Entry]:
    return [e for e in entries if e.caller == job.caller and e.modality == job.modality]


@given(entries=lines(), data=st.data())
def test_nobody_elses_job_is_overtaken_or_let_forward(
    entries: list[Entry], data: st.DataObject
) -> None:
    scheduler = waiting(entries)
    mine = [e for e in entries if e.caller == ME]
    job = data.draw(st.sampled_from(mine))
    lane = [e for e in mine_beside(job, entries) if e.level == job.level]
    others = [Target("before", e.id) for e in lane if e is not job]
    others += [Target("after", e.id) for e in lane if e is not job]
    target = data.draw(st.sampled_from([Target("front"), Target("back"), *others]))
    before = [e.id for e in scheduler.line]

    scheduler.moved(places(job, mine_beside(job, entries), target=target))

    after = [e.id for e in scheduler.line]
    ids = {e.id for e in lane}
    assert [None if i in ids else i for i in before] == [None if i in ids else i for i in after]
    own, left = [i for i in after if i in ids], [i for i in before if i in ids and i != job.id]
    assert [i for i in own if i != job.id] == left
    at = own.index(job.id)
    match target.where:
        case "front":
            assert at == 0
        case "back":
            assert at == len(own) - 1
        case "before":
            assert own[at + 1] == target.other
        case "after":
            assert own[at - 1] == target.other


@given(entries=lines(), low=st.booleans())
def test_a_job_stands_at_its_new_level_as_if_it_had_been_submitted_so(
    entries: list[Entry], low: bool
) -> None:
    level = Level.LOW if low else Level.NORMAL
    job = next(e for e in entries if e.caller == ME)
    scheduler = waiting(entries)

    scheduler.moved(places(job, mine_beside(job, entries), level=level))

    same = {"caller": ME, "modality": job.modality, "model": "m"}
    others = [e for e in entries if e is not job]
    fresh = waiting([entry(job.sequence, level=level, **same), *others])
    assert [e.id for e in scheduler.line] == [e.id for e in fresh.line]


def test_a_job_changes_its_level_and_goes_to_the_front_at_once() -> None:
    one, two, three = (entry(n, level=Level.LOW if n < 3 else Level.NORMAL) for n in (1, 2, 3))

    moved = places(three, [one, two, three], level=Level.LOW, target=Target("front"))

    low = Level.LOW
    assert moved == {"job-3": Place(low, 1), "job-1": Place(low, 2), "job-2": Place(low, 3)}


def test_a_job_that_stays_where_it_is_moves_nothing() -> None:
    one, two = entry(1), entry(2)

    assert places(one, [one, two], level=Level.NORMAL, target=Target("front")) == {}


@pytest.mark.parametrize("other", ["job-1", "job-9", "nobody"])
@pytest.mark.parametrize("where", ["before", "after"])
def test_only_beside_another_job_of_ones_own_level(
    where: Literal["before", "after"], other: str
) -> None:
    one, low = entry(1), entry(9, level=Level.LOW)

    with pytest.raises(InvalidInput) as caught:
        places(one, [one, low], target=Target(where, other))

    assert caught.value.param == where


@pytest.mark.parametrize(("target", "param"), [(Target("front"), "to"), (None, "")])
def test_one_move_concerns_a_thousand_jobs_at_most(target: Target | None, param: str) -> None:
    own = [entry(n) for n in range(LARGEST_MOVE + 1)]
    target = target or Target("before", "job-0")

    with pytest.raises(InvalidInput) as caught:
        places(own[-1], own, target=target)

    assert caught.value.param == (param or "before")
    assert len(places(own[-2], own[:-1], target=target)) == LARGEST_MOVE


def test_a_job_that_was_started_meanwhile_comes_back_to_its_new_place() -> None:
    scheduler = waiting([entry(1, model="m"), entry(2, model="m"), entry(3, model="m")])
    scheduler.backend_up("gpu", resident=frozenset({"m"}))
    assert [d for d in scheduler.next(1.0) if isinstance(d, Start)] == [Start("job-1", "gpu", "m")]

    scheduler.moved({"job-1": Place(Level.NORMAL, 2), "job-2": Place(Level.NORMAL, 1)})
    scheduler.returned("job-1")

    assert [e.id for e in scheduler.line] == ["job-2", "job-1", "job-3"]


def test_a_job_that_waits_for_another_attempt_may_be_moved_and_one_that_ended_may_not() -> None:
    scheduler = waiting([entry(1, model="m")])
    scheduler.restore(entry(2, model="m"), not_before=50.0)

    scheduler.moved({"job-2": Place(Level.HIGH, 2), "job-7": Place(Level.HIGH, 7)})

    assert scheduler.position("job-2") is None
    scheduler.next(60.0)
    assert [e.id for e in scheduler.line] == ["job-2", "job-1"]
