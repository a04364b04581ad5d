"""A name for every request."""

import httpx2
import pytest
from fastapi import FastAPI

from src.routes import errors
from src.routes.request_ids import RequestIds, current_request_id
from tests.routes.house import House


def application() -> FastAPI:
    app = FastAPI()
    errors.install(app)
    app.add_middleware(RequestIds)

    @app.get("/")
    async def name() -> str | None:
        return current_request_id()

    @app.get("/fails")
    async def fails() -> None:
        raise ZeroDivisionError

    return app


async def get(path: str, **headers: str) -> httpx2.Response:
    transport = httpx2.ASGITransport(app=application(), raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as http:
        return await http.get(path, headers={k.replace("_", "-"): v for k, v in headers.items()})


async def test_every_request_gets_a_name_of_its_own() -> None:
    first, second = await get("/"), await get("/")

    assert first.json() == first.headers["X-Request-Id"] != second.headers["X-Request-Id"]
    assert first.json().startswith("req_")


@pytest.mark.parametrize("name", ["a", "0af7651916cd43dd:8448eb21.1c80-319c_b", "x" * 128])
async def test_a_caller_s_own_name_is_kept(name: str) -> None:
    assert (await get("/", x_request_id=name)).headers["X-Request-Id"] == name


@pytest.mark.parametrize("name", ["", "two words", "x" * 129, "a\x7fb", "<b>", 'a"b'])
async def test_a_name_that_could_do_harm_in_a_log_is_replaced(name: str) -> None:
    assert (await get("/", x_request_id=name)).headers["X-Request-Id"].startswith("req_")


@pytest.mark.parametrize(("path", "status"), [("/nowhere", 404), ("/fails", 500)])
async def test_an_error_says_the_name_once_in_its_header_and_once_in_its_body(
    path: str, status: int
) -> None:
    answer = await get(path, x_request_id="mine")

    assert answer.status_code == status
    assert answer.headers.get_list("X-Request-Id") == ["mine"]
    assert answer.json()["error"]["request_id"] == "mine"


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/health", {"Host": "evil.example"}, 421),
        ("GET", "/health", {"Origin": "https://evil.example"}, 403),
        ("GET", "/health", {"x-long": "1" * 40_000}, 431),
        ("PUT", "/health", {}, 405),
        ("GET", "/mcp/get_job?job_id=nobody", {}, 404),
        ("GET", "/mcp/get_job", {}, 422),
    ],
)
async def test_whoever_refuses_the_answer_has_the_name_and_leads_to_an_explanation(
    shared_house: House, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    async with shared_house.http() as http:
        request = http.build_request(method, path, headers={**headers, "X-Request-Id": "mine"})
        answer = await http.send(request)
        error = answer.json()["error"]
        page = await http.get(error["docs"])

    assert answer.status_code == status
    assert answer.headers["X-Request-Id"] == error["request_id"] == "mine"
    assert page.json()["status"] == status
    assert page.json()["code"] == error["code"]
