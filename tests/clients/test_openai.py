"""OpenAI's own client: chats, completions, embeddings and lists."""

import asyncio
import json
from typing import Literal

import pytest
from openai import AsyncOpenAI, NotFoundError, OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionToolParam
from pydantic import BaseModel

from tests.clients.conftest import KEY
from tests.routes.house import House, base64_of, png

LOOK_UP: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Look a word up",
        "parameters": {
            "type": "object",
            "properties": {"word": {"type": "string", "enum": ["fox"]}},
            "required": ["word"],
        },
    },
}


class Weather(BaseModel):
    sky: Literal["clear", "cloudy"]
    degrees: int


def said(completion: ChatCompletion) -> str | None:
    return completion.choices[0].message.content


# chat.completions.create


def test_create_answers_a_chat(client: OpenAI) -> None:
    completion = client.chat.completions.create(
        model="sim-chat",
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "repeat: hi there"},
        ],
    )

    assert completion.object == "chat.completion"
    assert completion.id.startswith("chatcmpl-")
    assert completion.model == "sim-chat"
    assert completion.created > 1_700_000_000
    [choice] = completion.choices
    assert (choice.index, choice.finish_reason) == (0, "stop")
    assert (choice.message.role, choice.message.content) == ("assistant", "hi there")
    assert choice.message.tool_calls is None
    assert completion.usage is not None
    assert completion.usage.prompt_tokens == 7
    assert completion.usage.completion_tokens == 2
    assert completion.usage.total_tokens == 9


def test_create_works_without_v1_in_the_address(house: House) -> None:
    with OpenAI(base_url=house.url, api_key=KEY, max_retries=0) as client:
        completion = client.chat.completions.create(
            model="sim-chat", messages=[{"role": "user", "content": "repeat: hi"}]
        )

        assert said(completion) == "hi"
        assert "sim-chat" in [model.id for model in client.models.list()]


def test_create_remembers_the_conversation(client: OpenAI) -> None:
    completion = client.chat.completions.create(
        model="sim-chat",
        messages=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": "Who are you?", "name": "ada"},
            {"role": "assistant", "content": "A stand-in."},
            {"role": "user", "content": [{"type": "text", "text": "repeat: as you say"}]},
        ],
    )

    assert said(completion) == "as you say"


def test_create_streams(client: OpenAI) -> None:
    stream = client.chat.completions.create(
        model="sim-chat", messages=[{"role": "user", "content": "count to 5"}], stream=True
    )

    chunks = list(stream)
    choices = [choice for chunk in chunks for choice in chunk.choices]
    assert "".join(choice.delta.content or "" for choice in choices) == "1 2 3 4 5"
    assert choices[0].delta.role == "assistant"
    assert [choice.finish_reason for choice in choices][-1] == "stop"
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert {chunk.model for chunk in chunks} == {"sim-chat"}
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[0].id.startswith("chatcmpl-")
    assert all(chunk.usage is None for chunk in chunks)


def test_a_stream_ends_with_its_usage_when_that_is_wished(client: OpenAI) -> None:
    stream = client.chat.completions.create(
        model="sim-chat",
        messages=[{"role": "user", "content": "count to 5"}],
        stream=True,
        stream_options={"include_usage": True},
    )

    *others, last = stream
    assert last.choices == []
    assert last.usage is not None
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (3, 5)
    assert all(chunk.usage is None for chunk in others)


async def test_the_async_client_chats_many_times_at_once(aclient: AsyncOpenAI) -> None:
    completions = await asyncio.gather(
        *(
            aclient.chat.completions.create(
                model="sim-chat", messages=[{"role": "user", "content": f"repeat: {number}"}]
            )
            for number in range(8)
        )
    )

    assert [said(each) for each in completions] == [str(number) for number in range(8)]
    assert len({each.id for each in completions}) == 8


async def test_the_async_client_streams(aclient: AsyncOpenAI) -> None:
    stream = await aclient.chat.completions.create(
        model="sim-chat", messages=[{"role": "user", "content": "count to 3"}], stream=True
    )

    pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert "".join(pieces) == "1 2 3"


def test_the_raw_response_tells_of_the_queue(client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="sim-chat", messages=[{"role": "user", "content": "repeat: hi"}]
    )

    assert said(raw.parse()) == "hi"
    assert raw.headers["x-job-id"]
    assert float(raw.headers["x-queue-wait"]) >= 0
    assert raw.headers["x-attempts"] == "1"
    assert raw.headers["x-model"] == "sim-chat"
    assert raw.headers["x-backend"]


