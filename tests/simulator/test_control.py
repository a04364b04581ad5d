import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from src.simulator.client import ControlClient, ControlError
from src.simulator.config import SimulatorConfig
from src.simulator.serve import Simulator
from tests.simulator.raw import Raw


def test_it_says_what_it_is(control: ControlClient) -> None:
    identity = control.identity()

    assert identity.what == "a simulated LocalAI server"
    assert (identity.seed, identity.speed, identity.requests) == (0, 0, 0)
    assert (identity.clock, identity.profile) == ("real", "calm")


def test_the_journal_tells_the_course_of_a_request(raw: Raw, control: ControlClient) -> None:
    raw.chat("count to 3", stream=True)

    (entry,) = control.requests()

    assert entry.number == 1
    assert (entry.path, entry.model, entry.modality) == (
        "/v1/chat/completions",
        "sim-chat",
        "txt2txt",
    )
    assert (entry.status, entry.done, entry.ending) == (200, 3, "completed")
    times = (entry.arrived, entry.started, entry.first_byte, entry.settled, entry.ended)
    assert None not in times
    assert list(times) == sorted(time for time in times if time is not None)
    assert len(entry.digest) == 12


def test_the_journal_can_be_read_from_a_number_on_and_be_emptied(
    raw: Raw, control: ControlClient
) -> None:
    for number in range(3):
        raw.chat(f"repeat: {number}")

    assert [entry.number for entry in control.requests(since=1)] == [2, 3]
    assert control.requests(model="sim-image") == []
    control.forget_requests()
    assert control.requests() == []
    raw.chat("repeat: on")
    assert [entry.number for entry in control.requests()] == [4]


def test_waiting_ends_as_soon_as_it_is_true(raw: Raw, control: ControlClient) -> None:
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(control.wait, state="ended", count=2)
        raw.chat("repeat: one")
        raw.chat("repeat: two")

        assert [entry.number for entry in waiting.result(5)] == [1, 2]


def test_waiting_has_an_end(control: ControlClient) -> None:
    with pytest.raises(TimeoutError, match="waited 0 s for 1 x started"):
        control.wait(timeout=0)


def test_held_requests_stand_at_the_gate_in_the_order_of_their_arrival(
    raw: Raw, control: ControlClient
) -> None:
    control.hold()
    connections: list[socket.socket] = []
    for number in range(2):
        connections.append(raw.open_chat(f"repeat: {number}"))
        control.wait(state="started", count=number + 1)

    state = control.state()
    assert (state.holding, state.held) == (True, [1, 2])
    control.release(1)
    assert [entry.number for entry in control.wait(state="ended")] == [1]
    assert control.state().held == [2]
    control.release()
    control.wait(state="ended", count=2)
    assert not control.state().holding
    for connection in connections:
        connection.close()


def test_a_pass_given_early_is_kept(raw: Raw, control: ControlClient) -> None:
    control.hold()
    control.release(1)

    assert raw.chat("repeat: through").status == 200
    connection = raw.open_chat("repeat: held")
    control.wait(count=2)
    assert control.state().held == [2]
    connection.close()


def test_models_are_moved_by_hand(raw: Raw, control: ControlClient) -> None:
    control.load("sim-image")
    assert control.state().models["sim-image"].state == "ready"
    control.load("sim-vision")
    control.unload("sim-vision")
    assert control.state().memory_used_gb == 5

    control.hold()
    connection = raw.open_image("fox")
    control.wait(state="started")
    with pytest.raises(ControlError, match="sim-image is busy") as caught:
        control.unload("sim-image")
    assert caught.value.status == 409
    control.patch(max_active_backends=1)
    with pytest.raises(ControlError, match="no room for sim-chat"):
        control.load("sim-chat")
    with pytest.raises(ControlError, match="no model nobody"):
        control.load("nobody")
    connection.close()


def test_the_summary_counts_loads_swaps_and_the_order_of_starts(
    raw: Raw, control: ControlClient
) -> None:
    control.patch(max_active_backends=1)
    raw.chat("repeat: one")
    raw.image("fox")
    raw.chat("repeat: two")

    summary = control.summary()

    assert {name: n for name, n in summary.loads.items() if n} == {"sim-chat": 2, "sim-image": 1}
    assert (summary.swaps, summary.over_budget, summary.requests) == (2, 0, 3)
    assert summary.started_in_order == ["sim-chat", "sim-image", "sim-chat"]
    assert summary.most_at_once == {"sim-chat": 1, "sim-image": 1}
    assert summary.busy_seconds["sim-image"] > 0


