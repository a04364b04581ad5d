"""OpenAI's own client: files and batches."""

import base64
import json
from collections.abc import Mapping
from typing import Any, Literal

import httpx2
import openai
import pytest
from openai import OpenAI
from openai.types import Batch, FileObject

from tests.clients.conftest import KEY
from tests.routes.house import CANARY, House, png

CHAT: Literal["/v1/chat/completions"] = "/v1/chat/completions"


def lines(*bodies: Mapping[str, Any], url: str = CHAT) -> bytes:
    return b"".join(
        json.dumps({"custom_id": f"line-{n}", "method": "POST", "url": url, "body": body}).encode()
        + b"\n"
        for n, body in enumerate(bodies)
    )


def said(text: str, **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], "model": "sim-chat", **fields}


def sent(client: OpenAI, content: bytes) -> FileObject:
    return client.files.create(file=("in.jsonl", content), purpose="batch")


def begun(client: OpenAI, content: bytes, endpoint: Any = CHAT, **fields: Any) -> Batch:
    asked: dict[str, Any] = {"completion_window": "24h", "endpoint": endpoint, **fields}
    return client.batches.create(input_file_id=sent(client, content).id, **asked)


def ended(client: OpenAI, batch: Batch) -> Batch:
    """Ask until a batch has ended."""
    while batch.status not in ("completed", "failed", "expired", "cancelled"):
        batch = client.batches.retrieve(batch.id)
    return batch


def inside(client: OpenAI, file_id: str | None) -> list[dict[str, Any]]:
    """Read the lines of a file; none if there is no file."""
    if file_id is None:
        return []
    return [json.loads(line) for line in client.files.content(file_id).text.splitlines()]


def bodies(client: OpenAI, batch: Batch) -> dict[str, Any]:
    """Return what each line was answered, good or bad, by its name."""
    told = inside(client, batch.output_file_id) + inside(client, batch.error_file_id)
    return {line["custom_id"]: line["response"]["body"] for line in told}


# A batch from its beginning to its end


def test_a_batch_of_conversations_is_answered(client: OpenAI) -> None:
    content = lines(said("repeat: one"), said("repeat: two"), said("hi", model="no-such"))

    batch = begun(client, content, metadata={"for": "tests"})
    assert (batch.status, batch.metadata) == ("validating", {"for": "tests"})
    assert batch.expires_at == batch.created_at + 86_400
    batch = ended(client, batch)

    assert batch.status == "completed"
    assert batch.request_counts is not None
    assert batch.request_counts.model_dump() == {"total": 3, "completed": 2, "failed": 1}
    assert batch.completed_at
    assert batch.in_progress_at
    assert batch.finalizing_at
    output = inside(client, batch.output_file_id)
    texts = {o["custom_id"]: o["response"]["body"]["choices"][0]["message"] for o in output}
    assert {name: message["content"] for name, message in texts.items()} == {
        "line-0": "one",
        "line-1": "two",
    }
    [failed] = inside(client, batch.error_file_id)
    assert (failed["custom_id"], failed["error"]) == ("line-2", None)
    assert failed["response"]["status_code"] == 404
    assert failed["response"]["body"]["error"]["code"] == "model_not_found"


def test_an_answer_is_what_the_endpoint_itself_answers(client: OpenAI) -> None:
    batch = ended(client, begun(client, lines(said("repeat: same", stream=True))))

    [answer] = bodies(client, batch).values()
    with httpx2.Client(base_url=str(client.base_url), trust_env=False) as http:
        http.headers["Authorization"] = f"Bearer {KEY}"
        alone = http.post("chat/completions", json=said("repeat: same")).json()
    own = ("id", "created")
    assert {k: v for k, v in answer.items() if k not in own} == {
        k: v for k, v in alone.items() if k not in own
    }


@pytest.mark.parametrize(
    ("endpoint", "body", "told"),
    [
        ("/v1/completions", {"prompt": "once", "model": "sim-chat"}, "choices"),
        ("/v1/embeddings", {"input": "a red fox", "model": "sim-embed"}, "data"),
        ("/v1/moderations", {"input": "a red fox"}, "results"),
        ("/v1/rerank", {"query": "fox", "documents": ["fox", "cat"]}, "results"),
    ],
)
def test_other_endpoints_answer_in_batches_too(
    client: OpenAI, endpoint: str, body: dict[str, Any], told: str
) -> None:
    batch = ended(client, begun(client, lines(body, url=endpoint), endpoint))

    [answer] = bodies(client, batch).values()
    assert answer[told]


def test_a_line_that_fails_is_answered_as_the_endpoint_would(client: OpenAI, house: House) -> None:
    url = "/v1/embeddings"
    told = {"input": "a red fox", "model": "sim-embed"}
    batch = ended(client, begun(client, lines(told, {**told, "dimensions": 7}, url=url), url))

    [failed] = inside(client, batch.error_file_id)
    assert failed["custom_id"] == "line-1"
    assert failed["response"]["status_code"] == 400
    error = failed["response"]["body"]["error"]
    assert (error["param"], error["job_id"]) == ("dimensions", failed["response"]["request_id"])
    with httpx2.Client(base_url=house.url, trust_env=False) as http:
        http.headers["Authorization"] = f"Bearer {KEY}"
        assert http.get(f"/jobs/{error['job_id']}").status_code == 200


def test_pictures_come_as_addresses_or_inside(client: OpenAI) -> None:
    url = "/v1/images/generations"
    drawn = {"prompt": "a red fox", "model": "sim-image", "size": "256x256"}
    content = lines(drawn, {**drawn, "response_format": "b64_json"}, url=url)

    batch = ended(client, begun(client, content, url))

    told = bodies(client, batch)
    with httpx2.Client(trust_env=False) as http:
        fetched = http.get(told["line-0"]["data"][0]["url"]).raise_for_status().content
    assert fetched.startswith(b"\x89PNG")
    assert base64.b64decode(told["line-1"]["data"][0]["b64_json"]).startswith(b"\x89PNG")


