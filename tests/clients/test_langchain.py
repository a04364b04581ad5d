"""LangChain's classes for OpenAI, pointed at the manager by `base_url`."""

from typing import Any, Literal

import pytest
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel, SecretStr

from tests.clients.conftest import KEY, LEAVES_OPEN
from tests.routes.house import House, base64_of, png

pytestmark = LEAVES_OPEN


class Weather(BaseModel):
    """How the weather is."""

    sky: Literal["clear", "cloudy"]
    degrees: int


@tool
def look_up(word: Literal["fox"]) -> str:
    """Look a word up."""
    return f"{word}: a red animal"


@pytest.fixture
def chat(house: House) -> ChatOpenAI:
    return ChatOpenAI(
        model="sim-chat", base_url=f"{house.url}/v1", api_key=SecretStr(KEY), max_retries=0
    )


def test_invoke(chat: ChatOpenAI) -> None:
    answer = chat.invoke([SystemMessage("Be brief."), HumanMessage("repeat: hi there")])

    assert answer.content == "hi there"
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["output_tokens"] == 2
    assert answer.response_metadata["finish_reason"] == "stop"
    assert answer.response_metadata["model_name"] == "sim-chat"


@pytest.mark.asyncio(loop_scope="module")
async def test_ainvoke(chat: ChatOpenAI) -> None:
    answer = await chat.ainvoke("repeat: hi there")

    assert answer.content == "hi there"


def test_batch(chat: ChatOpenAI) -> None:
    answers = chat.batch([f"repeat: {number}" for number in range(4)])

    assert [answer.content for answer in answers] == ["0", "1", "2", "3"]


def test_stream(chat: ChatOpenAI) -> None:
    chunks = list(chat.stream("count to 5", stream_usage=True))

    assert "".join(str(chunk.content) for chunk in chunks) == "1 2 3 4 5"
    told = [chunk.usage_metadata for chunk in chunks if chunk.usage_metadata is not None]
    assert [usage["output_tokens"] for usage in told] == [5]


@pytest.mark.asyncio(loop_scope="module")
async def test_astream(chat: ChatOpenAI) -> None:
    pieces = [str(chunk.content) async for chunk in chat.astream("count to 5")]

    assert "".join(pieces) == "1 2 3 4 5"


def test_bind_tools(chat: Any) -> None:
    question = HumanMessage("please look_up")
    bound = chat.bind_tools([look_up])

    called = bound.invoke([question])
    [call] = called.tool_calls
    assert (call["name"], call["args"]) == ("look_up", {"word": "fox"})

    result = look_up.invoke(call)
    final = bound.invoke([question, called, result])
    assert "in 3 messages" in str(final.content)


def test_streamed_tool_calls(chat: Any) -> None:
    first, *others = chat.bind_tools([look_up], tool_choice="look_up").stream("Hello")
    whole = first
    for chunk in others:
        whole += chunk

    assert [(call["name"], call["args"]) for call in whole.tool_calls] == [
        ("look_up", {"word": "fox"})
    ]


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_with_structured_output(
    chat: Any, method: Literal["json_schema", "function_calling"]
) -> None:
    answer = chat.with_structured_output(Weather, method=method).invoke("How is the weather?")

    assert answer == Weather(sky="clear", degrees=0)


def test_a_picture_in_a_message(house: House) -> None:
    seeing = ChatOpenAI(
        model="sim-vision", base_url=f"{house.url}/v1", api_key=SecretStr(KEY), max_retries=0
    )
    url = f"data:image/png;base64,{base64_of(png(48, 32))}"

    answer = seeing.invoke([HumanMessage([{"type": "image_url", "image_url": {"url": url}}])])

    assert "A 48x32 landscape picture" in str(answer.content)


@pytest.fixture
def embeddings(house: House) -> OpenAIEmbeddings:
    return OpenAIEmbeddings(
        model="sim-embed",
        base_url=f"{house.url}/v1",
        api_key=SecretStr(KEY),
        max_retries=0,
        check_embedding_ctx_length=False,  # else it fetches a tokeniser
    )


def test_embed_documents_and_query(embeddings: OpenAIEmbeddings) -> None:
    fox, owl = embeddings.embed_documents(["a fox", "an owl"])

    assert len(fox) == len(owl) == 64
    assert embeddings.embed_query("a fox") == pytest.approx(fox)
    assert fox != owl


@pytest.mark.asyncio(loop_scope="module")
async def test_aembed_documents(embeddings: OpenAIEmbeddings) -> None:
    assert [len(vector) for vector in await embeddings.aembed_documents(["a", "b"])] == [64, 64]
