"""A whole run repeats: the same requests at the same moments, the same journal, the same bytes."""

import base64
import contextlib
import socket
from collections.abc import Sequence

from src.simulator.config import SimulatorConfig
from src.simulator.pictures import Wish, png
from src.simulator.profiles import PROFILES
from src.simulator.reports import RequestRecord
from src.simulator.serve import Simulator
from tests.simulator.raw import Raw, chat_body, hang_up, image_body

REQUESTS = 200
PICTURE = base64.b64encode(png(Wish("fox", width=64, height=64))).decode()


def order(number: int) -> tuple[str, dict[str, object]]:
    """The path and the body of the request of that number."""
    match number % 6:
        case 0 | 1:
            return "/v1/chat/completions", chat_body(f"hello {number}", stream=True, max_tokens=20)
        case 2:
            return "/v1/chat/completions", chat_body(f"tokens {number}")
        case 3:
            return "/v1/images/generations", image_body(f"fox {number}", seed=None, step=5)
        case 4:
            return "/v1/embeddings", {"model": "sim-embed", "input": [f"text {number}", "again"]}
        case _:
            content = [
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PICTURE}"}}
            ]
            return "/v1/chat/completions", chat_body(content, model="sim-vision", max_tokens=9)


def run(seed: int) -> tuple[Sequence[RequestRecord], Sequence[bytes]]:
    """Send all requests a little apart, some of which leave again; wait until all is over."""
    rules = [rule for rule in PROFILES["everything"].rules if rule.do.kind != "refuse"]
    config = SimulatorConfig(clock="manual", seed=seed, jitter=0.2)
    with Simulator(config) as simulator:
        raw, control = Raw(simulator), simulator.control
        control.replace_faults([rule.model_dump() for rule in rules])
        connections: list[socket.socket] = []
        for number in range(1, REQUESTS + 1):
            path, body = order(number)
            connection = raw.open(path, body, Host="simulator", Connection="close")
            control.wait(state="arrived", since=number - 1)
            control.advance(0.1 if number % 4 else 20)
            if number % 17:
                connections.append(connection)
            else:
                hang_up(connection)
                control.wait(state="ended", since=number - 1)
        control.advance(3600)
        control.wait(state="ended", count=REQUESTS)
        journal = control.requests()
        return journal, [whatever_comes(connection) for connection in connections]


def whatever_comes(connection: socket.socket) -> bytes:
    """Read to the end, be it an orderly one or a reset."""
    seen = b""
    with connection, contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(65536):
            seen += piece
    return seen


def test_two_hundred_requests_with_faults_repeat_to_the_byte() -> None:
    journal, answers = run(seed=7)
    again, same = run(seed=7)

    assert journal == again
    assert answers == same
    endings = {entry.ending or "" for entry in journal}
    assert {"completed", "client_left"} <= endings
    assert len([ending for ending in endings if ending.startswith("fault:")]) > 5


def test_another_seed_is_another_run() -> None:
    assert run(seed=7) != run(seed=8)
