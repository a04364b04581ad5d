"""How many jobs were completed lately."""

from dataclasses import replace

from src.models.events import Ended, Started
from src.models.jobs import Job
from src.models.results import Result
from src.models.tally import Tally

from .making import job

HOUR = 3600.0


def completed(at: float) -> Ended:
    return Ended(job().started("gpu", at).completed(Result(), at))


def test_only_what_was_completed_in_the_last_day_counts() -> None:
    tally = Tally()
    assert tally.completed(0.0) == 0

    for at in (0.5, 1.0, 1.5, 20.0):
        tally(completed(at * HOUR))
    tally(Ended(job().cancelled(HOUR)))
    tally(Started(job().started("gpu", HOUR)))

    assert tally.completed(20.5 * HOUR) == 4
    assert tally.completed(24.5 * HOUR) == 3
    assert tally.completed(26 * HOUR) == 1
    assert tally.completed(99 * HOUR) == 0


def test_what_ended_without_a_time_counts_as_long_ago() -> None:
    tally = Tally()
    ended: Job = completed(90 * HOUR).job

    tally(Ended(replace(ended, ended_at=None)))

    assert tally.completed(90 * HOUR) == 0