# What can be wished of an answer


def test_an_answer_ends_before_its_stop(client: OpenAI) -> None:
    completion = client.chat.completions.create(
        model="sim-chat", messages=[{"role": "user", "content": "count to 9"}], stop=["4", "7"]
    )

    assert (said(completion) or "").strip() == "1 2 3"
    assert completion.choices[0].finish_reason == "stop"


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_an_answer_is_as_long_as_it_may_be(client: OpenAI, field: str) -> None:
    completion = client.chat.completions.create(
        model="sim-chat",
        messages=[{"role": "user", "content": "tokens 50"}],
        extra_body={field: 7},
    )

    assert completion.choices[0].finish_reason == "length"
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 7


def test_n_answers_come_at_once(client: OpenAI) -> None:
    completion = client.chat.completions.create(
        model="sim-chat", messages=[{"role": "user", "content": "Say something"}], n=2
    )

    assert [choice.index for choice in completion.choices] == [0, 1]
    first, second = (choice.message.content for choice in completion.choices)
    assert first
    assert second
    assert first != second


def test_n_answers_are_streamed_apart(client: OpenAI) -> None:
    stream = client.chat.completions.create(
        model="sim-chat",
        messages=[{"role": "user", "content": "count to 3"}],
        n=2,
        stream=True,
    )

    texts = {0: "", 1: ""}
    for chunk in stream:
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == {0: "1 2 3", 1: "1 2 3"}


def test_logprobs_belong_to_the_tokens_of_the_answer(client: OpenAI) -> None:
    completion = client.chat.completions.create(
        model="sim-chat",
        messages=[{"role": "user", "content": "count to 3"}],
        logprobs=True,
        top_logprobs=2,
    )

    told = completion.choices[0].logprobs
    assert told is not None
    assert told.content is not None
    assert [it.token for it in told.content] == ["1", " 2", " 3"]
    assert all(it.logprob < 0 for it in told.content)
    assert [len(it.top_logprobs) for it in told.content] == [2, 2, 2]


def test_streamed_logprobs_belong_to_the_tokens_of_the_answer(client: OpenAI) -> None:
    stream = client.chat.completions.create(
        model="sim-chat",
        messages=[{"role": "user", "content": "count to 3"}],
        logprobs=True,
        stream=True,
    )

    told = [choice.logprobs for chunk in stream for choice in chunk.choices]
    tokens = [it.token for each in told if each is not None for it in each.content or []]
    assert tokens == ["1", " 2", " 3"]


def test_the_same_seed_gives_the_same_answer(client: OpenAI) -> None:
    one, same, other = (
        client.chat.completions.create(
            model="sim-chat", messages=[{"role": "user", "content": "Tell a tale"}], seed=seed
        )
        for seed in (7, 7, 8)
    )

    assert said(one) == said(same) != said(other)


def test_fields_that_localai_knows_pass_through(client: OpenAI) -> None:
    completion = client.chat.completions.create(
        model="sim-chat",
        messages=[{"role": "user", "content": "repeat: hi"}],
        frequency_penalty=0.1,
        user="ada",
        store=False,
        metadata={"topic": "greetings"},
        extra_body={"top_k": 20, "min_p": 0.1, "repeat_penalty": 1.1},
    )

    assert said(completion) == "hi"


def test_reasoning_is_passed_on(client: OpenAI) -> None:
    completion = client.chat.completions.create(
        model="sim-chat",
        messages=[{"role": "user", "content": "repeat: hi"}],
        reasoning_effort="high",
    )

    assert said(completion) == "hi"
    thoughts = completion.choices[0].message.model_extra or {}
    assert "No thought is needed." in thoughts["reasoning_content"]


# Tools and structured answers


def test_tool_choice_names_the_function_to_call(client: OpenAI) -> None:
    completion = client.chat.completions.create(
        model="sim-chat",
        messages=[{"role": "user", "content": "Hello"}],
        tools=[LOOK_UP],
        tool_choice={"type": "function", "function": {"name": "look_up"}},
    )

    [choice] = completion.choices
    [call] = choice.message.tool_calls or []
    assert choice.finish_reason == "tool_calls"
    assert call.type == "function"
    assert call.id
    assert call.function.name == "look_up"
    assert json.loads(call.function.arguments) == {"word": "fox"}


