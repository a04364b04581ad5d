"""The guard in front of every door."""

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from src.routes.guard import Guard


async def hello(_: Request) -> PlainTextResponse:
    return PlainTextResponse("hello")


@pytest.fixture
def client() -> TestClient:
    app = Starlette(routes=[Route("/", hello)])
    guarded = Guard(app, hosts=["gpu.lan"], origins=["https://chat.example"], body_limit=1000)
    return TestClient(guarded, base_url="http://localhost:8000")


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:8000", "127.0.0.1:8000", "[::1]:8000", "192.168.1.5", "gpu.lan:80"],
)
def test_localhost_addresses_and_names_from_the_settings_are_served(
    client: TestClient, host: str
) -> None:
    assert client.get("/", headers={"Host": host}).text == "hello"


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "", "[::1", "a b"])
def test_any_other_name_is_refused_as_a_rebound_one_may_be(client: TestClient, host: str) -> None:
    answer = client.get("/", headers={"Host": host})

    assert answer.status_code == 421
    assert "allowed_hosts" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost:8000", 200),
        ("http://127.0.0.1:5173", 200),
        ("https://chat.example", 200),
        ("https://evil.example", 403),
        ("null", 403),
        ("http://[", 403),
    ],
)
def test_only_our_own_pages_and_those_of_the_settings_may_call(
    client: TestClient, origin: str, status: int
) -> None:
    assert client.get("/", headers={"Origin": origin}).status_code == status


def test_too_many_headers_are_refused(client: TestClient) -> None:
    many = {f"x-{number}": "1" for number in range(120)}

    assert client.get("/", headers=many).status_code == 431


def test_too_long_headers_are_refused(client: TestClient) -> None:
    assert client.get("/", headers={"x-long": "1" * 40_000}).status_code == 431


def test_a_length_and_a_transfer_encoding_exclude_each_other(client: TestClient) -> None:
    both = {"Content-Length": "3", "Transfer-Encoding": "chunked"}

    assert client.post("/", headers=both, content=b"abc").status_code == 400


@pytest.mark.parametrize(("length", "status"), [(1000, 405), (1001, 413), (10**12, 413)])
def test_a_body_that_is_said_to_be_too_long_is_refused_unread(
    client: TestClient, length: int, status: int
) -> None:
    answer = client.post("/", headers={"Content-Length": str(length)}, content=b"abc")

    assert answer.status_code == status
