"""The client against a server that behaves as LocalAI does, over a real socket."""

import base64
import json
import ssl
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing
from pathlib import Path
from typing import Any, cast

import pytest

from src.models.blobs import Blob
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
    Audio2TxtRequest,
    CompletionRequest,
    Img2ImgRequest,
    Img2TxtRequest,
    InferenceRequest,
    InpaintRequest,
    ModerationRequest,
    RerankRequest,
    Txt2AudioRequest,
    Txt2ImgRequest,
    Txt2SoundRequest,
    Txt2TxtRequest,
    Txt2VecRequest,
    Txt2VideoRequest,
)
from src.models.results import Image, Result, TextDelta, collect
from src.simulator.config import SimulatorConfig
from src.simulator.serve import Simulator
from src.utils.attachments import prepare
from src.utils.blobs import FileBlobs
from src.utils.localai_client import LocalAIClient
from src.utils.localai_memory import InMemory

TLS = ssl.create_default_context()
CHAT = Txt2TxtRequest.model_validate({"prompt": "repeat: grüß Gott 🦊"})
DRAW = Txt2ImgRequest(prompt="a red fox", seed=7, width=64, height=64, steps=1)


SAY = Txt2AudioRequest(input="Hello there")
EMBED = Txt2VecRequest(input=("one", "two"))
GO_ON = CompletionRequest(prompts=("count to 9",))
JUDGE = ModerationRequest(input=("one", "two"))
LIKELY = CHAT.model_copy(update={"logprobs": True})
MODELS = {
    Modality.TXT2TXT: "sim-chat",
    Modality.IMG2TXT: "sim-vision",
    Modality.TXT2IMG: "sim-image",
    Modality.IMG2IMG: "sim-image",
    Modality.INPAINT: "sim-image",
    Modality.TXT2VEC: "sim-embed",
    Modality.RERANK: "sim-embed",
    Modality.TXT2AUDIO: "sim-voice",
    Modality.TXT2SOUND: "sim-voice",
    Modality.AUDIO2TXT: "sim-voice",
    Modality.TXT2VIDEO: "sim-video",
}


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
    model = model or MODELS[request.modality]
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


async def pieces_of(client: LocalAIClient, request: InferenceRequest) -> list[TextDelta]:
    async with aclosing(client.run(request, "sim-chat", "job-1")) as chunks:
        return [chunk async for chunk in chunks if isinstance(chunk, TextDelta)]


async def test_every_piece_of_text_may_be_given_on_as_it_is(client: LocalAIClient) -> None:
    pieces = await pieces_of(client, CHAT)

    assert pieces
    for piece in pieces:
        events = [json.loads(event) for event in piece.event.split("\n\ndata: ")]
        assert {event["id"] for event in events} == {"chatcmpl-job-1"}
        said = "".join(event["choices"][0]["delta"]["content"] for event in events)
        assert said == piece.text


def calling(**more: object) -> Txt2TxtRequest:
    city = {"type": "object", "properties": {"city": {"enum": ["Oslo"]}}, "required": ["city"]}
    functions = [{"name": "get_weather", "parameters": city}, {"name": "get_time"}]
    tools = [{"type": "function", "function": function} for function in functions]
    prompt = "get_weather and get_time"
    return Txt2TxtRequest.model_validate({"prompt": prompt, "tools": tools, **more})


@pytest.mark.parametrize("more", [{}, {"logprobs": True}], ids=["streamed", "in one piece"])
@pytest.mark.parametrize("fault", [(), ("duplicate_ids",)], ids=["own ids", "one id for all"])
async def test_functions_are_called_each_by_an_id_of_its_own(
    simulator: Simulator, client: LocalAIClient, more: dict[str, object], fault: tuple[str, ...]
) -> None:
    for kind in fault:
        simulator.control.add_fault(kind)

    result = await result_of(client, calling(**more))

    weather, time = result.calls
    assert (weather.name, weather.arguments) == ("get_weather", '{"city": "Oslo"}')
    assert (time.name, time.arguments) == ("get_time", "{}")
    assert weather.id != time.id
    assert result.finish.reason == "tool_calls"


async def test_a_function_may_be_chosen_by_a_field_that_is_handed_on(client: LocalAIClient) -> None:
    choice = {"type": "function", "function": {"name": "get_time"}}

    result = await result_of(client, calling(options={"tool_choice": choice}))
    none = await result_of(client, calling(options={"tool_choice": "none"}))

    assert [call.name for call in result.calls] == ["get_time"]
    assert none.calls == ()


async def test_several_answers_differ_and_the_same_seed_gives_them_again(
    client: LocalAIClient,
) -> None:
    request = Txt2TxtRequest.model_validate({"prompt": "hello", "n": 2, "seed": 7})

    first, again = await result_of(client, request), await result_of(client, request)
    texts = [choice.text for choice in first.choices]
    single = await result_of(client, request.model_copy(update={"n": 1, "seed": 8}))

    assert len(set(texts)) == 2
    assert [choice.text for choice in again.choices] == texts
    assert single.text == texts[1]


