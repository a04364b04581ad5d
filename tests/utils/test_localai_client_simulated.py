"""The client against a server that behaves as LocalAI does, over a real socket."""

import base64
import ssl
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing

import pytest

from src.models.errors import (
    BackendBusy,
    BackendError,
    BackendFailed,
    BackendProtocolError,
    BackendTimeout,
    BackendUnauthorised,
    BackendUnavailable,
    EmptyResult,
    InferenceManagerError,
    ModelCrashed,
    ModelLoadFailed,
    StreamCut,
    UnknownModel,
)
from src.models.modality import Modality
from src.models.requests import (
    Img2ImgRequest,
    Img2TxtRequest,
    InferenceRequest,
    Txt2ImgRequest,
    Txt2TxtRequest,
)
from src.models.results import Image, Result, collect
from src.simulator.config import SimulatorConfig
from src.simulator.serve import Simulator
from src.utils.images import prepare
from src.utils.localai_client import LocalAIClient

TLS = ssl.create_default_context()
CHAT = Txt2TxtRequest.model_validate({"prompt": "repeat: grüß Gott 🦊"})
DRAW = Txt2ImgRequest(prompt="a red fox", seed=7, width=64, height=64, steps=1)


@pytest.fixture(scope="module")
def shared() -> Generator[Simulator]:
    with Simulator(SimulatorConfig(speed=0, api_key="sesame")) as simulator:
        yield simulator


@pytest.fixture
def simulator(shared: Simulator) -> Simulator:
    shared.start()
    shared.control.reset()
    return shared


@pytest.fixture
async def client(simulator: Simulator) -> AsyncGenerator[LocalAIClient]:
    client = LocalAIClient(
        name="sim", url=simulator.url, api_key="sesame", verify=TLS, first_byte_s=5.0, idle_s=5.0
    )
    yield client
    await client.close()


async def result_of(client: LocalAIClient, request: InferenceRequest, model: str = "") -> Result:
    names = {Modality.TXT2TXT: "sim-chat", Modality.IMG2TXT: "sim-vision"}
    model = model or names.get(request.modality, "sim-image")
    async with aclosing(client.run(request, model, "job-1")) as chunks:
        return collect([chunk async for chunk in chunks])


async def no_jobs(job_id: str, number: int) -> Image:
    raise AssertionError(f"{job_id}/{number} was looked up")


async def test_text_comes_back_as_it_was_said(client: LocalAIClient) -> None:
    result = await result_of(client, CHAT)

    assert result.text.endswith("grüß Gott 🦊")
    assert result.finish.reason == "stop"
    assert result.finish.simulated
    assert result.finish.prompt_tokens > 0
    assert result.finish.completion_tokens > 0


async def test_pictures_are_drawn_changed_and_described(client: LocalAIClient) -> None:
    drawn = (await result_of(client, DRAW)).images[0]
    source = base64.b64encode(drawn.data).decode()
    change = await prepare(
        Img2ImgRequest(image=source, prompt="a red fox", seed=7, steps=1), no_jobs
    )
    look = await prepare(Img2TxtRequest(images=(source,)), no_jobs)

    changed = (await result_of(client, change)).images[0]
    described = await result_of(client, look)

    assert (drawn.width, drawn.height) == (changed.width, changed.height) == (64, 64)
    assert changed.data != drawn.data  # it would be the same drawing, had its source been dropped
    assert "64x64" in described.text


async def test_it_knows_what_is_offered_and_what_is_in_memory(client: LocalAIClient) -> None:
    offered = {model.name: sorted(model.modalities or ()) for model in await client.models()}
    await client.load("sim-chat")

    assert offered["sim-chat"] == [Modality.TXT2TXT]
    assert offered["sim-vision"] == [Modality.IMG2TXT, Modality.TXT2TXT]
    assert offered["sim-image"] == [Modality.IMG2IMG, Modality.TXT2IMG]
    assert [] in offered.values()
    assert await client.resident() == frozenset({"sim-chat"})
    assert "simulated" in await client.ping()


async def test_an_unknown_model_is_said_to_be_one(client: LocalAIClient) -> None:
    for request in (CHAT, DRAW):
        with pytest.raises(UnknownModel, match="'nothing'"):
            await result_of(client, request, "nothing")


async def test_a_wrong_key_is_said_to_be_one(simulator: Simulator) -> None:
    client = LocalAIClient(name="sim", url=simulator.url, api_key="wrong", verify=TLS)

    for attempt in (result_of(client, CHAT), client.models(), client.ping()):
        with pytest.raises(BackendUnauthorised):
            await attempt
    await client.close()


