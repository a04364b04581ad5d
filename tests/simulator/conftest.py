from collections.abc import Generator

import pytest

from src.simulator.client import ControlClient
from src.simulator.config import SimulatorConfig
from src.simulator.serve import Simulator
from tests.simulator.raw import Raw


@pytest.fixture(scope="session")
def running() -> Generator[Simulator]:
    with Simulator(SimulatorConfig(speed=0)) as simulator:
        yield simulator


@pytest.fixture
def simulator(running: Simulator) -> Simulator:
    """A simulator that never waits, as new."""
    running.control.reset()
    return running


@pytest.fixture
def control(simulator: Simulator) -> ControlClient:
    return simulator.control


@pytest.fixture
def raw(simulator: Simulator) -> Raw:
    return Raw(simulator)


@pytest.fixture
def standing() -> Generator[Simulator]:
    """A simulator whose clock is moved by hand."""
    with Simulator(SimulatorConfig(clock="manual")) as simulator:
        yield simulator
