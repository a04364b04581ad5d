"""What operators do to the queue, by HTTP."""

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from src.app import create_app
from src.settings import Settings
from src.simulator.config import SimulatorConfig
from src.simulator.serve import Simulator
from tests.routes.house import House, house
from tests.serving import serving

LATER = {"prompt": "repeat: hello", "model": "sim-chat", "wait_seconds": 0}
JOB = {"modality": "txt2txt", "prompt": "repeat: hello", "model": "sim-chat"}
DRAW = {"prompt": "a boat", "model": "sim-image", "size": "64x64", "wait_seconds": 0}
ANN, BOB = {"x-api-key": "sesame"}, {"x-api-key": "barley"}


@pytest.fixture(scope="module")
def keyed() -> Generator[House]:
    """A server that asks for keys; ann is its operator."""
    with house(api_keys="ann=sesame,bob=barley", operators="ann") as built:
        yield built


@pytest.fixture(scope="module")
def built() -> Generator[House]:
    with house() as made:
        yield made


@pytest.fixture
def clean(built: House) -> House:
    """A server on which nothing is switched and nothing has ended."""
    with httpx2.Client(base_url=f"{built.url}/queue", trust_env=False) as http:
        for action in ("resume", "start", "undrain", "purge"):
            body = {"all": True} if action == "purge" else None
            assert http.post(action, json=body).status_code == 200
    return built


class Desk:
    """Where an operator acts, with a key perhaps."""

    def __init__(self, http: httpx2.AsyncClient, key: dict[str, str]) -> None:
        self.http = http
        self._key = key

    async def __call__(self, action: str, body: Any = None, *, status: int = 200) -> Any:
        """Do something to the queue, by its name, and return what is answered."""
        answer = await self.http.post(f"/queue/{action}", json=body, headers=self._key)
        assert answer.status_code == status, answer.text
        return answer.json()

    async def records(self, limit: int) -> Any:
        """The latest records of the audit log."""
        path = f"/queue/audit?limit={limit}"
        return (await self.http.get(path, headers=self._key)).json()["records"]


@asynccontextmanager
async def acting(built: House, key: dict[str, str] | None = None) -> AsyncGenerator[Desk]:
    async with built.http() as http:
        yield Desk(http, key or {})


async def job(http: httpx2.AsyncClient, made: Any, wait: float = 0.0) -> Any:
    answer = await http.get(f"/mcp/get_job?job_id={made['job_id']}&wait_seconds={wait}")
    return answer.json()


# Pauses


async def test_a_paused_modality_waits_while_others_pass(clean: House) -> None:
    async with acting(clean) as act:
        paused = await act("pause", {"modality": "txt2txt"})
        text = (await act.http.post("/mcp/txt2txt", json=LATER)).json()
        picture = (await act.http.post("/mcp/txt2img", json=DRAW)).json()

        assert (await job(act.http, picture, 10))["state"] == "completed"
        waiting = await job(act.http, text)
        status = (await act.http.get("/queue-status")).json()
        after = await act("resume", {"modality": "txt2txt"})
        ended = await job(act.http, text, 10)

    (pause,) = paused["paused"]
    assert (pause["modality"], pause["model"], pause["by"]) == ("txt2txt", None, "anonymous")
    assert (waiting["state"], waiting["doing"]) == ("queued", "paused by an operator")
    assert waiting["position"] == 0
    queue = status["queues"]["txt2txt"]
    assert (queue["waiting"], queue["paused"]) == (1, 1)
    assert queue["oldest_age_s"] >= 0
    assert status["paused"] == [{"modality": "txt2txt", "model": None, "caller": None}]
    assert (after["paused"], after["held"]) == ([], 0)
    assert ended["state"] == "completed"


@pytest.mark.parametrize("body", [{"model": "sim-chat"}, {"caller": "anonymous"}, {}, None])
async def test_a_model_a_caller_or_everything_may_be_paused(
    clean: House, body: dict[str, str] | None
) -> None:
    async with acting(clean) as act:
        await act("pause", body)
        made = (await act.http.post("/mcp/txt2txt", json=LATER)).json()
        held = await act("pause", body)
        assert (await job(act.http, made))["doing"] == "paused by an operator"

        await act("resume")
        assert (await job(act.http, made, 10))["state"] == "completed"

    assert (held["waiting"], held["held"], len(held["paused"])) == (1, 1, 1)


