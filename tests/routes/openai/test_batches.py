"""Files and batches at the door: who may see them, how large they may be, where lines wait."""

import json
from collections.abc import AsyncGenerator
from typing import Any

import httpx2
import pytest

from src.routes.errors import ErrorBody, ErrorDetail
from tests.routes.house import CANARY, House, house

CHAT = "/v1/chat/completions"
KEYS = {name: f"key-of-{name}" for name in ("ann", "bob")}
MIB = 2**20


def key(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {KEYS[name]}"}


def line(number: int) -> bytes:
    body = {"messages": [{"role": "user", "content": f"repeat: {CANARY}"}]}
    told = {"custom_id": f"line-{number}", "method": "POST", "url": CHAT, "body": body}
    return json.dumps(told).encode() + b"\n"


def error_of(response: httpx2.Response) -> ErrorDetail:
    assert CANARY not in response.text
    return ErrorBody.model_validate(response.json()).error


async def send(http: httpx2.AsyncClient, content: bytes, **form: Any) -> httpx2.Response:
    return await http.post(
        "/v1/files", files={"file": ("in.jsonl", content)}, data={"purpose": "batch", **form}
    )


async def begin(http: httpx2.AsyncClient, *numbers: int) -> dict[str, Any]:
    sent = await send(http, b"".join(map(line, numbers)))
    asked = {
        "input_file_id": sent.json()["id"],
        "endpoint": CHAT,
        "completion_window": "1h",
    }
    begun = await http.post("/v1/batches", json=asked)
    assert begun.status_code == 200, begun.text
    return dict(begun.json())


async def test_there_are_no_files_and_batches_of_others() -> None:
    with house(api_keys=KEYS) as built:
        async with built.http() as http:
            http.headers.update(key("ann"))
            batch = await begin(http, 1)
            file = batch["input_file_id"]
            http.headers.update(key("bob"))
            paths = (f"/v1/files/{file}", f"/v1/files/{file}/content", f"/v1/batches/{batch['id']}")
            got = [await http.get(path) for path in paths]
            cancelled = await http.post(f"/v1/batches/{batch['id']}/cancel")
            deleted = await http.delete(f"/v1/files/{file}")
            listed = [await http.get(path) for path in ("/v1/files", "/v1/batches")]
            after = await http.get("/v1/files", params={"after": file})
            begun = await http.post(
                "/v1/batches",
                json={"input_file_id": file, "endpoint": CHAT, "completion_window": "24h"},
            )

    assert [a.status_code for a in (*got, cancelled, deleted, begun)] == [404] * 6
    assert [a.json()["data"] for a in (*listed, after)] == [[], [], []]


@pytest.fixture(scope="module")
def small() -> Any:
    """A server that takes no bodies of more than 1 MiB, but files of 2 MiB."""
    with house(body_limit_mb=1, max_file_mb=2, files_mb=5) as built:
        yield built


async def test_a_file_may_be_larger_than_any_other_body(small: House) -> None:
    async with small.http() as http:
        sent = await send(http, b"x" * (2 * MIB))
        fetched = await http.get(f"/files/{sent.json()['id']}/content")
        deleted = await http.delete(f"/files/{sent.json()['id']}")

    assert (sent.status_code, deleted.status_code) == (200, 200)
    assert len(fetched.content) == 2 * MIB
    assert fetched.headers["x-content-type-options"] == "nosniff"


async def test_a_file_that_is_too_large_is_refused_however_it_comes(small: House) -> None:
    async def pieces() -> AsyncGenerator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
        for _ in range(9):
            yield b"x" * (MIB // 4)
        yield b"\r\n--b--\r\n"

    async with small.http() as http:
        declared = await send(http, b"x" * (2 * MIB + 70_000))
        undeclared = await http.post(
            "/v1/files",
            content=pieces(),
            headers={"Content-Type": "multipart/form-data; boundary=b"},
        )
        left = (await http.get("/v1/files")).json()["data"]

    assert (declared.status_code, undeclared.status_code) == (413, 413)
    assert not left


async def test_all_files_together_have_a_limit(small: House) -> None:
    async with small.http() as http:
        sent = [await send(http, b"x" * (2 * MIB)) for _ in range(3)]
        for each in sent[:2]:
            await http.delete(f"/v1/files/{each.json()['id']}")

    assert [each.status_code for each in sent] == [200, 200, 507]
    assert error_of(sent[2]).code == "storage_failed"


@pytest.mark.parametrize(
    ("form", "param"),
    [
        ({"data": {"purpose": "batch"}}, "file"),
        ({"files": {"file": ("x", b"x")}}, "purpose"),
        ({"files": {"file": ("x", b"x")}, "data": {"purpose": "vision"}}, "purpose"),
        ({"files": {"file": ("x", b"x")}, "data": {"purpose": "batch", "odd": "1"}}, "odd"),
        (
            {
                "files": {"file": ("x", b"x")},
                "data": {"purpose": "batch", "expires_after[seconds]": "1"},
            },
            "expires_after_seconds",
        ),
    ],
)
async def test_a_form_that_is_wrong_is_refused(small: House, form: Any, param: str) -> None:
    async with small.http() as http:
        if "files" not in form:
            form = {"files": {"other": ("x", b"x")}, **form}
        answer = await http.post("/v1/files", **form)

    assert answer.status_code == 400
    assert error_of(answer).param == param


async def test_a_file_is_sent_as_a_form(small: House) -> None:
    async with small.http() as http:
        answer = await http.post("/v1/files", json={"purpose": "batch"})

    assert answer.status_code == 415


async def test_lines_wait_behind_everything_else(small: House) -> None:
    asked = {"messages": [{"role": "user", "content": "repeat: first"}]}
    async with small.http() as http:
        small.sim.hold()
        batch = await begin(http, *range(20))
        await small.until("/queue-status", lambda s: s["queues"]["txt2txt"]["waiting"] > 10)
        urgent = await http.post(CHAT, json=asked, headers={"Prefer": "respond-async"})
        small.sim.release()
        await small.until(f"/v1/batches/{batch['id']}", lambda b: b["status"] == "completed")

    assert (urgent.status_code, urgent.json()["position"]) == (202, 0)
