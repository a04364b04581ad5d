import socket

import pytest

from src.simulator.config import SimulatorConfig
from src.simulator.serve import Simulator, run
from tests.simulator.raw import Raw

CONFIG = SimulatorConfig(speed=0)


def test_it_can_vanish_and_come_back_on_the_same_port() -> None:
    with Simulator(CONFIG) as simulator:
        raw, url = Raw(simulator), simulator.url
        raw.chat("repeat: before")
        simulator.control.add_fault("status", match={"model": "sim-image"})

        simulator.stop()
        with pytest.raises(ConnectionRefusedError):
            raw.get("/healthz")
        simulator.start()

        assert simulator.url == url
        assert raw.get("/system").json["loaded_models"] == []
        assert raw.chat("repeat: after").status == 200
        assert [entry.number for entry in simulator.control.requests()] == [1, 2]
        assert raw.image("fox").status == 500


def test_who_hangs_is_cut_when_it_stops() -> None:
    with Simulator(CONFIG) as simulator:
        control = simulator.control
        control.add_fault("hang")
        connection = Raw(simulator).open_chat("hello")
        control.wait(state="arrived")

        simulator.stop()

        assert connection.recv(1) == b""
        connection.close()
        simulator.start()
        assert control.requests()[0].ending == "stopped"


def test_work_in_progress_does_not_keep_it_from_stopping() -> None:
    with Simulator(SimulatorConfig(speed=1)) as simulator:
        control = simulator.control
        control.load("sim-image")
        picture = Raw(simulator).open_image("fox", step=100000)
        load = Raw(simulator).open_chat("hello")
        control.wait(count=1)
        control.wait(state="waiting")

        simulator.stop()

        assert repr(simulator).endswith(" stopped>")
        picture.close()
        load.close()


def test_a_port_can_be_chosen() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
        with pytest.raises(OSError, match="in use"):
            Simulator(CONFIG, port=port).start()

    with Simulator(CONFIG, port=port) as simulator:
        simulator.start()
        assert simulator.port == port
        assert Raw(simulator).get("/healthz").status == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "example.org"])
def test_other_machines_need_a_key(host: str) -> None:
    with pytest.raises(ValueError, match="set api_key"):
        Simulator(CONFIG, host=host)
    with pytest.raises(ValueError, match="set api_key"):
        run(CONFIG, host=host)
    Simulator(SimulatorConfig(api_key="secret"), host=host)
