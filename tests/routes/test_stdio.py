import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client, MCPError, StdioServerParameters

from src.app import create_app
from src.routes.stdio import NoServer, Upstream, bridge
from src.settings import Settings
from tests.routes.house import ERAS, House, Progress, facts, words
from tests.serving import RunningServer

ROOT = Path(__file__).parents[2]
PROGRAM = (
    "import anyio; from src.routes.stdio import serve_stdio; anyio.run(serve_stdio, '{}', str)"
)
SMALL = {"size": "64x64", "steps": 1}


@pytest.fixture(params=ERAS)
def era(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _process(house: House, mode: str) -> Client:
    """Start a bridge as hosts do."""
    program = PROGRAM.format(f"{house.url}/mcp")
    return Client(
        StdioServerParameters(command=sys.executable, args=["-c", program], cwd=str(ROOT)),
        mode=mode,
    )


def _nowhere() -> str:
    raise NoServer("start one with `im serve`")


@asynccontextmanager
async def _bridge(url: str, mode: str = "auto") -> AsyncGenerator[Client]:
    """Make a bridge within the test's own process."""
    async with httpx2.AsyncClient(trust_env=False) as http:
        server = await bridge(Upstream(f"{url}/mcp", http, _nowhere))
        async with Client(server, mode=mode) as client:
            yield client


async def test_a_host_finds_everything_behind_the_bridge(shared_house: House, era: str) -> None:
    progress = Progress()

    async with _process(shared_house, era) as host, shared_house.client() as direct:
        assert host.server_info == direct.server_info
        assert host.instructions == direct.instructions
        assert (await host.list_tools()).tools == (await direct.list_tools()).tools
        result = await host.call_tool(
            "txt2img", {"prompt": "x", **SMALL}, progress_callback=progress
        )
        picture = facts(result)["images"][0]
        contents = (await host.read_resource(picture["uri"])).contents

    assert [block.type for block in result.content] == ["text", "resource_link", "image"]
    assert picture["url"].startswith(shared_house.url)
    assert contents[0].mime_type == "image/png"
    assert any("running on sim-image" in message for message in progress.messages)
    assert progress.values == sorted(set(progress.values))


async def test_a_host_that_cancels_cancels_the_job(own_house: House, era: str) -> None:
    own_house.sim.hold()
    async with _process(own_house, era) as host:
        call = asyncio.create_task(host.call_tool("txt2txt", {"prompt": "x"}))
        job_id = await own_house.running("txt2txt")

        call.cancel()

        with pytest.raises(asyncio.CancelledError):
            await call
        await _until_cancelled(own_house, job_id)


async def test_a_host_that_ends_ends_its_jobs(own_house: House) -> None:
    own_house.sim.hold()
    async with _process(own_house, "legacy") as host:
        call = asyncio.create_task(host.call_tool("txt2txt", {"prompt": "x"}))
        job_id = await own_house.running("txt2txt")

    await _until_cancelled(own_house, job_id)
    with pytest.raises(MCPError):
        await call


async def test_many_calls_at_once_over_one_pipe(shared_house: House) -> None:
    async with _process(shared_house, "legacy") as host, asyncio.TaskGroup() as calls:
        made = [
            calls.create_task(host.call_tool("txt2txt", {"prompt": f"repeat: {number}"}))
            for number in range(10)
        ]

    assert [words(call.result()) for call in made] == [str(number) for number in range(10)]


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [("txt2txt", {}), ("txt2img", {"prompt": "x", "steps": 0}), ("nosuchtool", {})],
)
async def test_errors_of_tools_pass_unchanged(
    shared_house: House, tool: str, arguments: dict[str, Any], era: str
) -> None:
    async with _bridge(shared_house.url, era) as host, shared_house.client() as direct:
        there = await host.call_tool(tool, arguments)
        here = await direct.call_tool(tool, arguments)

    assert there.is_error
    assert there.content == here.content


async def test_errors_of_the_protocol_pass_too(shared_house: House, era: str) -> None:
    async with _bridge(shared_house.url, era) as host:
        assert (await host.list_resources()).resources == []
        assert (await host.list_resource_templates()).resource_templates
        with pytest.raises(MCPError) as caught:
            await host.read_resource("inference://images/none/0")

    assert caught.value.code == -32602


async def test_a_server_that_is_restarted_is_found_again(era: str) -> None:
    def server(port: int = 0) -> RunningServer:
        return RunningServer(_idle_app(), port=port)

    first = server()
    with first:
        bridged = _bridge(first.url, era)
        host = await bridged.__aenter__()
    try:
        away = await host.call_tool("list_models")
        with pytest.raises(MCPError, match="im serve"):
            await host.list_resource_templates()
        with server(first.port):
            back = await host.call_tool("list_models")
    finally:
        await bridged.__aexit__(None, None, None)

    assert away.is_error
    assert words(away) == "server_unreachable: start one with `im serve`."
    assert not back.is_error


async def test_without_a_server_there_is_no_bridge() -> None:
    with RunningServer(_idle_app()) as gone:
        url = gone.url

    with pytest.raises(MCPError, match="im serve"):
        async with _bridge(url):
            pass


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"", "does not answer; try again"),
        (
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n:\n\n",
            "went away; try again",
        ),
    ],
)
async def test_what_may_have_been_begun_is_not_asked_twice(answer: bytes, says: str) -> None:
    calls = 0

    async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal calls
        calls += 1
        await reader.readuntil(b"tools/call")
        writer.write(answer)
        writer.close()

    async with (
        await asyncio.start_server(break_off, "127.0.0.1") as server,
        httpx2.AsyncClient(trust_env=False) as http,
    ):
        port = server.sockets[0].getsockname()[1]
        upstream = Upstream(f"http://127.0.0.1:{port}/mcp", http, _nowhere)
        with pytest.raises(MCPError, match=says):
            await upstream.ask(lambda client: client.call_tool("txt2txt", {"prompt": "x"}))

    assert calls == 1


def _idle_app() -> Any:
    return create_app(Settings(log_file=None, log_level="error"), backends=[])


async def _until_cancelled(house: House, job_id: str) -> None:
    job = await house.until(
        f"/mcp/get_job?job_id={job_id}&wait_seconds=5", lambda j: j["state"] != "processing"
    )
    assert job["state"] == "cancelled"
