"""`queue` and `jobs`: what operators and callers do from the command line."""

import json
from collections.abc import Callable, Generator
from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest

from src.commands.moments import moment, since
from src.commands.terminal import Failure
from tests.routes.house import House, house
from tests.test_cli import Outcome, invoke

LATER = {"modality": "txt2txt", "prompt": "repeat: hello", "model": "sim-chat"}
Run = Callable[..., Outcome]


@pytest.fixture(scope="module")
def built() -> Generator[House]:
    with house(api_keys="ann=sesame,bob=barley", operators="ann") as made:
        yield made


@pytest.fixture
def run(built: House) -> Run:
    """Run a command as ann, on a server on which nothing is switched."""

    def as_caller(*words: str, key: str = "sesame") -> Outcome:
        return invoke(*words, IM_URL=built.url, IM_API_KEY=key)

    for action in (["resume"], ["start"], ["undrain"], ["purge", "--all"]):
        assert as_caller("queue", *action).code == 0
    return as_caller


def submit(built: House, **fields: Any) -> str:
    answer = httpx2.post(
        f"{built.url}/jobs",
        json={**LATER, **fields},
        headers={"x-api-key": "sesame"},
        trust_env=False,
    )
    assert answer.status_code == 202, answer.text
    job_id: str = answer.json()["job_id"]
    return job_id


def failed(built: House, run: Run) -> str:
    rule = built.sim.add_fault("status", match={"work": True}, status=400)
    job_id = submit(built)
    ended = run("jobs", "wait", job_id, "--timeout", "10")
    built.sim.remove_fault(rule)
    assert (ended.code, "the job is failed: " in ended.err) == (1, True)
    return job_id


def test_switches_are_set_shown_and_lifted(run: Run) -> None:
    run("queue", "pause", "--modality", "txt2img")
    run("queue", "pause", "--caller", "bob")
    run("queue", "stop")
    shown = run("queue", "drain").out

    lines = shown.splitlines()
    assert "0 jobs waiting, 0 of them held back, 0 running" in lines[0]
    assert [line.partition(", by ann ")[0] for line in lines[1:]] == [
        "paused: modality txt2img",
        "paused: caller bob",
        "stopped: nothing is started or loaded",
        "draining: no new work is taken in",
    ]
    assert ", draining, stopped, partly paused, version" in run("status").out
    told = json.loads(run("queue", "status", "--json").out)
    assert [pause["modality"] for pause in told["paused"]] == ["txt2img", None]
    run("queue", "undrain")
    run("queue", "start")
    assert len(run("queue", "resume").out.splitlines()) == 1


def test_whoever_is_no_operator_is_refused(run: Run) -> None:
    refused = run("queue", "pause", key="barley")

    assert refused.code == 4
    assert "only an operator may do this; use the key of one" in refused.err


def test_one_thing_is_paused_at_a_time(run: Run) -> None:
    both = run("queue", "pause", "--model", "m", "--caller", "bob")

    assert (both.code, "not two of them" in both.err) == (1, True)
    assert run("queue", "pause", "--modality", "gif").code == 2


def test_failed_jobs_are_carried_out_once_more(built: House, run: Run) -> None:
    job_id = failed(built, run)

    would = run("queue", "retry", "--since", "1h", "--dry-run").out
    done = run("queue", "retry", "--state", "failed", "--code", "backend_rejected").out
    again = run("queue", "retry").out

    assert would.splitlines()[0] == job_id
    old, arrow, new = done.splitlines()[0].split()
    assert (old, arrow) == (job_id, "->")
    assert "1 job carried out once more, of 1 found; 0 had been before" in done
    assert "0 jobs carried out once more, of 1 found; 1 had been before" in again
    ended = run("jobs", "wait", new, "--json")
    assert (ended.code, json.loads(ended.out)["text"]) == (0, "hello")


def test_what_is_not_taken_in_is_a_failure(built: House, run: Run) -> None:
    failed(built, run)
    run("queue", "drain")

    told = run("queue", "retry")

    assert (told.code, "it ended early: an operator" in told.err) == (1, True)


def test_ended_jobs_are_forgotten(built: House, run: Run) -> None:
    job_id = failed(built, run)

    assert run("queue", "purge").code == 2
    assert "0 jobs forgotten" in run("queue", "purge", "--state", "completed").out
    assert "1 job would be forgotten" in run("queue", "purge", "--all", "--dry-run").out
    assert "1 job forgotten" in run("queue", "purge", "--since", "1h", "--before", "0s").out
    gone = run("jobs", "show", job_id)
    assert (gone.code, "there is no job with this id" in gone.err) == (1, True)


def test_what_was_done_is_shown(run: Run) -> None:
    run("queue", "pause", "--model", "m")

    shown = run("queue", "audit", "--limit", "1").out.splitlines()

    assert len(shown) == 2
    assert shown[1].split()[2:] == [
        *("ann", "pause", "model", "m", "paused", "[]", "paused", "['model", "m']"),
    ]


def test_settings_that_did_not_change_are_told_so(run: Run) -> None:
    assert run("queue", "reload").out == "nothing is different\n"


def test_one_s_own_jobs_are_listed_shown_moved_cancelled_and_repeated(
    built: House, run: Run
) -> None:
    run("queue", "pause")
    first, second = submit(built), submit(built)
    assert run("jobs", "list", key="barley").out.splitlines()[1:] == []

    page = run("jobs", "list", "--limit", "1", "--state", "queued", "--modality", "txt2txt").out
    assert second in page
    assert first not in page
    cursor = page.split()[-1]
    assert first in run("jobs", "list", "--limit", "1", "--cursor", cursor).out
    shown = run("jobs", "show", second).out
    assert "queued (paused by an operator, 1 ahead)" in shown
    assert "position   0" in run("jobs", "move", second, "--to", "front").out
    late = run("jobs", "wait", first, "--timeout", "0")
    assert (late.code, "the job is queued" in late.err) == (1, True)
    assert "cancelled" in run("jobs", "cancel", first).out
    run("queue", "resume")
    assert run("jobs", "wait", second).code == 0
    again = run("jobs", "retry", second).out
    assert f"retry of   {second}" in again


@pytest.mark.parametrize("group", ["queue", "jobs"])
def test_a_group_without_a_command_shows_those_it_has(group: str) -> None:
    shown = invoke(group)

    assert shown.code == 2
    assert "Commands:" in shown.out + shown.err


NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("90s", "2026-11-21T11:58:30+00:00"),
        ("2h", "2026-11-21T10:00:00+00:00"),
        ("7d", "2026-11-14T12:00:00+00:00"),
    ],
)
def test_how_long_ago_is_a_moment(text: str, meant: str) -> None:
    assert moment(text, "--since", NOW) == meant


def test_a_moment_may_be_written_out() -> None:
    written = moment("2026-11-21T06:00+02:00", "--since")

    assert datetime.fromisoformat(written) == datetime(2026, 11, 21, 4, tzinfo=UTC)
    assert datetime.fromisoformat(moment("2026-11-21", "--since")).tzinfo is not None


@pytest.mark.parametrize("text", ["", "soon", "2w", "1.5h", "999999d", "2026-13-01"])
def test_what_is_no_moment_is_said_to_be_none(text: str) -> None:
    with pytest.raises(Failure, match="--since: write how long ago"):
        moment(text, "--since", NOW)


def test_the_future_was_no_time_ago() -> None:
    assert since(NOW, NOW) == since(NOW.replace(year=2027), NOW) == "0.00 s"