@pytest.mark.parametrize(("choice", "calls"), [("required", 1), ("none", 0), ("auto", 0)])
def test_tool_choice_says_whether_to_call(
    client: OpenAI, choice: Literal["required", "none", "auto"], calls: int
) -> None:
    completion = client.chat.completions.create(
        model="sim-chat",
        messages=[{"role": "user", "content": "repeat: hi"}],
        tools=[LOOK_UP],
        tool_choice=choice,
    )

    assert len(completion.choices[0].message.tool_calls or []) == calls
    assert (said(completion) == "hi") is (calls == 0)


def test_the_result_of_a_tool_is_answered_in_words(client: OpenAI) -> None:
    question = {"role": "user", "content": "please look_up"}
    first = client.chat.completions.create(
        model="sim-chat", messages=[{"role": "user", "content": "please look_up"}], tools=[LOOK_UP]
    )
    message = first.choices[0].message
    [call] = message.tool_calls or []

    second = client.chat.completions.create(
        model="sim-chat",
        messages=[
            question,  # type: ignore[list-item]
            message,  # type: ignore[list-item]
            {"role": "tool", "tool_call_id": call.id, "content": "a red animal"},
        ],
        tools=[LOOK_UP],
    )

    assert second.choices[0].finish_reason == "stop"
    assert "in 3 messages" in (said(second) or "")


def test_a_streamed_call_is_put_together_by_the_client(client: OpenAI) -> None:
    with client.chat.completions.stream(
        model="sim-chat", messages=[{"role": "user", "content": "please look_up"}], tools=[LOOK_UP]
    ) as stream:
        final = stream.get_final_completion()

    [call] = final.choices[0].message.tool_calls or []
    assert final.choices[0].finish_reason == "tool_calls"
    assert call.id
    assert call.function.name == "look_up"
    assert json.loads(call.function.arguments) == {"word": "fox"}


def test_parse_gives_an_object_of_the_callers_class(client: OpenAI) -> None:
    completion = client.chat.completions.parse(
        model="sim-chat",
        messages=[{"role": "user", "content": "How is the weather?"}],
        response_format=Weather,
    )

    assert completion.choices[0].message.parsed == Weather(sky="clear", degrees=0)


def test_response_format_asks_for_json(client: OpenAI) -> None:
    completion = client.chat.completions.create(
        model="sim-chat",
        messages=[{"role": "user", "content": "Answer in JSON"}],
        response_format={"type": "json_object"},
    )

    assert json.loads(said(completion) or "")["asked"] == "Answer in JSON"


# chat.completions.stream


def test_the_streaming_helper_tells_events_and_the_whole(client: OpenAI) -> None:
    with client.chat.completions.stream(
        model="sim-chat", messages=[{"role": "user", "content": "count to 4"}]
    ) as stream:
        deltas = [event.delta for event in stream if event.type == "content.delta"]
        final = stream.get_final_completion()

    assert "".join(deltas) == said(final) == "1 2 3 4"
    assert final.choices[0].finish_reason == "stop"


def test_the_streaming_helper_parses(client: OpenAI) -> None:
    with client.chat.completions.stream(
        model="sim-chat",
        messages=[{"role": "user", "content": "How is the weather?"}],
        response_format=Weather,
    ) as stream:
        final = stream.get_final_completion()

    assert final.choices[0].message.parsed == Weather(sky="clear", degrees=0)


async def test_the_async_streaming_helper_tells_the_whole(aclient: AsyncOpenAI) -> None:
    async with aclient.chat.completions.stream(
        model="sim-chat", messages=[{"role": "user", "content": "count to 4"}]
    ) as stream:
        final = await stream.get_final_completion()

    assert said(final) == "1 2 3 4"


# Vision


def test_a_picture_in_a_message_is_seen(client: OpenAI) -> None:
    url = f"data:image/png;base64,{base64_of(png(48, 32, 'teal'))}"
    completion = client.chat.completions.create(
        model="sim-vision",
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is this?"},
                    {"type": "image_url", "image_url": {"url": url, "detail": "low"}},
                ],
            }
        ],
    )

    assert "A 48x32 landscape picture" in (said(completion) or "")


