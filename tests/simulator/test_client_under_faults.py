"""What our client of LocalAI makes of each misfortune that is not an answer of its own."""

import ssl
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from src.models.errors import (
    BackendError,
    BackendFailed,
    BackendUnavailable,
    ModelCrashed,
    ModelLoadFailed,
)
from src.models.requests import InferenceRequest, Txt2ImgRequest, Txt2TxtRequest
from src.models.results import Result, collect
from src.simulator.client import ControlClient
from src.simulator.config import SimulatorConfig
from src.simulator.serve import Simulator
from src.utils.localai_client import LocalAIClient

CHAT = Txt2TxtRequest.model_validate({"prompt": "repeat: grüß Gott 🦊"})
DRAW = Txt2ImgRequest(prompt="a red fox", seed=7, width=64, height=64, steps=9)


@pytest.fixture
async def client(simulator: Simulator) -> AsyncGenerator[LocalAIClient]:
    client = LocalAIClient(name="sim", url=simulator.url, verify=ssl.create_default_context())
    yield client
    await client.close()


async def result_of(client: LocalAIClient, request: InferenceRequest) -> Result:
    model = "sim-chat" if request is CHAT else "sim-image"
    async with aclosing(client.run(request, model, "job-1")) as chunks:
        return collect([chunk async for chunk in chunks])


@pytest.mark.parametrize(
    ("request_", "fault", "expected"),
    [
        (CHAT, {"kind": "crash"}, ModelCrashed),
        (CHAT, {"kind": "crash", "after_tokens": 2}, ModelCrashed),
        (DRAW, {"kind": "crash", "after_steps": 3}, ModelCrashed),
        (CHAT, {"kind": "oom"}, BackendFailed),
        (DRAW, {"kind": "oom"}, BackendFailed),
    ],
    ids=str,
)
async def test_a_misfortune_has_its_name(
    client: LocalAIClient,
    control: ControlClient,
    request_: InferenceRequest,
    fault: dict[str, object],
    expected: type[BackendError],
) -> None:
    control.replace_faults([{"when": {"times": 1}, "do": fault}])

    with pytest.raises(expected):
        await result_of(client, request_)


async def test_a_server_that_refuses_everybody_is_unavailable() -> None:
    with Simulator(SimulatorConfig(speed=0)) as simulator:
        simulator.control.add_fault("refuse", seconds=3600)
        tls = ssl.create_default_context()
        client = LocalAIClient(name="sim", url=simulator.url, verify=tls)

        for _ in ("reset", "refused"):
            with pytest.raises(BackendUnavailable):
                await result_of(client, CHAT)
        await client.close()


async def test_a_load_that_runs_out_of_memory_has_failed_and_cools_down(
    client: LocalAIClient, control: ControlClient
) -> None:
    control.add_fault("oom", at="load")

    with pytest.raises(ModelLoadFailed, match="out of memory") as failed:
        await result_of(client, CHAT)
    with pytest.raises(ModelLoadFailed) as cooling:
        await result_of(client, CHAT)

    assert (failed.value.cooling, cooling.value.cooling) == (False, True)


async def test_a_dead_process_is_known_as_such_until_it_is_loaded_again(
    client: LocalAIClient, control: ControlClient
) -> None:
    control.load("sim-chat")
    control.crash("sim-chat")

    with pytest.raises(ModelCrashed):
        await result_of(client, CHAT)
    control.advance(30)

    assert (await result_of(client, CHAT)).text.endswith("grüß Gott 🦊")


@pytest.mark.parametrize("fault", ["drip", "slow", "loading", "starting"])
async def test_what_only_takes_longer_is_waited_for(
    client: LocalAIClient, control: ControlClient, fault: str
) -> None:
    control.add_fault(fault)

    assert (await result_of(client, CHAT)).text.endswith("grüß Gott 🦊")
    assert control.requests()[0].ending == f"fault:{control.faults()[0].rule.id}"
