"""OpenAI's own client: what it raises, and what a caller reads in it."""

import asyncio
from collections.abc import Mapping
from typing import Any, cast

import pytest
from openai import (
    APIError,
    APIStatusError,
    APITimeoutError,
    AsyncOpenAI,
    AuthenticationError,
    BadRequestError,
    InternalServerError,
    NotFoundError,
    OpenAI,
    RateLimitError,
)

from tests.clients.conftest import KEY
from tests.routes.house import CANARY, House
from tests.routes.house import house as building

WORK = {"work": True}


def detail(error: APIError) -> Mapping[str, Any]:
    """Return what stands in the envelope; the client has taken it out."""
    return cast("Mapping[str, Any]", error.body)


async def chat(client: AsyncOpenAI) -> str | None:
    completion = await client.chat.completions.create(
        model="sim-chat", messages=[{"role": "user", "content": "repeat: hi"}]
    )
    return completion.choices[0].message.content


def test_an_unknown_model_is_not_found_and_the_nearest_are_named(client: OpenAI) -> None:
    with pytest.raises(NotFoundError) as caught:
        client.chat.completions.create(
            model="sim-chta", messages=[{"role": "user", "content": CANARY}]
        )

    error = caught.value
    assert (error.code, error.type, error.param) == (
        "model_not_found",
        "invalid_request_error",
        "model",
    )
    assert "sim-chat" in detail(error)["hint"]
    assert CANARY not in str(error)


def test_an_unknown_model_is_not_found_before_a_stream_begins(client: OpenAI) -> None:
    with pytest.raises(NotFoundError):
        client.chat.completions.create(
            model="sim-chta", messages=[{"role": "user", "content": "hi"}], stream=True
        )


def test_an_unknown_model_is_not_found_by_every_door(client: OpenAI) -> None:
    with pytest.raises(NotFoundError):
        client.embeddings.create(model="sim-embde", input="a fox")
    with pytest.raises(NotFoundError):
        client.images.generate(model="sim-imgae", prompt="a fox")
    with pytest.raises(NotFoundError):
        client.audio.speech.create(model="sim-voiec", voice="alloy", input="hi")


def test_a_wrong_value_is_a_bad_request_that_names_it(client: OpenAI) -> None:
    with pytest.raises(BadRequestError) as caught:
        client.chat.completions.create(
            model="sim-chat", messages=[{"role": "user", "content": CANARY}], temperature=9
        )

    error = caught.value
    assert (error.type, error.param) == ("invalid_request_error", "temperature")
    assert "0" in error.message
    assert "2" in error.message
    assert CANARY not in str(error)


def test_a_chat_without_messages_is_a_bad_request(client: OpenAI) -> None:
    with pytest.raises(BadRequestError) as caught:
        client.chat.completions.create(model="sim-chat", messages=[])

    assert caught.value.param == "messages"


def test_a_bad_picture_is_a_bad_request(client: OpenAI) -> None:
    url = "data:image/png;base64,bm90IGEgcGljdHVyZQ=="
    with pytest.raises(BadRequestError):
        client.chat.completions.create(
            model="sim-vision",
            messages=[
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}
            ],
        )


def test_a_size_that_is_none_is_a_bad_request(client: OpenAI) -> None:
    with pytest.raises(BadRequestError) as caught:
        client.images.generate(model="sim-image", prompt="a fox", extra_body={"size": "large"})

    assert caught.value.param == "size"


def test_an_error_in_the_middle_of_a_stream_is_raised_there(client: OpenAI, house: House) -> None:
    house.sim.add_fault("stream_error", match=WORK, after_tokens=3, message="out of luck")
    stream = client.chat.completions.create(
        model="sim-chat", messages=[{"role": "user", "content": "count to 9"}], stream=True
    )

    pieces: list[str] = []
    with pytest.raises(APIError) as caught:
        pieces.extend(chunk.choices[0].delta.content or "" for chunk in stream)
    assert detail(caught.value)["code"]
    assert detail(caught.value)["type"] == "server_error"


def test_a_backend_that_fails_is_a_server_error(client: OpenAI, house: House) -> None:
    house.sim.add_fault("status", match=WORK, status=500, message="boom")

    with pytest.raises(APIStatusError) as caught:
        client.chat.completions.create(
            model="sim-chat", messages=[{"role": "user", "content": CANARY}]
        )

    assert caught.value.status_code == 502
    assert caught.value.type == "server_error"
    assert caught.value.response.headers["x-attempts"] == "2"
    assert CANARY not in caught.value.response.text


def test_a_backend_that_stumbles_once_is_not_noticed(client: OpenAI, house: House) -> None:
    house.sim.add_fault("status", match=WORK, when={"times": 1}, status=500)

    raw = client.chat.completions.with_raw_response.create(
        model="sim-vision", messages=[{"role": "user", "content": "repeat: hi"}]
    )

    assert raw.parse().choices[0].message.content == "hi"
    assert raw.headers["x-attempts"] == "2"