def test_pictures_are_changed_in_batches(client: OpenAI) -> None:
    url = "/v1/images/edits"
    image = f"data:image/png;base64,{base64.b64encode(png()).decode()}"
    body = {"prompt": "blue", "images": [{"image_url": image}], "response_format": "b64_json"}

    batch = ended(client, begun(client, lines(body, url=url), url))

    [answer] = bodies(client, batch).values()
    assert answer["data"][0]["b64_json"]


# What is wrong with a batch


def test_what_is_wrong_with_a_file_is_said_by_line(client: OpenAI) -> None:
    good = lines(said(CANARY))
    batch = ended(client, begun(client, good + good + b"{" + CANARY.encode() + b"\n"))

    assert batch.status == "failed"
    assert batch.failed_at
    assert batch.errors is not None
    found = [(e.code, e.line, e.param) for e in batch.errors.data or []]
    assert found == [("duplicate_custom_id", 2, "custom_id"), ("invalid_json_line", 3, None)]
    assert CANARY not in batch.model_dump_json()
    assert batch.output_file_id is None


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"completion_window": "soon"}, "completion_window"),
        ({"completion_window": "8d"}, "completion_window"),
        ({"endpoint": "/v1/audio/speech"}, "endpoint"),
        ({"metadata": {"k": "v" * 513}}, "metadata"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 1}}, "output_expires_after"),
    ],
)
def test_what_is_wrong_with_the_call_is_said_at_once(
    client: OpenAI, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        begun(client, lines(said("hi")), **fields)

    assert str(caught.value.param).startswith(param)


def test_a_batch_of_a_file_that_is_not_there_is_refused(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.batches.create(input_file_id="file-none", endpoint=CHAT, completion_window="24h")

    assert caught.value.code == "file_not_found"


def test_a_batch_that_is_handed_over_twice_with_one_key_is_one_batch(client: OpenAI) -> None:
    file = sent(client, lines(said("repeat: hi")))
    asked: dict[str, Any] = {
        "input_file_id": file.id,
        "completion_window": "24h",
        "extra_headers": {"Idempotency-Key": f"once-{file.id}"},
    }

    first, second = (client.batches.create(endpoint=CHAT, **asked) for _ in range(2))
    with pytest.raises(openai.ConflictError) as caught:
        client.batches.create(endpoint="/v1/embeddings", **asked)

    assert first.id == second.id
    assert caught.value.code == "idempotency_conflict"


# Cancelling and listing


def test_a_batch_is_cancelled(client: OpenAI, house: House) -> None:
    house.sim.hold()
    batch = begun(client, lines(*(said(f"repeat: {n}") for n in range(200))))
    while client.batches.retrieve(batch.id).status != "in_progress":
        pass

    cancelling = client.batches.cancel(batch.id)
    assert (cancelling.status, bool(cancelling.cancelling_at)) == ("cancelling", True)
    house.sim.release()
    batch = ended(client, batch)

    assert batch.status == "cancelled"
    assert batch.cancelled_at
    told = inside(client, batch.output_file_id) + inside(client, batch.error_file_id)
    assert sorted(line["custom_id"] for line in told) == sorted(f"line-{n}" for n in range(200))
    left = [line for line in told if line["error"]]
    assert {line["error"]["code"] for line in left} == {"batch_cancelled"}


def test_a_file_that_is_being_read_cannot_be_deleted(client: OpenAI, house: House) -> None:
    house.sim.hold()
    batch = begun(client, lines(said("hi")))

    with pytest.raises(openai.ConflictError):
        client.files.delete(batch.input_file_id)


def test_batches_are_listed_page_by_page(client: OpenAI) -> None:
    made = [begun(client, lines(said("repeat: hi"))).id for _ in range(3)]

    page = client.batches.list(limit=2)

    assert [batch.id for batch in page.data] == [made[2], made[1]]
    assert page.has_more
    listed = [batch.id for batch in client.batches.list(limit=2)]
    assert listed[:3] == made[::-1]
    assert len(set(listed)) == len(listed)


# Files


def test_a_file_is_sent_looked_at_fetched_and_deleted(client: OpenAI) -> None:
    content = lines(said("hi"))

    file = sent(client, content)

    assert (file.bytes, file.filename, file.purpose) == (len(content), "in.jsonl", "batch")
    assert file.expires_at == file.created_at + 2_592_000
    assert client.files.retrieve(file.id) == file
    assert client.files.content(file.id).read() == content
    assert client.files.wait_for_processing(file.id).status == "processed"
    assert client.files.delete(file.id).deleted
    for gone in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError):
            gone(file.id)


def test_a_file_may_be_kept_shorter(client: OpenAI) -> None:
    file = client.files.create(
        file=("in.jsonl", b"{}"),
        purpose="batch",
        expires_after={"anchor": "created_at", "seconds": 3600},
    )

    assert file.expires_at == file.created_at + 3600


def test_files_are_listed_page_by_page(client: OpenAI) -> None:
    made = [sent(client, b"{}").id for _ in range(3)]

    newest = [file.id for file in client.files.list(limit=2)]
    oldest = [file.id for file in client.files.list(limit=2, order="asc")]

    assert newest[:3] == made[::-1]
    assert oldest == newest[::-1]
    assert {file.id for file in client.files.list(purpose="batch_output")}.isdisjoint(made)


def test_files_are_for_batches_only(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.files.create(file=("cat.png", png()), purpose="vision")

    assert caught.value.param == "purpose"
