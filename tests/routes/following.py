"""A client of MCP that follows tasks, as a host would."""

import asyncio
from collections.abc import Sequence
from typing import Any, Literal

from mcp import Client
from mcp.client.extension import ClaimContext, ClientExtension, ResultClaim
from mcp.client.session import ClientSession
from mcp.types import CallToolResult, Request, RequestParams, Result

from src.routes.mcp_tasks import TASKS
from tests.routes.house import House

LATER = {"wait_seconds": 0}


class Named(RequestParams):
    task_id: str


class Ask(Request[Named, str]):
    """Any method of the extension."""

    name_param = "taskId"


class Task(Result):
    """What a call answers that goes on."""

    result_type: Literal["task"]
    task_id: str
    status: str
    status_message: str
    ttl_ms: int
    poll_interval_ms: int


class Told(Result):
    """What the extension's methods answer."""

    task_id: str = ""
    status: str = ""
    status_message: str = ""
    created_at: str = ""
    last_updated_at: str = ""
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None


class Following(ClientExtension):
    """Follows tasks, as a host does."""

    identifier = TASKS

    def claims(self) -> Sequence[ResultClaim[Any]]:
        return [ResultClaim(result_type="task", model=Task, resolve=self._resolve)]

    async def _resolve(self, begun: Task, context: ClaimContext) -> CallToolResult:
        told = await ended(context.session, begun.task_id)
        return CallToolResult.model_validate(told.result)


async def ask(session: ClientSession, method: str, task_id: str) -> Told:
    named = Named.model_validate({"taskId": task_id})
    return await session.send_request(Ask(method=method, params=named), Told)


async def ended(session: ClientSession, task_id: str) -> Told:
    async with asyncio.timeout(10):
        while (told := await ask(session, "tasks/get", task_id)).status == "working":
            pass
        return told


async def begin(client: Client, tool: str, **arguments: Any) -> Task:
    begun = await client.session.call_tool(tool, {**arguments, **LATER}, allow_claimed=True)
    assert isinstance(begun, Task)
    return begun


def following(house: House) -> Client:
    return Client(f"{house.url}/mcp", extensions=[Following()])
