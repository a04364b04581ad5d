"""Each kind of fault, as a bare socket sees it."""

import base64
import contextlib
import re
import socket
from collections.abc import Callable
from http.client import HTTPResponse
from io import BytesIO
from time import monotonic

import pytest
from PIL import Image

from src.simulator.client import ControlClient, ControlError
from src.simulator.config import SimulatorConfig
from src.simulator.serve import Simulator
from src.simulator.wire import process_died, process_gone
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


def test_a_hang_has_one_place(control: ControlClient) -> None:
    with pytest.raises(ControlError, match="after_tokens is missing"):
        control.add_fault("hang", where="after_tokens")
    with pytest.raises(ControlError, match="before any token"):
        control.add_fault("hang", where="before_headers", after_tokens=1)


def test_a_hang_before_the_headers_holds_a_slot(raw: Raw, control: ControlClient) -> None:
    control.add_fault("hang", where="before_headers")
    connection = raw.open_chat("count to 9", stream=True)
    control.wait(state="started")

    assert control.state().models["sim-chat"].busy == 1
    hang_up(connection)
    assert control.wait(state="ended")[0].first_byte is None


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


EOF = process_died().message
REFUSED = process_gone().message


def test_the_model_may_have_to_be_loaded_again_and_slowly(raw: Raw, control: ControlClient) -> None:
    raw.chat("repeat: one")
    before = control.state().now
    control.add_fault("loading", seconds=300)

    assert raw.chat("repeat: two").status == 200

    assert control.summary().loads["sim-chat"] == 2
    assert control.state().now - before > 300


def test_a_model_at_work_is_not_unloaded_under_somebody(raw: Raw, control: ControlClient) -> None:
    control.hold()
    first = raw.open_chat("repeat: one")
    control.wait(state="started")
    control.add_fault("loading")

    second = raw.open_chat("repeat: two")
    control.wait(state="started", count=2)
    control.release()
    control.wait(state="ended", count=2)

    assert control.summary().loads["sim-chat"] == 1
    assert control.faults()[0].matched == 0
    first.close()
    second.close()


def test_a_server_that_starts_is_alive_and_at_work_but_not_ready(standing: Simulator) -> None:
    raw, control = Raw(standing), standing.control
    control.add_fault("starting", seconds=5, when={"times": 1})

    first = raw.get("/readyz")
    control.advance(4.9)
    second = raw.get("/readyz")
    others = [raw.get("/healthz").status, raw.get("/v1/models").status]
    control.advance(0.1)

    assert (first.status, second.status, others) == (503, 503, [200, 200])
    assert first.body == b'{"status":"starting","reason":"startup preload in progress"}'
    assert raw.get("/readyz").status == 200


def test_a_load_can_run_out_of_memory_and_arms_the_cooldown(
    raw: Raw, control: ControlClient
) -> None:
    control.add_fault("oom", at="load")

    failed, cooling = raw.chat("hello"), raw.chat("hello")

    assert failed.status == 500
    assert "could not load model: rpc error" in failed.json["error"]["message"]
    assert "out of memory" in failed.json["error"]["message"]
    assert (cooling.status, cooling.headers["retry-after"]) == (503, "10")


def test_work_that_runs_out_of_memory_kills_its_process(raw: Raw, control: ControlClient) -> None:
    control.add_fault("oom", when={"times": 1})

    answer = raw.image("fox")

    assert answer.status == 500
    assert "out of memory" in answer.json["error"]["message"]
    assert control.state().models["sim-image"].state == "crashed"
    assert raw.image("fox").json["error"]["message"] == REFUSED


def test_a_crash_in_a_stream_is_an_event_and_takes_the_neighbours_along(
    standing: Simulator,
) -> None:
    raw, control = Raw(standing), standing.control
    control.load("sim-chat")
    neighbour = raw.open_chat("count to 1000")
    control.wait(state="started")
    control.add_fault("crash", after_tokens=3, when={"times": 1})
    waiting = [raw.open_chat("count to 9", stream=True)]
    control.wait(state="started", count=2)
    waiting.append(raw.open_chat("count to 9"))
    control.wait(state="arrived", count=3)

    control.advance(1)

    stream, queued = (read_all_of(connection) for connection in waiting)
    assert stream.count(b'"content":"') == 3
    assert stream.count(f'"message":"{EOF}"'.encode()) == 1
    assert stream.endswith(b"data: [DONE]\n\n")
    assert EOF.encode() in queued
    assert EOF.encode() in read_all_of(neighbour)
    endings = {it.number: it.ending for it in control.wait(state="ended", count=3)}
    assert endings == {1: "refused", 2: "fault:a1", 3: "refused"}


def test_after_a_crash_requests_fail_until_the_next_health_check(standing: Simulator) -> None:
    raw, control = Raw(standing), standing.control
    control.load("sim-chat")
    control.advance(5)
    control.crash("sim-chat")

    during = raw.chat("hello")
    control.advance(24.9)
    still = raw.chat("hello")
    listed = raw.get("/system").json["loaded_models"]
    control.advance(0.1)
    after = raw.get("/system").json["loaded_models"]
    again = raw.open_chat("repeat: back")
    control.wait(state="waiting")
    control.advance(2)

    assert [during.status, still.status] == [500, 500]
    assert during.json["error"]["message"] == still.json["error"]["message"] == REFUSED
    assert (listed, after) == ([{"id": "sim-chat"}], [])
    assert b'"content":"back"' in read_all_of(again)
    assert control.summary().loads["sim-chat"] == 2