FAULTS: list[tuple[InferenceRequest, str, dict[str, object], type[InferenceManagerError]]] = [
    (CHAT, "reset", {}, BackendUnavailable),
    (CHAT, "reset", {"after_tokens": 2}, StreamCut),
    (CHAT, "cut", {"after_tokens": 2}, StreamCut),
    (CHAT, "no_done", {}, StreamCut),
    (CHAT, "stream_error", {"after_tokens": 2}, ModelCrashed),
    (CHAT, "load_failure", {}, ModelLoadFailed),
    (CHAT, "rejected", {"retry_after": 3.0}, BackendBusy),
    (CHAT, "status", {"status": 500}, BackendFailed),
    (CHAT, "status", {"status": 502}, BackendUnavailable),
    (CHAT, "garbage", {"what": "html"}, BackendProtocolError),
    (CHAT, "garbage", {"what": "truncated_json"}, BackendProtocolError),
    (CHAT, "garbage", {"what": "wrong_type"}, BackendProtocolError),
    (CHAT, "garbage", {"what": "not_utf8"}, BackendProtocolError),
    (CHAT, "garbage", {"what": "empty_body"}, BackendProtocolError),
    (CHAT, "garbage", {"what": "bad_gzip"}, BackendProtocolError),
    (DRAW, "reset", {}, BackendUnavailable),
    (DRAW, "cut", {}, BackendUnavailable),
    (DRAW, "load_failure", {}, ModelLoadFailed),
    (DRAW, "empty_image", {}, EmptyResult),
    (DRAW, "corrupt_image", {}, EmptyResult),
    (DRAW, "garbage", {"what": "html"}, BackendProtocolError),
    (DRAW, "garbage", {"what": "truncated_json"}, BackendProtocolError),
    (DRAW, "garbage", {"what": "bad_gzip"}, BackendProtocolError),
]


@pytest.mark.parametrize(
    ("request_", "kind", "parameters", "expected"),
    FAULTS,
    ids=[f"{request.modality} {kind} {parameters}" for request, kind, parameters, _ in FAULTS],
)
async def test_a_fault_is_named_and_the_next_call_works(
    simulator: Simulator,
    client: LocalAIClient,
    request_: InferenceRequest,
    kind: str,
    parameters: dict[str, object],
    expected: type[BackendError],
) -> None:
    rule = {"when": {"times": 1}, "do": {"kind": kind, **parameters}}
    simulator.control.replace_faults([rule])

    with pytest.raises(expected):
        await result_of(client, request_)

    simulator.control.reset()
    assert (await result_of(client, request_)).finish.simulated


@pytest.mark.parametrize(
    ("request_", "parameters"), [(CHAT, {}), (CHAT, {"after_tokens": 2}), (DRAW, {})]
)
async def test_silence_is_not_waited_out(
    simulator: Simulator, request_: InferenceRequest, parameters: dict[str, object]
) -> None:
    simulator.control.load("sim-chat")
    simulator.control.replace_faults([{"do": {"kind": "hang", **parameters}}])
    client = LocalAIClient(
        name="sim", url=simulator.url, api_key="sesame", verify=TLS, first_byte_s=0.2, idle_s=0.2
    )

    with pytest.raises(BackendTimeout):
        await result_of(client, request_)
    await client.close()


async def test_a_model_that_failed_to_load_cools_down(
    simulator: Simulator, client: LocalAIClient
) -> None:
    simulator.control.add_fault("load_failure")

    with pytest.raises(ModelLoadFailed) as first:
        await result_of(client, CHAT)
    with pytest.raises(ModelLoadFailed) as second:
        await result_of(client, CHAT)

    assert not first.value.cooling
    assert second.value.cooling
    assert second.value.retry_after is not None


async def test_a_server_that_went_away_and_came_back_is_found_again(
    simulator: Simulator, client: LocalAIClient
) -> None:
    await result_of(client, CHAT)

    simulator.stop()
    with pytest.raises(BackendUnavailable) as gone:
        await result_of(client, CHAT)
    simulator.start()

    assert not gone.value.reached
    assert (await result_of(client, CHAT)).text


async def test_a_chat_that_is_left_stops_in_the_engine(
    simulator: Simulator, client: LocalAIClient
) -> None:
    simulator.control.patch(speed=1.0)
    simulator.control.load("sim-chat")
    endless = Txt2TxtRequest.model_validate({"prompt": "tokens 100000"})

    async with aclosing(client.run(endless, "sim-chat", "job-9")) as chunks:
        await anext(chunks)
    [record] = simulator.control.wait(model="sim-chat", state="ended")

    assert record.correlation_id == "job-9"
    assert record.ending == "client_left"
    simulator.control.patch(speed=0)