async def test_how_likely_each_token_was_is_told(client: LocalAIClient) -> None:
    request = CHAT.model_copy(update={"logprobs": True, "options": {"top_logprobs": 2}})

    result = await result_of(client, request)

    tokens = cast("list[dict[str, Any]]", list(result.logprobs))
    assert "".join(token["token"] for token in tokens) == result.text
    assert all(len(token["top_logprobs"]) == 2 for token in tokens)
    assert result.finish.simulated
    assert result.finish.completion_tokens == len(tokens)


async def test_texts_are_gone_on_with_and_the_limit_is_told_apart(client: LocalAIClient) -> None:
    request = CompletionRequest(prompts=("count to 9", "repeat: hi"), max_tokens=2)

    result = await result_of(client, request)

    assert [(choice.text, choice.reason) for choice in result.choices] == [
        ("1 2", "length"),
        ("hi", "stop"),
    ]
    assert result.finish.completion_tokens == 3
    assert result.finish.simulated


async def test_texts_are_judged(client: LocalAIClient) -> None:
    request = ModerationRequest(input=("a red fox", "I hate it"))

    result = await result_of(client, request)

    assert result.verdict is not None
    first, second = cast("list[dict[str, Any]]", list(result.verdict.results))
    assert (first["flagged"], second["flagged"]) == (False, True)
    assert second["categories"]["hate"]


async def test_tokens_become_a_vector_like_any_text(client: LocalAIClient) -> None:
    request = Txt2VecRequest(input=((1, 2, 3), "a red fox", (1, 2, 3), (4,)))

    first, words, again, other = (await result_of(client, request)).vectors

    assert first == again
    assert len({len(vector.values) for vector in (first, words, other)}) == 1
    assert first != other != words


async def test_pictures_are_talked_about_in_the_order_they_are_shown(client: LocalAIClient) -> None:
    sources: list[str] = []
    for width in (64, 96):
        drawn = (await result_of(client, DRAW.model_copy(update={"width": width}))).images[0]
        assert isinstance(drawn.data, bytes)
        sources.append(base64.b64encode(drawn.data).decode())
    shown = [{"type": "image", "image": number} for number in (1, 0)]
    talk = Img2TxtRequest.model_validate(
        {"images": sources, "messages": [{"content": [*shown, {"type": "text", "text": "And?"}]}]}
    )

    told = await result_of(client, await prepare(talk, no_jobs, InMemory()))

    assert told.text.index("96x64") < told.text.index("64x64")


async def test_pictures_are_drawn_changed_and_described(client: LocalAIClient) -> None:
    drawn = (await result_of(client, DRAW)).images[0]
    assert isinstance(drawn.data, bytes)
    source = base64.b64encode(drawn.data).decode()
    change = await prepare(
        Img2ImgRequest(image=source, prompt="a red fox", seed=7, steps=1), no_jobs, InMemory()
    )
    look = await prepare(Img2TxtRequest(images=(source,)), no_jobs, InMemory())

    changed = (await result_of(client, change)).images[0]
    described = await result_of(client, look)

    assert (drawn.width, drawn.height) == (changed.width, changed.height) == (64, 64)
    assert changed.data != drawn.data  # it would be the same drawing, had its source been dropped
    assert "64x64" in described.text


async def test_texts_become_vectors_and_documents_are_ordered(client: LocalAIClient) -> None:
    texts = Txt2VecRequest(input=("a red fox", "a red fox", "stock prices"))
    order = RerankRequest(query="a red fox", documents=("stock prices", "the red fox"), top_n=1)

    first, second, other = (await result_of(client, texts)).vectors
    [best] = (await result_of(client, order)).ranking

    assert first == second != other
    assert len(first.values) == len(other.values) > 1
    assert best.index == 1


async def test_a_text_is_spoken_and_written_down_again(
    simulator: Simulator, client: LocalAIClient, tmp_path: Path
) -> None:
    blobs = FileBlobs(tmp_path, inline=1000)
    [spoken] = (await result_of(client, Txt2AudioRequest(input="Hello there, you"))).audio
    assert isinstance(spoken.data, bytes)
    source = base64.b64encode(spoken.data).decode()
    listen = await prepare(Audio2TxtRequest(audio=source), no_jobs, blobs)
    reading = LocalAIClient(
        name="sim", url=simulator.url, api_key="sesame", verify=TLS, blobs=blobs
    )

    written = await result_of(reading, listen)
    await reading.close()

    assert Blob.referred_to(listen.model_dump()["audio"]) is not None
    assert written.text.startswith("[simulated]")
    assert written.heard is not None
    assert written.heard.seconds == pytest.approx(spoken.seconds, abs=0.01)
    assert written.heard.segments
    await blobs.close()


