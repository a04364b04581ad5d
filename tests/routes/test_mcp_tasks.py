"""The tasks extension of MCP: a job that goes on, for clients that know how to follow one."""

import asyncio
import itertools
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp.server import MCPServer
from mcp.types import (
    HEADER_MISMATCH,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    CallToolResult,
    ImageContent,
)

from src.app import create_app
from src.models.errors import (
    BackendFailed,
    InferenceManagerError,
    Interrupted,
    StorageFailed,
    WorkerLost,
)
from src.models.jobs import Job, Level
from src.models.requests import Txt2TxtRequest
from src.models.results import Result as Made
from src.routes.mcp_tasks import TASKS, status, task
from src.settings import Settings
from tests.conformance.slow_backend import SlowBackend
from tests.routes.following import LATER, Following, Task, ask, begin, ended, following
from tests.routes.house import House, facts, house, words
from tests.serving import logging_kept

METHODS = ("tasks/get", "tasks/update", "tasks/cancel")
DRAW = {"prompt": "x", "size": "64x64", "steps": 1}


@asynccontextmanager
async def following_as(house: House, key: str) -> AsyncGenerator[Client]:
    async with (
        httpx2.AsyncClient(headers={"x-api-key": key}, trust_env=False) as http,
        Client(
            streamable_http_client(f"{house.url}/mcp", http_client=http), extensions=[Following()]
        ) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def guarded() -> Generator[House]:
    with house(api_keys="ann=sesame,bob=barley") as built:
        yield built


async def test_a_call_that_is_done_soon_is_answered_as_ever(shared_house: House) -> None:
    async with following(shared_house) as client, asyncio.timeout(10):
        while not isinstance(  # unless the machine is busy
            told := await client.session.call_tool(
                "txt2txt", {"prompt": "repeat: hello"}, allow_claimed=True
            ),
            CallToolResult,
        ):
            pass

    assert words(told) == "hello"


async def test_a_call_that_goes_on_becomes_a_task_with_the_result_of_the_call(
    own_house: House,
) -> None:
    own_house.sim.hold()
    async with following(own_house) as client:
        begun = await begin(client, "txt2img", **DRAW)
        await own_house.running("txt2img")
        working = await ask(client.session, "tasks/get", begun.task_id)
        own_house.sim.release()
        done = await ended(client.session, begun.task_id)
        same = await client.call_tool("get_job", {"job_id": begun.task_id})

    assert begun.status == working.status == "working"
    assert working.status_message == "running on sim-image, attempt 1"
    assert (working.result, working.error) == (None, None)
    assert done.status == done.status_message == "completed"
    assert done.created_at < done.last_updated_at
    result = CallToolResult.model_validate(done.result)
    assert (result.content, facts(result)) == (same.content, facts(same))
    assert isinstance(result.content[-1], ImageContent)


async def test_those_who_follow_tasks_are_not_kept_waiting(own_house: House) -> None:
    own_house.sim.hold()
    async with following(own_house) as client:
        begun = await asyncio.wait_for(
            client.session.call_tool("txt2txt", {"prompt": "x"}, allow_claimed=True), 10
        )
        own_house.sim.release()

    assert isinstance(begun, Task)


async def test_a_task_remembers_how_its_pictures_are_shown(shared_house: House) -> None:
    big = {"prompt": "x", "size": "1280x64", "steps": 1}
    async with following(shared_house) as client:
        links = await client.call_tool("txt2img", {**big, **LATER, "output": "link"})
        full = await client.call_tool("txt2img", {**big, **LATER, "output": "full"})

    assert not [block for block in links.content if isinstance(block, ImageContent)]
    [shown] = [block for block in full.content if isinstance(block, ImageContent)]
    assert shown.mime_type == "image/png"


async def test_a_task_outlives_the_client_that_began_it(own_house: House) -> None:
    own_house.sim.hold()
    async with following(own_house) as client:
        begun = await begin(client, "txt2txt", prompt="repeat: fine")
        await own_house.running("txt2txt")
    own_house.sim.release()

    async with following(own_house) as client:
        told = await ended(client.session, begun.task_id)

    assert words(CallToolResult.model_validate(told.result)) == "fine"


async def test_a_tool_that_says_what_went_wrong_has_completed(own_house: House) -> None:
    own_house.sim.add_fault("status", status=400, message="bad")
    async with following(own_house) as client:
        begun = await begin(client, "txt2txt", prompt="x")
        told = await ended(client.session, begun.task_id)
        same = await client.call_tool("get_job", {"job_id": begun.task_id})

    assert told.status == "completed"
    result = CallToolResult.model_validate(told.result)
    assert result.is_error
    assert words(result).startswith("backend_rejected: ")
    assert (result.content, result.is_error) == (same.content, same.is_error)


async def test_a_cancelled_task_says_so_however_often_it_is_cancelled(own_house: House) -> None:
    own_house.sim.hold()
    async with following(own_house) as client:
        begun = await begin(client, "txt2txt", prompt="x")
        for _ in range(2):
            acknowledged = await ask(client.session, "tasks/cancel", begun.task_id)
            assert (acknowledged.status, acknowledged.result) == ("", None)
        told = await ask(client.session, "tasks/get", begun.task_id)
        job = await client.call_tool("get_job", {"job_id": begun.task_id})

    assert (told.status, told.result, told.error) == ("cancelled", None, None)
    assert "cancelled" in words(job)


async def test_answers_to_questions_that_no_task_asked_are_taken(shared_house: House) -> None:
    async with following(shared_house) as client:
        begun = await begin(client, "txt2txt", prompt="repeat: x")
        assert (await ask(client.session, "tasks/update", begun.task_id)).status == ""


async def test_a_task_is_its_callers_alone(guarded: House) -> None:
    async with following_as(guarded, "sesame") as ann, following_as(guarded, "barley") as bob:
        begun = await begin(ann, "txt2txt", prompt="repeat: mine")
        others = ("none", f"{begun.task_id}.other", begun.task_id)
        for method, task_id in itertools.product(METHODS, others):
            with pytest.raises(MCPError, match="job_not_found") as refused:
                await ask(bob.session, method, task_id)
            assert refused.value.error.code == INVALID_PARAMS
        told = await ended(ann.session, begun.task_id)

    assert words(CallToolResult.model_validate(told.result)) == "mine"


async def test_who_does_not_follow_tasks_is_told_of_none(shared_house: House) -> None:
    async with shared_house.client() as modern, shared_house.client("legacy") as legacy:
        job_id = facts(await modern.call_tool("txt2txt", {"prompt": "x", **LATER}))["job_id"]
        for method in METHODS:
            with pytest.raises(MCPError) as undeclared:
                await ask(modern.session, method, job_id)
            with pytest.raises(MCPError) as too_old:
                await ask(legacy.session, method, job_id)
            assert undeclared.value.error.code == MISSING_REQUIRED_CLIENT_CAPABILITY
            assert too_old.value.error.code == METHOD_NOT_FOUND


@pytest.mark.parametrize("name", [{}, {"mcp-name": "another"}])
async def test_the_header_names_the_task(shared_house: House, name: dict[str, str]) -> None:
    meta: dict[str, Any] = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {"extensions": {TASKS: {}}},
    }
    headers = {
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": "2026-07-28",
        "mcp-method": "tasks/get",
        **name,
    }
    body = {"jsonrpc": "2.0", "id": 1, "method": "tasks/get", "params": {"taskId": "t"}}
    body["params"] |= {"_meta": meta}  # type: ignore[operator]

    async with shared_house.http() as http:
        answer = await http.post("/mcp", json=body, headers=headers)

    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == HEADER_MISMATCH