def test_pictures_are_seen_in_their_order_and_the_answer_streamed(client: OpenAI) -> None:
    urls = [f"data:image/png;base64,{base64_of(png(*size))}" for size in ((48, 32), (32, 48))]
    stream = client.chat.completions.create(
        model="sim-vision",
        messages=[
            {
                "role": "user",
                "content": [{"type": "image_url", "image_url": {"url": url}} for url in urls],
            }
        ],
        stream=True,
    )

    text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert text.index("Picture 1: A 48x32") < text.index("Picture 2: A 32x48")


# completions


def test_completions_go_on_with_a_text(client: OpenAI) -> None:
    completion = client.completions.create(model="sim-chat", prompt="repeat: hi there")

    assert completion.object == "text_completion"
    assert completion.id.startswith("cmpl-")
    [choice] = completion.choices
    assert (choice.index, choice.text, choice.finish_reason) == (0, "hi there", "stop")
    assert completion.usage is not None
    assert completion.usage.completion_tokens > 0
    assert completion.usage.total_tokens > completion.usage.completion_tokens


def test_completions_go_on_with_several_texts(client: OpenAI) -> None:
    completion = client.completions.create(model="sim-chat", prompt=["repeat: one", "repeat: two"])

    assert [(choice.index, choice.text) for choice in completion.choices] == [
        (0, "one"),
        (1, "two"),
    ]


def test_completions_stream(client: OpenAI) -> None:
    stream = client.completions.create(model="sim-chat", prompt="count to 3", stream=True)

    chunks = list(stream)
    assert "".join(chunk.choices[0].text for chunk in chunks) == "1 2 3"
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert {chunk.object for chunk in chunks} == {"text_completion"}
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_long_completion_says_that_it_was_cut(client: OpenAI) -> None:
    completion = client.completions.create(model="sim-chat", prompt="tokens 50", max_tokens=7)

    assert completion.choices[0].finish_reason == "length"


# embeddings


def test_embeddings_come_as_numbers(client: OpenAI) -> None:
    made = client.embeddings.create(model="sim-embed", input=["a fox", "an owl", "a fox"])

    assert [item.index for item in made.data] == [0, 1, 2]
    assert [len(item.embedding) for item in made.data] == [64, 64, 64]
    assert made.data[0].embedding == made.data[2].embedding != made.data[1].embedding
    assert made.model == "sim-embed"
    assert made.usage.prompt_tokens == made.usage.total_tokens > 0


def test_embeddings_are_the_same_in_either_encoding(client: OpenAI) -> None:
    packed = client.embeddings.create(model="sim-embed", input="a fox")
    plain = client.embeddings.create(model="sim-embed", input="a fox", encoding_format="float")

    assert packed.data[0].embedding == pytest.approx(plain.data[0].embedding, abs=1e-6)


def test_base64_is_what_was_asked_for(client: OpenAI) -> None:
    raw = client.embeddings.with_raw_response.create(
        model="sim-embed", input="a fox", encoding_format="base64"
    )

    assert isinstance(raw.http_response.json()["data"][0]["embedding"], str)


@pytest.mark.parametrize(("given", "count"), [([1, 2, 3], 1), ([[1, 2, 3], [4, 5]], 2)])
def test_embeddings_are_made_of_tokens(
    client: OpenAI, given: list[int] | list[list[int]], count: int
) -> None:
    made = client.embeddings.create(model="sim-embed", input=given)

    assert [len(item.embedding) for item in made.data] == [64] * count


# models and moderations


def test_models_are_listed(client: OpenAI) -> None:
    models = {model.id: model for model in client.models.list()}

    assert {"sim-chat", "sim-vision", "sim-image", "sim-embed", "sim-voice"} <= set(models)
    assert models["sim-chat"].object == "model"
    assert isinstance(models["sim-chat"].created, int)
    assert models["sim-chat"].owned_by


def test_a_model_is_retrieved(client: OpenAI) -> None:
    assert client.models.retrieve("sim-chat").id == "sim-chat"


def test_a_model_that_is_not_there_is_not_found(client: OpenAI) -> None:
    with pytest.raises(NotFoundError, match="sim-chta"):
        client.models.retrieve("sim-chta")


def test_moderations_judge(client: OpenAI) -> None:
    judged = client.moderations.create(model="sim-chat", input="I like foxes")

    [result] = judged.results
    assert result.flagged is False
    assert result.categories.violence is False
