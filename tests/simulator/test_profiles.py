import pytest

from src.simulator.client import ControlClient, ControlError
from src.simulator.config import SimulatorConfig
from src.simulator.faults import ACTIONS
from src.simulator.profiles import PROFILES
from src.simulator.serve import Simulator
from tests.simulator.raw import Raw


def test_a_simulator_starts_with_its_profile_and_returns_to_it() -> None:
    with Simulator(SimulatorConfig(speed=0, profile="busy")) as simulator:
        control = simulator.control
        assert control.identity().profile == "busy"
        assert {it.rule.id for it in control.faults()} == {"rejected", "failed"}

        control.adopt("calm")
        assert control.faults() == []
        control.reset()

        assert [it.rule.do.kind for it in control.faults()] == ["rejected", "status"]


def test_a_busy_server_turns_some_work_away_but_answers_who_only_looks() -> None:
    with Simulator(SimulatorConfig(speed=0, profile="busy")) as simulator:
        raw = Raw(simulator)

        work = [raw.chat("repeat: hi").status for _ in range(200)]
        looks = {raw.get("/v1/models").status for _ in range(50)}

    assert 8 <= work.count(503) <= 40
    assert set(work) == {200, 500, 503}
    assert looks == {200}


def test_a_network_can_be_flaky(control: ControlClient) -> None:
    control.adopt("flaky-network")

    assert {it.rule.do.kind for it in control.faults()} == {"reset", "cut", "hang"}


def test_memory_can_be_tight_until_the_next_profile(raw: Raw, control: ControlClient) -> None:
    control.adopt("tight-memory")
    tight = control.state().memory_gb
    raw.chat("repeat: hi")
    raw.image("fox")

    assert (tight, control.summary().swaps) == (5, 1)
    control.adopt("calm")
    assert control.state().memory_gb == 8


def test_a_profile_that_the_models_do_not_fit_into_is_refused() -> None:
    config = SimulatorConfig.model_validate({"models": {"big": {"weights_gb": 6}}})
    with Simulator(config) as simulator:
        with pytest.raises(ControlError, match="big needs 6 GB") as caught:
            simulator.control.adopt("tight-memory")
        assert simulator.control.identity().profile == "calm"
    assert caught.value.status == 400


def test_cold_models_leave_when_idle(standing: Simulator) -> None:
    control = standing.control
    control.adopt("cold")
    control.load("sim-chat")

    control.advance(1.9)
    assert control.state().models["sim-chat"].state == "ready"
    control.advance(0.2)
    assert control.state().models["sim-chat"].state == "unloaded"


def test_everything_that_can_go_wrong_does_at_two_per_cent() -> None:
    rules = PROFILES["everything"].rules

    assert {rule.do.kind for rule in rules} == {kind().kind for kind in ACTIONS}
    assert {rule.when.probability for rule in rules} == {0.02}


def test_an_unknown_profile_is_named(control: ControlClient) -> None:
    with pytest.raises(ControlError, match="'calm', 'busy'"):
        control.adopt("stormy")


def test_jitter_changes_the_pace_of_each_request_and_repeats_with_the_seed() -> None:
    def loads(seed: int, jitter: float) -> list[float]:
        with Simulator(SimulatorConfig(clock="manual", seed=seed, jitter=jitter)) as simulator:
            raw, control = Raw(simulator), simulator.control
            lasted: list[float] = []
            for number in range(3):
                connection = raw.open_chat("repeat: hi")
                control.wait(state="arrived", since=number)
                control.advance(20)
                (entry,) = control.wait(state="settled", since=number)
                lasted.append((entry.started or 0) - entry.arrived)
                control.unload("sim-chat")
                connection.close()
            return lasted

    steady, first, same, other = loads(1, 0), loads(1, 0.2), loads(1, 0.2), loads(2, 0.2)

    assert steady == [1, 1, 1]
    assert first == same != other
    assert len(set(first)) == 3
    assert all(0.8 <= seconds <= 1.2 for seconds in first)
