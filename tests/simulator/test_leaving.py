"""What a client that leaves puts an end to, and what it does not."""

import socket

import pytest

from src.simulator.serve import Simulator
from tests.simulator.raw import Raw, chat_body, hang_up, image_body, read_all

CHAT = ("/v1/chat/completions", chat_body("tokens 400", stream=True))
IMAGE = ("/v1/images/generations", image_body("fox", size="512x512"))
EMBEDDINGS = ("/v1/embeddings", {"model": "sim-embed", "input": ["word"] * 100})
SPEECH = ("/v1/audio/speech", {"model": "sim-voice", "input": "word " * 100})
VIDEO = ("/video", {"model": "sim-video", "prompt": "fox", "width": 64, "height": 64})


def test_a_chat_stops_within_a_token(standing: Simulator) -> None:
    control = standing.control
    control.load("sim-chat")
    connection = Raw(standing).open(*CHAT)
    control.wait(state="started")
    control.advance(1)
    hang_up(connection)

    (entry,) = control.wait(state="ended")

    assert (entry.ending, entry.worked_on) == ("client_left", False)
    assert entry.settled == entry.ended == 1
    assert 0 < entry.done < 50
    assert control.state().models["sim-chat"].busy == 0


@pytest.mark.parametrize("work", [IMAGE, EMBEDDINGS, SPEECH, VIDEO], ids=lambda work: str(work[0]))
def test_other_work_goes_on_and_keeps_its_slot(
    standing: Simulator, work: tuple[str, dict[str, object]]
) -> None:
    path, body = work
    control, model = standing.control, str(body["model"])
    control.load(model)
    connection = Raw(standing).open(path, body)
    control.wait(state="started")
    hang_up(connection)
    control.wait(state="ended")

    assert control.state().models[model].busy == 1
    control.advance(100)

    (entry,) = control.requests()
    assert (entry.ending, entry.worked_on, entry.ended) == ("client_left", True, 0)
    assert entry.settled is not None
    assert entry.settled > 0
    assert control.state().models[model].busy == 0


@pytest.mark.parametrize("work", [CHAT, IMAGE, EMBEDDINGS, SPEECH], ids=lambda work: str(work[0]))
def test_a_load_ends_with_its_client_and_the_others_get_one_more_try(
    standing: Simulator, work: tuple[str, dict[str, object]]
) -> None:
    path, body = work
    raw, control, model = Raw(standing), standing.control, str(body["model"])
    leaving: list[socket.socket] = []
    for number in (1, 2):
        leaving.append(raw.open(path, body))
        control.wait(state="waiting", count=number)
    staying = raw.open(path, body, Connection="close")
    control.wait(state="waiting", count=3)

    for number, connection in enumerate(leaving, 1):
        hang_up(connection)
        control.wait(state="ended", count=number)

    assert b"could not load model" in read_all(staying)
    assert control.state().models[model].state == "cooling"
    assert raw.post(path, body).status == (200 if body.get("stream") else 503)
    assert control.summary().loads[model] == 2


def test_a_video_does_not_end_with_its_client_not_even_the_load(standing: Simulator) -> None:
    control = standing.control
    connection = Raw(standing).open(*VIDEO)
    control.wait(state="waiting")
    hang_up(connection)
    control.wait(state="ended")

    control.advance(100)

    (entry,) = control.requests()
    assert (entry.ending, entry.worked_on) == ("client_left", True)
    assert entry.started == 2
    assert control.state().models["sim-video"].state == "ready"