async def test_sounds_and_films_are_kept_as_blobs(simulator: Simulator, tmp_path: Path) -> None:
    blobs = FileBlobs(tmp_path, inline=100)
    client = LocalAIClient(name="sim", url=simulator.url, api_key="sesame", verify=TLS, blobs=blobs)
    [sound] = (await result_of(client, Txt2SoundRequest(prompt="rain", seconds=2))).audio
    film = Txt2VideoRequest(prompt="waves", width=64, height=64, num_frames=4, fps=4, steps=1)
    [made] = (await result_of(client, film)).videos

    assert sound.media_type == "audio/wav"
    assert sound.seconds == pytest.approx(2, abs=0.01)
    assert made.media_type == "video/mp4"
    for kept in (sound.data, made.data):
        assert isinstance(kept, Blob)
        assert len(await blobs.read(kept)) == kept.size
    await client.close()
    await blobs.close()


async def test_an_inpainted_picture_is_fetched_where_it_is_served(client: LocalAIClient) -> None:
    drawn = (await result_of(client, DRAW)).images[0]
    assert isinstance(drawn.data, bytes)
    source = base64.b64encode(drawn.data).decode()
    paint = await prepare(
        InpaintRequest(image=source, mask=source, prompt="a hat", steps=1), no_jobs, InMemory()
    )

    with pytest.raises(BackendProtocolError) as unserved:
        await result_of(client, paint)
    with Simulator(SimulatorConfig(speed=0, inpainting_files_served=True)) as serving:
        other = LocalAIClient(name="sim", url=serving.url, verify=TLS)
        [painted] = (await result_of(other, paint)).images
        await other.close()

    assert "inpainted" in unserved.value.hint
    assert (painted.width, painted.height) == (512, 512)


async def test_it_knows_what_is_offered_and_what_is_in_memory(client: LocalAIClient) -> None:
    offered = {model.name: sorted(model.modalities or ()) for model in await client.models()}
    await client.load("sim-chat")

    assert offered["sim-chat"] == [Modality.TXT2TXT]
    assert offered["sim-vision"] == [Modality.IMG2TXT, Modality.TXT2TXT]
    assert offered["sim-image"] == [Modality.IMG2IMG, Modality.TXT2IMG]
    assert offered["sim-embed"] == [Modality.RERANK, Modality.TXT2VEC]
    assert offered["sim-voice"] == [
        Modality.AUDIO2TXT, Modality.TXT2AUDIO, Modality.TXT2SOUND
    ]  # fmt: skip
    assert offered["sim-video"] == [Modality.TXT2VIDEO]
    assert [] in offered.values()
    assert await client.resident() == frozenset({"sim-chat"})
    await client.unload("sim-chat")
    await client.unload("sim-chat")
    assert await client.resident() == frozenset()
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
    (GO_ON, "reset", {"after_tokens": 2}, StreamCut),
    (GO_ON, "cut", {"after_tokens": 2}, StreamCut),
    (GO_ON, "no_done", {}, StreamCut),
    (GO_ON, "stream_error", {}, ModelCrashed),
    (GO_ON, "stream_error", {"after_tokens": 2}, ModelCrashed),
    (GO_ON, "stream_error", {"after_tokens": 99}, ModelCrashed),
    (GO_ON, "load_failure", {}, ModelLoadFailed),
    (GO_ON, "status", {"status": 500}, BackendFailed),
    (GO_ON, "garbage", {"what": "truncated_json"}, BackendProtocolError),
    (GO_ON, "garbage", {"what": "wrong_type"}, BackendProtocolError),
    (JUDGE, "reset", {}, BackendUnavailable),
    (JUDGE, "rejected", {"retry_after": 3.0}, BackendBusy),
    (JUDGE, "load_failure", {}, ModelLoadFailed),
    (JUDGE, "garbage", {"what": "html"}, BackendProtocolError),
    (JUDGE, "garbage", {"what": "wrong_type"}, BackendProtocolError),
    (LIKELY, "cut", {}, BackendUnavailable),
    (LIKELY, "crash", {"after_tokens": 1}, ModelCrashed),
    (LIKELY, "load_failure", {}, ModelLoadFailed),
    (LIKELY, "garbage", {"what": "wrong_type"}, BackendProtocolError),
    (SAY, "reset", {}, BackendUnavailable),
    (SAY, "cut", {}, BackendUnavailable),
    (SAY, "load_failure", {}, ModelLoadFailed),
    (SAY, "garbage", {"what": "html"}, BackendProtocolError),
    (SAY, "garbage", {"what": "empty_body"}, BackendProtocolError),
    (EMBED, "reset", {}, BackendUnavailable),
    (EMBED, "load_failure", {}, ModelLoadFailed),
    (EMBED, "garbage", {"what": "html"}, BackendProtocolError),
    (EMBED, "garbage", {"what": "truncated_json"}, BackendProtocolError),
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

    assert record.correlation_id == "chatcmpl-job-9"
    assert record.ending == "client_left"
    simulator.control.patch(speed=0)
