import json
import socket

import pytest
from starlette.types import Message, Scope

from src.simulator.app import Application
from src.simulator.client import ControlClient
from src.simulator.config import SimulatorConfig
from src.simulator.serve import Simulator
from src.simulator.simulation import Simulation
from tests.simulator.raw import Raw, chat_body, hang_up, read_all

CHAT = "/v1/chat/completions"


def test_an_unknown_model_is_a_404_in_localais_words(raw: Raw) -> None:
    answer = raw.chat("hello", model="nobody")

    assert answer.status == 404
    assert answer.body == (
        b'{"error":{"code":404,"message":"model \\"nobody\\" not found. To see available models, '
        b'call GET /v1/models","type":"invalid_request_error"}}'
    )


@pytest.mark.parametrize("name", ["org/model", "sim", "loose-file"])
def test_a_name_with_a_slash_or_part_of_an_installed_one_is_a_500(raw: Raw, name: str) -> None:
    answer = raw.chat("hello", model=name, stream=True)

    assert answer.status == 500
    assert answer.json["error"]["type"] == ""
    assert "could not load model" in answer.json["error"]["message"]


def test_unknown_paths_and_methods_are_errors_of_the_framework(raw: Raw) -> None:
    assert raw.get("/v1/images/edits").json == {
        "error": {"code": 404, "message": "Resource not found", "type": ""}
    }
    assert raw.get(CHAT).json == {
        "error": {"code": 405, "message": "code=405, message=Method Not Allowed", "type": ""}
    }


def test_a_slash_at_the_end_makes_no_difference(raw: Raw) -> None:
    assert raw.get("/v1/models/").status == 200


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b'{"messages": "hello"}', b'{"max_tokens": "5"}', b'{"metadata":{"a":1}}']
)
def test_a_body_that_does_not_parse_is_a_400(raw: Raw, body: bytes) -> None:
    answer = raw.send("POST", CHAT, body)

    assert answer.status == 400
    assert "failed parsing request body" in answer.json["error"]["message"]


def test_unknown_fields_and_nulls_are_ignored(raw: Raw) -> None:
    assert raw.chat("repeat: hi", unheard_of=1, stream=None, seed=None).status == 200


def test_only_json_is_read(raw: Raw) -> None:
    body = json.dumps(chat_body("hello", model="nobody")).encode()

    text = raw.send("POST", CHAT, body, Content_Type="text/plain")
    form = raw.send("POST", CHAT, body, Content_Type="application/x-www-form-urlencoded")
    empty = raw.send("POST", CHAT, b"")

    assert text.status == 400
    assert form.json["model"] == "sim-chat"
    assert empty.json["model"] == "sim-chat"


def test_every_answer_says_that_it_is_simulated(raw: Raw) -> None:
    answers = [
        raw.get("/healthz"),
        raw.get("/nowhere"),
        raw.get("/sim"),
        raw.get("/sim/nowhere"),
        raw.chat("hello"),
        raw.chat("hello", stream=True),
        raw.image("fox"),
        raw.post("/v1/completions", {"prompt": "hello", "stream": True}),
        raw.post("/v1/embeddings", {"input": "fox"}),
        raw.post("/v1/rerank", {"query": "fox", "documents": ["fox"]}),
        raw.post("/tts", {"input": "fox"}),
        raw.post("/tts", {"input": "fox", "stream": True}),
        raw.post("/v1/sound-generation", {"text": "rain"}),
        raw.post("/video", {"prompt": "fox", "width": 32, "height": 32}),
        raw.post("/v1/audio/transcriptions", {}),
        raw.post("/v1/images/inpainting", {}),
    ]

    assert {answer.headers["x-simulated"] for answer in answers} == {"inference-manager"}


def test_long_json_is_compressed_on_demand_but_never_a_chat(raw: Raw) -> None:
    long = chat_body("tokens 2000")

    chat = raw.post(CHAT, long, Accept_Encoding="gzip")
    short = raw.get("/v1/models", Accept_Encoding="gzip")

    assert "content-encoding" not in chat.headers
    assert "content-encoding" not in short.headers


def test_a_body_over_the_limit_is_a_413_or_when_chunked_a_400() -> None:
    body = json.dumps(chat_body("x" * 3000)).encode()

    with Simulator(SimulatorConfig(speed=0, body_limit_mb=0.002)) as simulator:
        raw = Raw(simulator)
        whole = raw.send("POST", CHAT, body)
        with socket.create_connection(("127.0.0.1", simulator.port), 5) as connection:
            connection.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
                + f"{len(body):x}\r\n".encode()
                + body
                + b"\r\n0\r\n\r\n"
            )
            chunked = connection.recv(1000)
        still_there = raw.chat("repeat: hi")

    assert whole.status == 413
    assert whole.json["error"]["message"] == "code=413, message=Request Entity Too Large"
    assert chunked.startswith(b"HTTP/1.1 400 ")
    assert still_there.status == 200