@pytest.mark.parametrize("action", ["pause", "resume", "purge", "retry"])
async def test_a_name_that_was_forgotten_does_not_mean_everything(
    clean: House, action: str
) -> None:
    async with clean.http() as http:
        refused = await http.post(f"/queue/{action}", json={"model": None})

    assert refused.status_code == 422
    assert "must not be null" in refused.json()["error"]["message"]


async def test_only_one_thing_is_paused_at_a_time(clean: House) -> None:
    async with acting(clean) as act:
        both = await act("pause", {"modality": "txt2txt", "model": "m"}, status=422)
        wrong = await act("pause", {"modality": "txt2gif"}, status=422)
        empty = await act("pause", {"caller": ""}, status=422)
        controls = (await act.http.get("/queue/controls")).json()

    assert both["error"]["param"] == "model"
    assert wrong["error"]["param"] == "modality"
    assert empty["error"]["param"] == "caller"
    assert controls["paused"] == []


# Stop, start, drain, undrain


async def test_while_work_is_stopped_nothing_starts_and_what_runs_goes_on(
    clean: House,
) -> None:
    clean.sim.hold()
    async with acting(clean) as act:
        runs = (await act.http.post("/mcp/txt2txt", json=LATER)).json()
        await clean.running("txt2txt")
        stopped = await act("stop")
        waits = (await act.http.post("/mcp/txt2txt", json=LATER)).json()
        clean.sim.release()
        assert (await job(act.http, runs, 10))["state"] == "completed"
        ready = await act.http.get("/ready")
        doing = (await job(act.http, waits))["doing"]
        status = (await act.http.get("/queue-status")).json()

        started = await act("start")
        assert (await job(act.http, waits, 10))["state"] == "completed"

    assert stopped["stopped"]["by"] == "anonymous"
    assert started["stopped"] is None
    assert (ready.status_code, ready.json()["reasons"]) == (
        503,
        ["an operator has stopped all work"],
    )
    assert doing == "queued, but an operator has stopped all work"
    assert status["stopped"] is True


async def test_a_draining_server_refuses_new_work_and_carries_out_the_rest(
    clean: House,
) -> None:
    clean.sim.hold()
    async with acting(clean) as act:
        taken = [(await act.http.post("/mcp/txt2txt", json=LATER)).json() for _ in range(2)]
        await act("drain")
        refused = await act.http.post("/mcp/txt2txt", json=LATER)
        ready = await act.http.get("/ready")
        draining = (await act.http.get("/queue-status")).json()["draining"]
        clean.sim.release()
        for one in taken:
            assert (await job(act.http, one, 10))["state"] == "completed"

        await act("undrain")
        again = await act.http.post("/mcp/txt2txt", json=LATER)

    assert refused.status_code == ready.status_code == 503
    assert refused.headers["Retry-After"] == "60"
    assert "operator" in refused.json()["error"]["message"]
    assert draining
    assert again.status_code == 202


# Who may


async def test_only_operators_may_where_there_are_keys(keyed: House) -> None:
    async with acting(keyed, BOB) as act:
        for action in ("pause", "resume", "stop", "start", "drain", "undrain", "reload", "retry"):
            told = await act(action, status=403)
            assert told["error"]["code"] == "not_permitted"
            assert "operators" in told["error"]["hint"]
        await act("purge", {"all": True}, status=403)
        await act("pause", {"modality": "nonsense"}, status=403)
        for path in ("controls", "audit"):
            assert (await act.http.get(f"/queue/{path}", headers=BOB)).status_code == 403
            assert (await act.http.get(f"/queue/{path}")).status_code == 401
            assert (await act.http.get(f"/queue/{path}", headers=ANN)).status_code == 200


async def test_nobody_sees_from_the_status_whom_else_an_operator_has_paused(keyed: House) -> None:
    async with acting(keyed, ANN) as act:
        await act("pause", {"caller": "bob"})
        shown = [
            (await act.http.get("/queue-status", headers=key)).json()["paused"]
            for key in (ANN, BOB)
        ]
        await act("resume")

    assert shown == [[], [{"modality": None, "model": None, "caller": "bob"}]]


# The audit log


