"""LiteLLM as a client: one function for each kind of work, told where to go by `api_base`."""

import importlib
import json
from collections.abc import Generator
from typing import Any

import httpx2
import pytest

from tests.clients.conftest import KEY, LEAVES_OPEN
from tests.routes.house import House, base64_of, png

USER = [{"role": "user", "content": "repeat: hi there"}]
COUNT = [{"role": "user", "content": "count to 5"}]

# What it does inside, its callers cannot mend.
pytestmark = [
    LEAVES_OPEN,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:pydantic|litellm"),
]


@pytest.fixture(scope="module")
def litellm() -> Generator[Any]:
    """Import it for those who need it: it takes seconds."""
    module: Any = importlib.import_module("litellm")
    module.telemetry = False
    module.suppress_debug_info = True
    yield module
    module.in_memory_llm_clients_cache.flush_cache()


@pytest.fixture
def there(house: House) -> dict[str, Any]:
    """Where to go; every function takes these."""
    return {"api_base": f"{house.url}/v1", "api_key": KEY, "max_retries": 0}


def test_completion(litellm: Any, there: dict[str, Any]) -> None:
    answer = litellm.completion(model="openai/sim-chat", messages=USER, **there)

    assert answer.choices[0].message.content == "hi there"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.id.startswith("chatcmpl-")
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (4, 2)


@pytest.mark.asyncio(loop_scope="module")
async def test_acompletion(litellm: Any, there: dict[str, Any]) -> None:
    answer = await litellm.acompletion(model="openai/sim-chat", messages=USER, **there)

    assert answer.choices[0].message.content == "hi there"


def test_completion_streams(litellm: Any, there: dict[str, Any]) -> None:
    chunks = list(
        litellm.completion(
            model="openai/sim-chat",
            messages=COUNT,
            stream=True,
            stream_options={"include_usage": True},
            **there,
        )
    )

    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(pieces) == "1 2 3 4 5"
    assert [chunk.usage.completion_tokens for chunk in chunks if hasattr(chunk, "usage")] == [5]


@pytest.mark.asyncio(loop_scope="module")
async def test_acompletion_streams(litellm: Any, there: dict[str, Any]) -> None:
    stream = await litellm.acompletion(
        model="openai/sim-chat", messages=COUNT, stream=True, **there
    )

    pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert "".join(pieces) == "1 2 3 4 5"


def test_completion_with_tools(litellm: Any, there: dict[str, Any]) -> None:
    function: dict[str, Any] = {
        "name": "look_up",
        "parameters": {"type": "object", "properties": {}},
    }
    answer = litellm.completion(
        model="openai/sim-chat",
        messages=COUNT,
        tools=[{"type": "function", "function": function}],
        tool_choice="required",
        **there,
    )

    [call] = answer.choices[0].message.tool_calls
    assert call.function.name == "look_up"
    assert json.loads(call.function.arguments) == {}


def test_completion_with_a_picture(litellm: Any, there: dict[str, Any]) -> None:
    url = f"data:image/png;base64,{base64_of(png(48, 32))}"
    answer = litellm.completion(
        model="openai/sim-vision",
        messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}],
        **there,
    )

    assert "A 48x32 landscape picture" in answer.choices[0].message.content


def test_text_completion(litellm: Any, there: dict[str, Any]) -> None:
    answer = litellm.text_completion(
        model="text-completion-openai/sim-chat", prompt="repeat: hi", **there
    )

    assert answer.choices[0].text == "hi"


def test_embedding(litellm: Any, there: dict[str, Any]) -> None:
    made = litellm.embedding(model="openai/sim-embed", input=["a fox", "an owl"], **there)

    assert [len(item["embedding"]) for item in made.data] == [64, 64]
    assert made.usage.prompt_tokens > 0


def test_image_generation(litellm: Any, there: dict[str, Any]) -> None:
    drawn = litellm.image_generation(
        model="openai/sim-image", prompt="a fox", size="256x256", **there
    )

    picture = httpx2.get(drawn.data[0].url, trust_env=False)
    assert picture.content.startswith(b"\x89PNG")


def test_speech_and_transcription(litellm: Any, there: dict[str, Any]) -> None:
    spoken = litellm.speech(
        model="openai/sim-voice", voice="alloy", input="hello", response_format="wav", **there
    )
    heard = litellm.transcription(
        model="openai/sim-voice", file=("hello.wav", spoken.content), **there
    )

    assert heard.text.endswith('from "hello".')


def test_rerank(litellm: Any, house: House) -> None:
    ranked = litellm.rerank(
        model="hosted_vllm/sim-embed",
        query="a red fox",
        documents=["an owl at night", "the red fox", "bread"],
        top_n=2,
        api_base=f"{house.url}/v1",
        api_key=KEY,
    )

    assert ranked.results[0]["index"] == 1
    assert len(ranked.results) == 2
    assert ranked.results[0]["relevance_score"] > ranked.results[1]["relevance_score"]


def test_a_mistyped_model_is_an_error_that_names_the_nearest(
    litellm: Any, there: dict[str, Any]
) -> None:
    with pytest.raises(litellm.NotFoundError, match="sim-chat"):
        litellm.completion(model="openai/sim-chta", messages=USER, **there)
