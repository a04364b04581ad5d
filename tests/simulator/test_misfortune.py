"""Each kind of fault, as a bare socket sees it."""

import base64
from collections.abc import Callable
from io import BytesIO

import pytest
from PIL import Image

from src.simulator.client import ControlClient
from tests.simulator.raw import Raw, hang_up, read_all


def test_a_status_is_any_error_in_localais_envelope(raw: Raw, control: ControlClient) -> None:
    control.add_fault("status", status=429, retry_after=2, message="too many")

    answer = raw.chat("hello", stream=True)

    assert answer.status == 429
    assert answer.headers["retry-after"] == "2"
    assert answer.json == {"error": {"code": 429, "message": "too many", "type": ""}}
    assert control.requests()[0].ending == "fault:a1"


def test_a_path_that_is_only_looked_at_can_fail_too(raw: Raw, control: ControlClient) -> None:
    control.add_fault("status", status=503, match={"path": "/readyz"})

    assert raw.get("/readyz").status == 503
    assert raw.get("/healthz").status == 200


def test_a_rejection_has_no_code(raw: Raw, control: ControlClient) -> None:
    control.add_fault("rejected", retry_after=3)

    answer = raw.chat("hello")

    assert (answer.status, answer.headers["retry-after"]) == (503, "3")
    assert set(answer.json["error"]) == {"type", "message"}
    assert answer.json["error"]["type"] == "admission_rejected"


def test_a_failing_load_is_a_500_then_a_cooldown_that_doubles(
    raw: Raw, control: ControlClient
) -> None:
    control.add_fault("load_failure", times=2, when={"times": 1})

    failed, cooling = raw.chat("hello"), raw.chat("hello")
    control.advance(10)
    again = raw.chat("hello", stream=True)

    assert failed.status == 500
    assert "could not load model" in failed.json["error"]["message"]
    assert (cooling.status, cooling.headers["retry-after"]) == (503, "10")
    assert again.status == 200
    assert again.events[0]["error"]["type"] == "server_error"
    assert again.events[1] == "[DONE]"
    cooldown = control.state().models["sim-chat"].cooldown_until
    assert cooldown is not None
    assert cooldown - control.state().now > 15


def test_a_reset_before_any_byte(raw: Raw, control: ControlClient) -> None:
    control.add_fault("reset")
    connection = raw.open_chat("hello", stream=True)

    with pytest.raises(ConnectionResetError):
        read_all(connection)
    connection.close()


def test_a_reset_in_the_middle(raw: Raw, control: ControlClient) -> None:
    control.patch(speed=10)
    control.load("sim-chat")
    control.add_fault("reset", after_tokens=5)
    connection = raw.open_chat("count to 100", stream=True)
    seen = connection.recv(200)

    with pytest.raises(ConnectionResetError):
        read_all(connection)

    connection.close()
    assert seen.startswith(b"HTTP/1.1 200 ")
    entry = control.wait(state="ended")[0]
    assert (entry.ending, entry.done) == ("fault:a1", 5)
    assert control.state().models["sim-chat"].busy == 0


def test_a_cut_stream_has_no_end(raw: Raw, control: ControlClient) -> None:
    control.add_fault("cut", after_tokens=3)

    body = read_all(raw.open_chat("count to 100", stream=True))

    assert body.count(b'"content":"') == 3
    assert b"[DONE]" not in body
    assert not body.endswith(b"0\r\n\r\n")


def test_a_cut_answer_is_half_as_long_as_promised(raw: Raw, control: ControlClient) -> None:
    control.add_fault("cut")

    head, _, body = read_all(raw.open_chat("tokens 100")).partition(b"\r\n\r\n")

    length = next(line for line in head.split(b"\r\n") if line.startswith(b"content-length"))
    assert int(length.split(b":")[1]) // 2 == len(body)


def test_a_stream_can_fail_after_a_200(raw: Raw, control: ControlClient) -> None:
    control.add_fault("stream_error", after_tokens=2, message="it broke")

    answer = raw.chat("count to 9", stream=True)
    single = raw.chat("count to 9")

    assert answer.status == 200
    assert answer.events[-2:] == [
        {"error": {"code": "server_error", "message": "it broke", "type": "server_error"}},
        "[DONE]",
    ]
    assert len(answer.events) == 1 + 2 + 2
    assert (single.status, single.json["error"]["message"]) == (500, "it broke")