def test_a_picture_can_be_lost_after_some_steps(raw: Raw, control: ControlClient) -> None:
    control.add_fault("crash", after_steps=4)

    answer = raw.image("fox")

    assert (answer.status, answer.json["error"]["message"]) == (500, EOF)
    assert control.requests()[0].done == 4


def test_a_crash_loses_a_picture_that_nobody_waits_for_any_more(standing: Simulator) -> None:
    raw, control = Raw(standing), standing.control
    control.load("sim-image")
    connection = raw.open_image("fox")
    control.wait(state="started")
    hang_up(connection)
    control.wait(state="ended")

    control.crash("sim-image")

    (entry,) = control.wait(state="settled")
    assert (entry.ending, entry.worked_on, entry.done) == ("client_left", True, 0)


def test_a_crash_reaches_who_stands_at_the_gate(raw: Raw, control: ControlClient) -> None:
    control.hold()
    connections = [raw.open_chat("hello"), raw.open_image("fox")]
    control.wait(state="started", count=2)

    control.crash("sim-chat")
    control.crash("sim-image")

    assert all(EOF.encode() in read_all_of(connection) for connection in connections)
    assert control.state().held == []


def test_without_a_process_nothing_crashes(control: ControlClient) -> None:
    with pytest.raises(ControlError, match="sim-chat is not in memory") as caught:
        control.crash("sim-chat")
    assert caught.value.status == 409


def test_an_answer_can_drip(standing: Simulator) -> None:
    control = standing.control
    control.load("sim-chat")
    control.add_fault("drip", bytes=1, delay=1)
    connection = Raw(standing).open_chat("hello", stream=True)
    control.wait(state="started")

    control.advance(0.5)
    assert connection.recv(1000).endswith(b"\r\n\r\n1\r\nd\r\n")
    control.advance(1)
    assert connection.recv(1000) == b"1\r\na\r\n"
    connection.close()


def test_drops_split_characters_and_lines(raw: Raw, control: ControlClient) -> None:
    control.add_fault("drip", bytes=1)

    with raw.open_chat("repeat: ü", stream=True) as connection:
        seen = b""
        while not seen.endswith(b"\r\n0\r\n\r\n"):
            seen += connection.recv(65536)

    pieces = seen.partition(b"\r\n\r\n")[2].removesuffix(b"0\r\n\r\n")
    assert not re.sub(rb"1\r\n.\r\n", b"", pieces, flags=re.DOTALL)
    assert b"1\r\n\xc3\r\n1\r\n\xbc\r\n" in pieces


def test_what_drips_adds_up_to_the_whole_answer(raw: Raw, control: ControlClient) -> None:
    whole = raw.image("fox", seed=3)
    control.add_fault("drip", bytes=999)

    dripped = raw.image("fox", seed=3)

    assert dripped.json["data"] == whole.json["data"]
    assert dripped.headers["content-length"] == whole.headers["content-length"]


def test_a_slow_request_takes_its_time_for_the_load_too(standing: Simulator) -> None:
    raw, control = Raw(standing), standing.control
    control.add_fault("slow", factor=10, match={"model": "sim-chat"})
    slow = raw.open_chat("tokens 40")
    control.wait(state="waiting")

    control.advance(10)
    (entry,) = control.wait(state="started")
    assert entry.started == 10
    control.advance(9)
    assert control.requests()[0].ended is None
    control.advance(2)
    assert (control.requests()[0].ended or 0) > 20
    slow.close()


def test_everybody_can_be_refused_for_a_while(raw: Raw, control: ControlClient) -> None:
    control.hold()
    bystander = raw.open_chat("hello")
    control.wait(state="started")
    control.add_fault("refuse", seconds=0.2, match={"model": "sim-image"}, when={"times": 1})
    cause = raw.open_image("fox")

    for connection in (cause, bystander):
        with pytest.raises(ConnectionResetError):
            read_all(connection)
        connection.close()
    with pytest.raises(ConnectionRefusedError):
        raw.get("/healthz")

    eventually(lambda: raw.get("/healthz").status == 200)
    assert control.requests()[1].ending == "fault:a1"


def test_a_simulator_that_refuses_can_be_stopped() -> None:
    with Simulator(SimulatorConfig(speed=0)) as simulator:
        simulator.control.add_fault("refuse", seconds=3600)
        connection = Raw(simulator).open_chat("hello")
        with pytest.raises(ConnectionResetError):
            read_all(connection)
        connection.close()

        simulator.stop()

        assert repr(simulator).endswith(" stopped>")


def eventually(holds: Callable[[], bool]) -> None:
    """Ask again and again while nobody answers, for ten seconds at most."""
    end = monotonic() + 10
    while monotonic() < end:
        with contextlib.suppress(ConnectionRefusedError):
            if holds():
                return
    raise AssertionError("it never came true")


def read_all_of(connection: socket.socket) -> bytes:
    """Read the body of the one answer on a connection that stays open."""
    with connection, HTTPResponse(connection) as response:
        response.begin()
        return response.read()