async def test_a_task_that_the_server_failed_has_an_error_instead_of_a_result() -> None:
    servers: list[MCPServer] = []
    app = create_app(
        Settings(log_file=None, log_level="error"),
        backends=[SlowBackend()],
        extend_mcp=servers.append,
    )

    with logging_kept():
        async with (
            app.router.lifespan_context(app),
            Client(servers[0], extensions=[Following()]) as client,
        ):
            begun = await begin(client, "txt2txt", prompt="take 0 and fail")
            told = await ended(client.session, begun.task_id)

    assert (told.status, told.result) == ("failed", None)
    assert told.error == {
        "code": INTERNAL_ERROR,
        "message": f"storage_failed: the disk is gone (job {begun.task_id}).",
    }


def job(**changes: Any) -> Job:
    fields: dict[str, Any] = {
        "id": "j",
        "request": Txt2TxtRequest.model_validate({"messages": [{"role": "user", "content": "x"}]}),
        "model": "m",
        "caller": "c",
        "level": Level.NORMAL,
        "sequence": 1,
        "submitted_at": 1.5,
        "deadline": 9,
    }
    return Job(**fields | changes)


@pytest.mark.parametrize(
    ("ended", "word"),
    [
        (job(), "working"),
        (job().started("b", 2), "working"),
        (job().started("b", 2).retrying(BackendFailed("x"), 3), "working"),
        (job().started("b", 2).completed(Made(text="x"), 3), "completed"),
        (job().started("b", 2).failed(BackendFailed("x"), 3), "completed"),
        (job().expired(9), "completed"),
        (job().cancelled(2), "cancelled"),
        (job().failed(Interrupted("x"), 2), "failed"),
        (job().failed(WorkerLost("x"), 2), "failed"),
        (job().failed(StorageFailed("x"), 2), "failed"),
        (job().failed(InferenceManagerError("x"), 2), "failed"),
    ],
)
def test_a_task_has_failed_only_by_the_fault_of_the_server(ended: Job, word: str) -> None:
    assert status(ended) == word


def test_a_task_says_when_it_began_and_how_long_it_is_kept() -> None:
    told = task(job(), "preview", doing="", keep_s=60)

    assert told["createdAt"] == told["lastUpdatedAt"] == "1970-01-01T00:00:01.500Z"
    assert told["ttlMs"] == 60_000