def test_with_a_key_everything_but_health_asks_for_it() -> None:
    with Simulator(SimulatorConfig(speed=0, api_key="secret")) as simulator:
        raw = Raw(simulator)
        refused = raw.get("/v1/models")
        also_refused = [raw.get("/version"), raw.get("/generated-images/b641.png")]
        public = [raw.get("/healthz"), raw.get("/readyz")]
        shown = [
            raw.get("/v1/models", Authorization="Bearer secret"),
            raw.get("/v1/models", Authorization="secret"),
            raw.get("/v1/models", x_api_key="secret"),
            raw.get("/v1/models", xi_api_key="secret"),
            raw.get("/v1/models", Cookie="token=secret"),
        ]
        wrong = raw.get("/v1/models", Authorization="Bearer other")

    assert refused.status == 401
    assert refused.headers["www-authenticate"] == "Bearer"
    assert refused.body == (
        b'{"error":{"code":401,"message":"An authentication key is required",'
        b'"type":"invalid_request_error"}}'
    )
    assert [answer.status for answer in also_refused] == [401, 401]
    assert [answer.status for answer in public] == [200, 200]
    assert [answer.status for answer in shown] == [200] * 5
    assert wrong.status == 401


def test_a_client_that_leaves_during_a_load_aborts_it_and_arms_the_cooldown(
    raw: Raw, control: ControlClient
) -> None:
    control.patch(speed=1)
    connection = raw.open_chat("hello")
    control.wait(state="waiting")

    hang_up(connection)

    assert control.wait(state="ended")[0].ending == "client_left"
    assert control.state().models["sim-chat"].state == "cooling"
    cooling = raw.chat("hello")
    assert cooling.status == 503
    assert 1 <= int(cooling.headers["retry-after"]) <= 10
    assert cooling.json["error"]["message"] == (
        'model "sim-chat" load is in cooldown after a recent failure; retry after 10s'
    )


def test_a_load_that_lasts_makes_everyone_else_wait(raw: Raw, control: ControlClient) -> None:
    control.patch(speed=1)
    first, second = raw.open_chat("repeat: a"), raw.open_image("fox")
    control.wait(state="waiting", count=2)

    states = {name: model.state for name, model in control.state().models.items()}

    assert {name for name, state in states.items() if state != "unloaded"} == {"sim-chat"}
    assert states["sim-chat"] == "loading"
    control.patch(speed=0)
    control.wait(state="ended", count=2)
    first.close()
    second.close()


def test_two_requests_on_one_connection_are_answered_in_turn(raw: Raw) -> None:
    connection = raw.open_chat("repeat: first")
    connection.recv(4096)
    content = json.dumps(chat_body("repeat: second")).encode()

    connection.sendall(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        b"Content-Type: application/json\r\n"
        + f"Content-Length: {len(content)}\r\n\r\n".encode()
        + content
    )

    assert b'"content":"second"' in read_all(connection)


def test_a_whole_run_repeats() -> None:
    def run() -> list[object]:
        with Simulator(SimulatorConfig(speed=0, seed=5)) as simulator:
            raw, control = Raw(simulator), simulator.control
            control.add_fault("status", when={"probability": 0.3})
            answers: list[object] = []
            for number in range(60):
                if number % 6 == 5:
                    answer = raw.image(f"fox {number}", seed=None, size="32x32", step=1)
                else:
                    answer = raw.chat(f"hello {number}", stream=number % 2 == 0, max_tokens=9)
                content = answer.content if "event" in answer.headers["content-type"] else None
                body = None if content is not None else {**answer.json, "created": 0}
                answers.append((answer.status, content, body))
            ended = [(it.correlation_id, it.done, it.ending) for it in control.requests()]
            return [*answers, *ended]

    assert run() == run()


async def test_the_control_routes_are_for_this_machine_only() -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        raise AssertionError("nothing is read")

    scope: Scope = {
        "type": "http",
        "method": "GET",
        "path": "/sim/state",
        "query_string": b"",
        "headers": [],
        "client": ("192.0.2.1", 1234),
    }
    await Application(Simulation(SimulatorConfig()))(scope, receive, send)

    assert sent[0]["status"] == 404