def test_a_fault_that_would_come_too_late_comes_at_the_end(
    raw: Raw, control: ControlClient
) -> None:
    control.add_fault("stream_error", after_tokens=500)

    assert "error" in raw.chat("count to 2", stream=True).events[-2]
    assert raw.image("fox").status == 500


def test_a_stream_without_its_done(raw: Raw, control: ControlClient) -> None:
    control.add_fault("no_done")

    answer = raw.chat("count to 2", stream=True)

    assert answer.events[-1]["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize(("after_tokens", "busy"), [(None, 0), (0, 1), (3, 1)])
def test_a_hang_lasts_until_the_client_leaves(
    raw: Raw, control: ControlClient, after_tokens: int | None, busy: int
) -> None:
    control.add_fault("hang", after_tokens=after_tokens)
    connection = raw.open_chat("count to 9", stream=True)
    control.wait(state="started" if busy else "arrived")

    assert control.state().models["sim-chat"].busy == busy
    hang_up(connection)

    entry = control.wait(state="ended")[0]
    assert (entry.ending, entry.done) == ("client_left", after_tokens or 0)
    assert control.state().models["sim-chat"].busy == 0


def test_a_hang_of_some_seconds_ends_by_itself(raw: Raw, control: ControlClient) -> None:
    control.add_fault("hang", seconds=60)

    assert raw.chat("repeat: at last", stream=True).content == "at last"
    assert control.state().now > 60


def is_cut_json(body: bytes) -> bool:
    return body.startswith(b'{"created":1')


def is_page(body: bytes) -> bool:
    return b"<html>" in body


def is_no_text(body: bytes) -> bool:
    return b"\xff" in body


def is_nothing(body: bytes) -> bool:
    return not body


def is_wrong(body: bytes) -> bool:
    return b'"choices": {}' in body


@pytest.mark.parametrize(
    ("what", "recognised"),
    [
        ("truncated_json", is_cut_json),
        ("html", is_page),
        ("wrong_type", is_wrong),
        ("not_utf8", is_no_text),
        ("empty_body", is_nothing),
    ],
)
def test_garbage_comes_with_a_200(
    raw: Raw, control: ControlClient, what: str, recognised: Callable[[bytes], bool]
) -> None:
    control.add_fault("garbage", what=what)

    answers = [raw.chat("hello"), raw.image("fox"), raw.get("/v1/models")]

    assert [answer.status for answer in answers] == [200, 200, 200]
    assert all(recognised(answer.body) for answer in answers)


def test_garbage_in_a_stream_is_an_event(raw: Raw, control: ControlClient) -> None:
    control.add_fault("garbage", what="truncated_json")

    answer = raw.chat("hello", stream=True)

    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.body.startswith(b'data: {"created":1')
    assert answer.body.endswith(b"\n\ndata: [DONE]\n\n")


def test_a_body_can_claim_to_be_compressed(raw: Raw, control: ControlClient) -> None:
    control.add_fault("garbage", what="bad_gzip")

    answer = raw.chat("hello")

    assert answer.headers["content-encoding"] == "gzip"
    assert answer.body == b"this is not gzip"


def test_a_picture_can_be_missing(raw: Raw, control: ControlClient) -> None:
    control.add_fault("empty_image")

    as_base64 = raw.image("fox")
    url = raw.image("fox", response_format="url").json["data"][0]["url"]

    assert as_base64.json["data"] == [{"embedding": None, "index": 0}]
    assert raw.get("/generated-images/" + url.rpartition("/")[2]).body == b""


def test_a_picture_can_be_cut_short(raw: Raw, control: ControlClient) -> None:
    control.add_fault("corrupt_image")

    data = base64.b64decode(raw.image("fox").json["data"][0]["b64_json"])

    with Image.open(BytesIO(data)) as picture, pytest.raises(OSError, match="truncated"):
        picture.load()