async def test_what_waiting_cannot_mend_is_not_sent_again_by_a_client_as_it_comes() -> None:
    with building() as own:
        own.sim.hold()
        async with AsyncOpenAI(base_url=f"{own.url}/v1", api_key=KEY) as client:
            with pytest.raises(InternalServerError) as caught:
                await client.chat.completions.create(
                    model="sim-chat",
                    messages=[{"role": "user", "content": "repeat: hi"}],
                    extra_body={"timeout": 0.2},
                )
            submitted = await client.get(f"{own.url}/mcp/get_request_metrics", cast_to=object)
        own.sim.release()

    assert caught.value.code == "deadline_exceeded"
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert cast("dict[str, Any]", submitted)["total_requests"] == 1


async def test_a_full_queue_says_when_to_try_again() -> None:
    with building(max_waiting=1) as full:
        full.sim.hold()
        async with (
            AsyncOpenAI(base_url=f"{full.url}/v1", api_key=KEY, max_retries=0) as client,
            asyncio.TaskGroup() as group,
        ):
            running = group.create_task(chat(client))
            await full.until("/queue-status", lambda s: s["queues"]["txt2txt"]["running"])
            waiting = group.create_task(chat(client))
            await full.until("/queue-status", lambda s: s["queues"]["txt2txt"]["waiting"])

            with pytest.raises(InternalServerError) as caught:
                await chat(client)
            full.sim.release()

    assert await running == await waiting == "hi"
    assert caught.value.status_code == 503
    assert caught.value.code == "queue_full"
    assert int(caught.value.response.headers["retry-after"]) >= 1


async def test_a_client_that_waits_out_a_full_queue_gets_its_answer() -> None:
    with building(max_waiting=1) as full:
        full.sim.hold()
        async with (
            AsyncOpenAI(base_url=f"{full.url}/v1", api_key=KEY, max_retries=9) as client,
            asyncio.TaskGroup() as group,
        ):
            first = group.create_task(chat(client))
            await full.until("/queue-status", lambda s: s["queues"]["txt2txt"]["running"])
            others = [group.create_task(chat(client)) for _ in range(3)]
            await full.until("/queue-status", lambda s: s["queues"]["txt2txt"]["waiting"])
            full.sim.release()

    assert [await first, *[await each for each in others]] == ["hi"] * 4


@pytest.mark.parametrize("stream", [False, True])
def test_a_timeout_takes_the_work_along(house: House, stream: bool) -> None:
    house.sim.hold()
    house.sim.forget_requests()
    with (
        OpenAI(base_url=f"{house.url}/v1", api_key=KEY, max_retries=0, timeout=0.3) as client,
        pytest.raises(APITimeoutError),
    ):
        client.chat.completions.create(
            model="sim-chat",
            messages=[{"role": "user", "content": "tokens 500"}],
            stream=stream,
        )

    [begun] = house.sim.wait(model="sim-chat", state="started")
    [record] = house.sim.wait(model="sim-chat", state="ended", since=begun.number - 1)
    assert record.ending == "client_left"


def test_a_wrong_key_is_refused_and_the_right_one_works() -> None:
    with (
        building(api_keys={"ada": "sesame-4711-sesame"}) as locked,
        OpenAI(base_url=f"{locked.url}/v1", api_key="wrong", max_retries=0) as stranger,
        OpenAI(base_url=f"{locked.url}/v1", api_key="sesame-4711-sesame") as ada,
    ):
        with pytest.raises(AuthenticationError) as caught:
            stranger.chat.completions.create(
                model="sim-chat", messages=[{"role": "user", "content": "repeat: hi"}]
            )
        completion = ada.chat.completions.create(
            model="sim-chat", messages=[{"role": "user", "content": "repeat: hi"}]
        )

    assert caught.value.type == "authentication_error"
    assert "wrong" not in caught.value.response.text
    assert completion.choices[0].message.content == "hi"


async def test_a_caller_with_too_much_in_line_is_told_to_wait() -> None:
    with building(max_waiting_per_caller=1) as full:
        full.sim.hold()
        async with (
            AsyncOpenAI(base_url=f"{full.url}/v1", api_key=KEY, max_retries=0) as client,
            asyncio.TaskGroup() as group,
        ):
            group.create_task(chat(client))
            await full.until("/queue-status", lambda s: s["queues"]["txt2txt"]["running"])
            group.create_task(chat(client))
            await full.until("/queue-status", lambda s: s["queues"]["txt2txt"]["waiting"])

            with pytest.raises(RateLimitError) as caught:
                await chat(client)
            full.sim.release()

    assert caught.value.type == "rate_limit_error"
    assert int(caught.value.response.headers["retry-after"]) >= 1


def test_a_deadline_that_passes_is_a_server_error(client: OpenAI, house: House) -> None:
    house.sim.hold()

    with pytest.raises(APIStatusError) as caught:
        client.chat.completions.create(
            model="sim-chat",
            messages=[{"role": "user", "content": "repeat: hi"}],
            extra_headers={"X-Timeout": "0.2"},
        )

    assert (caught.value.status_code, caught.value.code) == (504, "deadline_exceeded")


def test_a_call_repeated_with_its_key_is_answered_by_the_same_job(client: OpenAI) -> None:
    one, other = (
        client.chat.completions.create(
            model="sim-chat",
            messages=[{"role": "user", "content": "Say something"}],
            extra_headers={"Idempotency-Key": "only-once"},
        )
        for _ in range(2)
    )

    assert one.id == other.id
    assert one.choices[0].message.content == other.choices[0].message.content