def test_values_are_changed_while_it_runs(control: ControlClient) -> None:
    control.patch(speed=50, seed=4, jitter=0.1, memory_gb=9, max_active_backends=1)
    control.patch(unload_idle_s=3)
    control.patch_model("sim-chat", slots=7, load_s=3, weights_gb=1, tokens_per_s=5)

    assert (control.identity().speed, control.identity().seed) == (50, 4)
    assert control.state().models["sim-chat"].slots == 7
    assert control.state().memory_gb == 9
    with pytest.raises(ControlError, match="cannot change while running: api_key"):
        control.patch(api_key="x")
    with pytest.raises(ControlError, match="cannot change while running: kind"):
        control.patch_model("sim-chat", kind="image")
    with pytest.raises(ControlError, match="speed"):
        control.patch(speed=-1)
    with pytest.raises(ControlError, match="slotz"):
        control.patch_model("sim-chat", slotz=1)


def test_faults_are_added_read_replaced_and_removed(raw: Raw, control: ControlClient) -> None:
    added = control.add_fault("status", match={"model": "sim-chat"}, when={"times": 1})
    raw.chat("hello")
    raw.chat("hello")

    (report,) = control.faults()
    assert (report.rule.id, report.matched, report.acted) == (added, 2, 1)
    assert raw.get(f"/sim/faults/{added}").json["rule"]["do"]["kind"] == "status"
    put = raw.send("PUT", "/sim/faults/mine", b'{"do": {"kind": "reset"}}')
    assert put.json["id"] == "mine"
    control.remove_fault(added)
    assert [it.rule.id for it in control.faults()] == ["mine"]
    control.replace_faults([{"do": {"kind": "no_done"}}, {"id": "b", "do": {"kind": "hang"}}])
    assert [it.rule.do.kind for it in control.faults()] == ["no_done", "hang"]
    control.clear_faults()
    assert control.faults() == []
    assert raw.get("/sim/faults/mine").status == 404
    with pytest.raises(ControlError, match="no fault mine"):
        control.remove_fault("mine")
    with pytest.raises(ControlError, match="explode"):
        control.add_fault("explode")
    assert raw.send("PUT", "/sim/faults", b"7").status == 400
    assert raw.get("/sim/requests?sinz=1").status == 400


def test_advancing_answers_when_everything_due_has_happened() -> None:
    with Simulator(SimulatorConfig(clock="manual")) as simulator:
        raw, control = Raw(simulator), simulator.control
        control.load("sim-image")
        connection = raw.open_image("fox", step=10)
        control.wait(state="started")
        step = 0.1 * 64 * 64 / 512**2

        control.advance(4.5 * step)
        half = control.requests()[0]
        control.advance(7200)
        (whole,) = control.requests()

        assert (half.done, half.ended, control.state().clock) == (4, None, "manual")
        assert (whole.done, whole.ending) == (10, "completed")
        assert whole.ended == pytest.approx(10 * step)
        assert control.state().now == pytest.approx(7200 + 4.5 * step)
        connection.close()


def test_a_reset_is_as_after_the_start_and_drops_everyone(raw: Raw, control: ControlClient) -> None:
    control.hold()
    control.patch(speed=100)
    control.add_fault("status", match={"model": "sim-vision"})
    chat, image = raw.open_chat("hello"), raw.open_image("fox")
    control.wait(state="started", count=2)

    control.reset()

    assert chat.recv(1) == b""
    assert image.recv(1) == b""
    assert control.requests() == []
    assert control.faults() == []
    state = control.state()
    assert (state.holding, state.held, state.memory_used_gb) == (False, [], 0)
    assert control.identity().speed == 0
    assert raw.chat("repeat: hi").status == 200
    chat.close()
    image.close()


def test_the_control_routes_can_be_switched_off() -> None:
    with Simulator(SimulatorConfig(speed=0, control=False)) as simulator:
        assert Raw(simulator).get("/sim/state").status == 404


def test_the_control_routes_cannot_be_called_by_a_web_page(raw: Raw) -> None:
    assert raw.get("/sim/state", Host="evil.example").status == 404
    assert raw.get("/sim/state", Origin="http://evil.example").status == 404
    assert raw.get("/sim/state", Host="localhost:8080").status == 200


def test_objects_show_their_state(control: ControlClient) -> None:
    assert repr(control).startswith("<ControlClient 127.0.0.1:")
