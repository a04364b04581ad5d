"""The stand-in seen by a client that was written for the real thing."""

from collections.abc import Generator

import pytest
from openai import InternalServerError, OpenAI
from pydantic import BaseModel

from src.simulator.client import ControlClient
from src.simulator.serve import Simulator


@pytest.fixture
def openai(simulator: Simulator) -> Generator[OpenAI]:
    with OpenAI(base_url=f"{simulator.url}/v1", api_key="any", max_retries=0) as client:
        yield client


def test_openais_client_chats_and_streams(openai: OpenAI) -> None:
    whole = openai.chat.completions.create(
        model="sim-chat", messages=[{"role": "user", "content": "repeat: hi"}]
    )
    stream = openai.chat.completions.create(
        model="sim-chat", messages=[{"role": "user", "content": "count to 5"}], stream=True
    )

    assert whole.choices[0].message.content == "hi"
    pieces = [chunk.choices[0].delta.content or "" for chunk in stream]
    assert "".join(pieces) == "1 2 3 4 5"


def test_openais_client_draws_and_looks(openai: OpenAI) -> None:
    drawn = openai.images.generate(
        model="sim-image", prompt="a fox", size="256x256", response_format="b64_json"
    )

    assert drawn.data is not None
    url = f"data:image/png;base64,{drawn.data[0].b64_json}"
    seen = openai.chat.completions.create(
        model="sim-vision",
        messages=[
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]},
        ],
    )
    assert 'from "a fox"' in (seen.choices[0].message.content or "")


def test_openais_client_leaves_a_stream_early(openai: OpenAI, control: ControlClient) -> None:
    control.patch(speed=20)
    stream = openai.chat.completions.create(
        model="sim-chat", messages=[{"role": "user", "content": "tokens 9999"}], stream=True
    )
    next(iter(stream))
    stream.close()

    assert control.wait(state="ended")[0].ending == "client_left"


def test_openais_client_understands_the_errors(openai: OpenAI, control: ControlClient) -> None:
    control.add_fault("rejected")

    with pytest.raises(InternalServerError, match="limit of concurrent requests"):
        openai.chat.completions.create(model="sim-chat", messages=[])
    control.clear_faults()
    assert [model.id for model in openai.models.list()][-1] == "loose-file"


def test_openais_client_embeds(openai: OpenAI) -> None:
    made = openai.embeddings.create(model="sim-embed", input=["a fox", "an owl", "a fox"])

    assert [len(item.embedding) for item in made.data] == [64, 64, 64]
    assert made.data[0].embedding == made.data[2].embedding != made.data[1].embedding


def test_openais_client_speaks_and_listens(openai: OpenAI) -> None:
    spoken = openai.audio.speech.create(
        model="sim-voice", voice="alloy", input="hello there", response_format="wav"
    )
    heard = openai.audio.transcriptions.create(
        model="sim-voice", file=("hello.wav", spoken.content), response_format="verbose_json"
    )

    assert heard.text.endswith('from "hello there".')
    assert heard.duration == 0.66


def test_openais_client_hears_a_stream(openai: OpenAI) -> None:
    spoken = openai.audio.speech.create(
        model="sim-voice", voice="alloy", input="hello", response_format="wav"
    )
    events = openai.audio.transcriptions.create(
        model="sim-voice", file=("hello.wav", spoken.content), stream=True
    )

    *deltas, whole = events
    assert whole.type == "transcript.text.done"
    assert "".join(it.delta for it in deltas if it.type == "transcript.text.delta") == whole.text


def test_openais_client_completes(openai: OpenAI) -> None:
    whole = openai.completions.create(model="sim-chat", prompt="repeat: hi")
    stream = openai.completions.create(model="sim-chat", prompt="count to 3", stream=True)

    assert whole.choices[0].text == "hi"
    assert "".join(chunk.choices[0].text for chunk in stream) == "1 2 3"


def test_openais_client_calls_a_function_and_reads_json(openai: OpenAI) -> None:
    class Answer(BaseModel):
        yes: bool

    called = openai.chat.completions.create(
        model="sim-chat",
        messages=[{"role": "user", "content": "please look_up"}],
        tools=[{"type": "function", "function": {"name": "look_up", "parameters": {}}}],
    )
    parsed = openai.chat.completions.parse(
        model="sim-chat", messages=[{"role": "user", "content": "?"}], response_format=Answer
    )

    calls = called.choices[0].message.tool_calls or []
    assert [call.function.name for call in calls if call.type == "function"] == ["look_up"]
    assert parsed.choices[0].message.parsed == Answer(yes=True)