async def test_each_change_is_written_down_once(clean: House) -> None:
    async with acting(clean) as act:
        await act("pause", {"modality": "txt2img"})
        await act("pause", {"modality": "txt2img"})
        await act("pause", {"caller": "ann"})
        await act("resume")
        await act("resume")
        await act("stop")
        log = (await act.http.get("/queue/audit?limit=2")).json()
        rest = (await act.http.get(f"/queue/audit?limit=2&before={log['before']}")).json()
        all_of_it = (await act.http.get("/queue/audit?limit=1000")).json()

    records = [*log["records"], *rest["records"]]
    assert [(r["action"], r["about"]) for r in records] == [
        ("stop", {}),
        ("resume", {}),
        ("pause", {"caller": "ann"}),
        ("pause", {"modality": "txt2img"}),
    ]
    assert [(r["before"], r["after"]) for r in records[:2]] == [
        ({"stopped": False}, {"stopped": True}),
        ({"paused": ["modality txt2img", "caller ann"]}, {"paused": []}),
    ]
    assert {r["who"] for r in records} == {"anonymous"}
    assert all_of_it["records"][:4] == records
    assert all_of_it["before"] is None


# Retries


@contextmanager
def refusing(built: House) -> Generator[None]:
    """Let the simulator refuse all work."""
    rule = built.sim.add_fault("status", match={"work": True}, status=400)
    yield
    built.sim.remove_fault(rule)


async def failed(built: House, http: httpx2.AsyncClient, *bodies: dict[str, Any]) -> list[str]:
    """Have jobs fail, and return their ids."""
    with refusing(built):
        made: list[Any] = []
        for body in bodies:
            path = "/mcp/txt2img" if "size" in body else "/mcp/txt2txt"
            made.append((await http.post(path, json=body)).json())
        for one in made:
            assert (await job(http, one, 10))["state"] == "failed"
    return [one["job_id"] for one in made]


async def test_failed_jobs_are_carried_out_once_more_but_only_once(clean: House) -> None:
    async with acting(clean) as act:
        old = await failed(clean, act.http, LATER, LATER)
        would = await act("retry", {"dry_run": True})
        first = await act("retry")
        second = await act("retry")
        new = [one["new_job_id"] for one in first["retried"]]
        ended = [await job(act.http, {"job_id": job_id}, 10) for job_id in new]
        log = await act.records(2)

    assert [one["job_id"] for one in would["retried"]] == old
    assert [one["job_id"] for one in first["retried"]] == old
    assert (second["found"], second["retried"], second["already_retried"]) == (2, [], 2)
    assert [one["text"] for one in ended] == ["hello", "hello"]
    assert [(r["action"], r["after"]["jobs"]) for r in log] == [("retry", 0), ("retry", 2)]
    assert log[0]["about"] == {"states": ["failed"], "limit": 100}


async def test_those_to_be_carried_out_once_more_may_be_chosen(clean: House) -> None:
    async with acting(clean) as act:
        text, picture = await failed(clean, act.http, LATER, DRAW)

        async def chosen(**filters: Any) -> list[str]:
            told = await act("retry", {"dry_run": True, **filters})
            return [one["job_id"] for one in told["retried"]]

        assert await chosen(modality="txt2img") == await chosen(model="sim-image") == [picture]
        assert await chosen(code="backend_rejected") == [text, picture]
        assert await chosen(code="backend_timeout") == []
        assert await chosen(caller="bob") == []
        assert await chosen(state=["cancelled", "expired"]) == []
        assert await chosen(limit=1) == [text]
        hour = timedelta(hours=1)
        past, future = (
            (datetime.now(UTC) - hour).isoformat(),
            (datetime.now(UTC) + hour).isoformat(),
        )
        assert await chosen(submitted_after=past, submitted_before=future) == [text, picture]
        assert await chosen(submitted_after=future) == await chosen(submitted_before=past) == []
        await act("retry", {"state": ["queued"]}, status=422)


async def test_to_carry_out_once_more_ends_where_nothing_is_taken_in(clean: House) -> None:
    async with acting(clean) as act:
        await failed(clean, act.http, LATER, LATER)
        await act("drain")

        told = await act("retry")

    assert told["retried"] == told["refused"] == []
    assert told["error"]["code"] == "shutting_down"


