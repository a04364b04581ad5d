"""The stand-in seen by a client that was written for the real thing."""

from collections.abc import Generator

import pytest
from openai import InternalServerError, OpenAI

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