async def test_pictures_go_along_to_the_new_job(clean: House) -> None:
    async with acting(clean) as act:
        drawn = await act.http.post("/mcp/txt2img", json={**DRAW, "size": "512x512"})
        await job(act.http, drawn.json(), 10)
        look = {"image": f"job:{drawn.json()['job_id']}", "wait_seconds": 0}
        with refusing(clean):
            made = (await act.http.post("/mcp/img2txt", json=look)).json()
            assert (await job(act.http, made, 10))["state"] == "failed"

        (told,) = (await act("retry"))["retried"]
        ended = await job(act.http, {"job_id": told["new_job_id"]}, 10)

    assert "512x512" in ended["text"]


# Purges


async def test_ended_jobs_are_forgotten_and_no_others(clean: House) -> None:
    async with acting(clean) as act:
        (text,) = await failed(clean, act.http, LATER)
        clean.sim.hold()
        waiting = [(await act.http.post("/mcp/txt2txt", json=LATER)).json() for _ in range(2)]

        nothing = await act("purge", {"state": ["completed"]})
        would = await act("purge", {"state": ["failed"], "dry_run": True})
        assert (await act.http.get(f"/jobs/{text}")).status_code == 200
        done = await act("purge", {"all": True})
        assert (await act.http.get(f"/jobs/{text}")).status_code == 404
        log = await act.records(2)
        clean.sim.release()
        for one in waiting:
            assert (await job(act.http, one, 10))["state"] == "completed"

    assert [told["jobs"] for told in (nothing, would, done)] == [0, 1, 1]
    assert [(r["action"], r["after"]) for r in log] == [
        ("purge", {"jobs": 1}),
        ("purge", {"jobs": 0}),
    ]


@pytest.mark.parametrize("body", [{}, {"limit": 5}, {"dry_run": True}])
async def test_nothing_is_forgotten_that_was_not_named(clean: House, body: dict[str, Any]) -> None:
    async with acting(clean) as act:
        told = await act("purge", body, status=422)

    assert told["error"]["param"] == "all"


# All at once


async def test_many_switches_at_once_end_as_the_last_one_says(clean: House) -> None:
    async with acting(clean) as act:
        await asyncio.gather(*(act(action) for action in ("pause", "stop", "drain") * 5))
        assert (await act("resume"))["stopped"]
        await act("start")
        left = await act("undrain")
        log = await act.records(6)

    assert (left["paused"], left["stopped"], left["draining"]) == ([], None, None)
    assert sorted(record["action"] for record in log) == [
        "drain",
        "pause",
        "resume",
        "start",
        "stop",
        "undrain",
    ]


# Over a restart


async def test_switches_outlive_the_server_and_what_was_paused_goes_on_waiting(
    tmp_path: Path,
) -> None:
    store = f"sqlite:///{tmp_path / 'jobs.db'}"
    with house(store=store) as first:
        async with acting(first) as act:
            await act("pause", {"model": "sim-chat"})
            await act("drain")
            await act("undrain")
            made = (await act.http.post("/jobs", json=JOB)).json()

    with house(store=store) as second:
        async with acting(second) as act:
            waiting = await job(act.http, made)
            controls = (await act.http.get("/queue/controls")).json()
            records = await act.records(5)
            await act("resume")
            ended = await job(act.http, made, 10)

    assert (waiting["state"], waiting["doing"]) == ("queued", "paused by an operator")
    assert [pause["model"] for pause in controls["paused"]] == ["sim-chat"]
    assert (controls["held"], controls["draining"]) == (1, None)
    assert [record["action"] for record in records] == ["undrain", "drain", "pause"]
    assert ended["text"] == "hello"


async def test_while_all_work_is_stopped_a_new_server_starts_nothing(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'jobs.db'}"
    with house(store=store) as first:
        async with acting(first) as act:
            await act("stop")
            made = (await act.http.post("/jobs", json=JOB)).json()

    with Simulator(SimulatorConfig(speed=0)) as simulator:
        settings = Settings(localai_url=simulator.url, store=store, log_file=None, grace_s=0)
        with serving(create_app(settings)) as url:
            second = House(url, simulator.control)
            await second.until("/mcp/list_models", lambda listed: listed["known"])
            async with acting(second) as act:
                assert (await job(act.http, made))["attempts"] == 0
                await act("start")
                assert (await job(act.http, made, 10))["state"] == "completed"
