import asyncio
import json
import logging
import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from src.models.errors import (
    BackendBusy,
    BackendError,
    BackendFailed,
    BackendProtocolError,
    BackendRejected,
    BackendTimeout,
    BackendUnauthorised,
    BackendUnavailable,
    EmptyResult,
    InferenceManagerError,
    ModelLoadFailed,
    StreamCut,
    UnknownModel,
)
from src.models.messages import Message
from src.models.modality import Modality
from src.models.ports import Backend, OfferedModel
from src.models.requests import (
    CompletionRequest,
    Img2TxtRequest,
    InferenceRequest,
    ModerationRequest,
    Txt2TxtRequest,
)
from src.models.results import ChoiceEnd, Finish, Image, Logprobs, TextDelta, Verdict
from src.utils.localai_client import LocalAIClient
from tests.utils.localai_asking import (
    CANARY,
    DATA_URI,
    FOX,
    HELLO,
    ONE_PICTURE,
    ORDER,
    PNG,
    SAY,
    SNOW,
    TEXTS,
    answer,
    base64_of,
    client_of,
    failure,
    failure_of,
    png,
    small,
    stream,
)
from tests.utils.raw_server import (
    DONE,
    END,
    SSE_HEAD,
    Act,
    Script,
    chunk,
    delta,
    event,
    free_port,
    raw_server,
    reply,
)

# Conversations


async def test_a_chat_comes_piece_by_piece_and_ends_with_what_it_counted() -> None:
    usage = event({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}})
    script = stream(
        delta(None, role="assistant"), delta("Hel"), delta("lo"), delta(None, "stop"), usage, DONE
    )

    async with client_of(script) as (client, _):
        chunks = await answer(client)

    assert chunks == [TextDelta("Hel"), TextDelta("lo"), Finish("stop", 5, 2)]


async def test_a_chat_asks_for_a_stream_with_its_usage() -> None:
    request = Txt2TxtRequest(
        messages=(
            Message(role="developer", content="Be brief."),
            Message(role="user", content="grüß Gott 🦊"),
        ),
        temperature=0.0,
        top_p=0.5,
        top_k=3,
        max_tokens=9,
        stop=["END"],
        seed=1,
        presence_penalty=-1.0,
        frequency_penalty=1.0,
    )
    async with client_of(stream(delta("x", "stop"), DONE)) as (client, server):
        await answer(client, request)

    [heard] = server.heard
    assert heard.line == "POST /v1/chat/completions HTTP/1.1"
    assert heard.json == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "grüß Gott 🦊"},
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.0,
        "top_p": 0.5,
        "top_k": 3,
        "max_tokens": 9,
        "stop": ["END"],
        "seed": 1,
        "presence_penalty": -1.0,
        "frequency_penalty": 1.0,
    }


async def test_what_a_request_leaves_out_is_left_to_the_model() -> None:
    async with client_of(stream(delta("x", "stop"), DONE)) as (client, server):
        await answer(client)

    assert set(server.heard[0].json) == {"model", "messages", "stream", "stream_options"}


async def test_pictures_go_as_data_uris_before_the_question() -> None:
    request = Img2TxtRequest(images=(DATA_URI, DATA_URI), question="What is it?")
    async with client_of(stream(delta("red", "stop"), DONE)) as (client, server):
        await answer(client, request)

    assert server.heard[0].json["messages"] == [
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": DATA_URI}},
                {"type": "image_url", "image_url": {"url": DATA_URI}},
                {"type": "text", "text": "What is it?"},
            ],
        }
    ]


async def test_a_conversation_about_pictures_shows_each_where_it_belongs() -> None:
    blue = f"data:image/png;base64,{base64_of(png(color='blue'))}"
    request = Img2TxtRequest.model_validate(
        {
            "images": [DATA_URI, blue],
            "messages": [
                {
                    "content": [
                        {"type": "image", "image": 1},
                        {"type": "text", "text": "or"},
                        {"type": "image", "image": 0},
                        {"type": "image", "image": 1},
                    ]
                },
                {"role": "assistant", "content": "blue"},
            ],
        }
    )
    async with client_of(stream(delta("red", "stop"), DONE)) as (client, server):
        await answer(client, request)

    red, dark = ({"type": "image_url", "image_url": {"url": url}} for url in (DATA_URI, blue))
    assert server.heard[0].json["messages"] == [
        {"role": "user", "content": [dark, {"type": "text", "text": "or"}, red, dark]},
        {"role": "assistant", "content": "blue"},
    ]


async def test_tools_and_further_fields_are_handed_on_but_change_nothing_else() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    called = {"name": "ann", "tool_calls": [{"id": "c", "function": {"name": "f"}}]}
    odd = {"role": "system", "content": "odd"}
    request = Txt2TxtRequest.model_validate(
        {
            "messages": [{"role": "assistant", "content": "", "more": {**called, **odd}}],
            "tools": [tool],
            "temperature": 0,
            "options": {"tool_choice": "required", "grammar": "root ::= x"},
        }
    )
    async with client_of(stream(delta("x", "stop"), DONE)) as (client, server):
        await answer(client, request)

    assert server.heard[0].json == {
        "model": "m",
        "messages": [{"role": "assistant", "content": "", **called}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "tools": [tool],
        "tool_choice": "required",
        "grammar": "root ::= x",
        "temperature": 0.0,
    }


async def test_several_answers_are_several_calls_each_with_a_seed_of_its_own() -> None:
    usage = event({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}})
    scripts = [
        stream(delta(text, why), usage, DONE) for text, why in (("a", "length"), ("b", "stop"))
    ]
    request = HELLO.model_copy(update={"n": 2, "seed": 2**31 - 1})

    async with client_of(*scripts) as (client, server):
        chunks = await answer(client, request)

    assert chunks == [
        TextDelta("a"),
        ChoiceEnd("length", 0),
        TextDelta("b", choice=1),
        ChoiceEnd("stop", 1),
        Finish("length", 5, 4),
    ]
    assert [heard.json.get("seed") for heard in server.heard] == [2**31 - 1, 0]
    assert all("n" not in heard.json for heard in server.heard)


async def test_several_answers_without_a_seed_are_left_to_chance() -> None:
    script = stream(delta("a", "stop"), DONE)
    async with client_of(script, script) as (client, server):
        await answer(client, HELLO.model_copy(update={"n": 2}))

    assert [heard.json.get("seed") for heard in server.heard] == [None, None]


async def test_how_likely_tokens_were_is_asked_for_in_one_piece() -> None:
    told = {
        "choices": [
            {
                "finish_reason": "length",
                "message": {"content": "hi"},
                "logprobs": {"content": [{"token": "hi"}]},
            }
        ],
        "usage": {"prompt_tokens": 5, "completion_tokens": 1},
    }
    script = (reply(200, told, keep=True, x_simulated="yes"), Act.KEEP)
    request = HELLO.model_copy(update={"n": 2, "logprobs": True, "options": {"top_logprobs": 3}})

    async with client_of(script, script) as (client, server):
        chunks = await answer(client, request)

    assert chunks == [
        *(TextDelta("hi"), Logprobs(({"token": "hi"},)), ChoiceEnd("length")),
        *(TextDelta("hi", choice=1), Logprobs(({"token": "hi"},), 1), ChoiceEnd("length", 1)),
        Finish("length", 5, 2, simulated=True),
    ]
    assert (server.heard[0].json["logprobs"], server.heard[0].json["top_logprobs"]) == (True, 3)
    assert "stream" not in server.heard[0].json
    assert server.heard[0].header("X-Correlation-ID") == "chatcmpl-job-1"


async def test_each_text_is_gone_on_with_by_itself() -> None:
    def text(said: str, reason: str | None = None) -> bytes:
        return event({"choices": [{"index": 0, "finish_reason": reason, "text": said}]})

    scripts = [stream(text(word), text("", "stop"), DONE) for word in ("a", "b", "c", "d")]
    request = CompletionRequest(
        prompts=("one", "two"), n=2, seed=7, max_tokens=9, options={"echo": False}
    )
    async with client_of(*scripts) as (client, server):
        chunks = await answer(client, request)

    assert chunks == [
        *(TextDelta("a"), ChoiceEnd("stop")),
        *(TextDelta("b", choice=1), ChoiceEnd("stop", 1)),
        *(TextDelta("c", choice=2), ChoiceEnd("stop", 2)),
        *(TextDelta("d", choice=3), ChoiceEnd("stop", 3)),
        Finish("stop"),
    ]
    assert [(h.json["prompt"], h.json["seed"]) for h in server.heard] == [
        *(("one", 7), ("one", 8), ("two", 7), ("two", 8)),
    ]
    assert server.heard[0].line == "POST /v1/completions HTTP/1.1"
    assert server.heard[0].header("X-Correlation-ID") == "job-1"
    assert server.heard[0].json == {
        "model": "m",
        "prompt": "one",
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 9,
        "seed": 7,
        "echo": False,
    }


async def test_texts_are_judged_in_one_go() -> None:
    results = [{"flagged": True, "hate": 0.5}, {"flagged": False}]
    script = (reply(200, {"id": "u", "model": "m", "results": results}, keep=True), Act.KEEP)

    async with client_of(script) as (client, server):
        chunks = await answer(client, ModerationRequest(input=("one", "two")))

    assert chunks == [Verdict(({"flagged": True, "hate": 0.5}, {"flagged": False})), Finish()]
    assert server.heard[0].line == "POST /v1/moderations HTTP/1.1"
    assert server.heard[0].json == {"model": "m", "input": ["one", "two"]}


FINE = {"flagged": False}


@pytest.mark.parametrize(
    "results", [None, [], FINE, "x", [FINE], [None, FINE], [FINE, 7], [FINE, FINE, FINE]]
)
async def test_what_is_no_verdict_is_refused(results: object) -> None:
    script = reply(200, {"results": results}, keep=True)

    error = await failure_of(script, Act.KEEP, request=ModerationRequest(input=("one", "two")))

    assert isinstance(error, BackendProtocolError)


async def test_an_event_that_openai_could_have_written_is_given_on_as_it_came() -> None:
    told = {
        "id": "chatcmpl-job-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "finish_reason": None, "delta": {"content": "hi"}}],
    }
    async with client_of(stream(event(told), delta("!", "stop"), DONE)) as (client, _):
        first, second, _finish = await answer(client)

    assert isinstance(first, TextDelta)
    assert json.loads(first.event) == told
    assert second == TextDelta("!")


async def test_every_call_says_who_calls_and_for_which_job() -> None:
    async with client_of(stream(delta("x", "stop"), DONE), api_key="sesame") as (client, server):
        await answer(client)

    [heard] = server.heard
    assert heard.header("X-Correlation-ID") == "chatcmpl-job-1"
    assert heard.header("Authorization") == "Bearer sesame"
    assert heard.header("Accept-Encoding") == "identity"
    assert (heard.header("User-Agent") or "").startswith("inference-manager/0")


async def test_without_a_key_none_is_sent_and_the_environment_adds_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    async with client_of(stream(delta("x", "stop"), DONE)) as (client, server):
        await answer(client)

    assert server.heard[0].header("Authorization") is None
    assert server.heard[0].line.startswith("POST /v1/")


async def test_thinking_is_told_apart_from_the_answer() -> None:
    script = stream(
        delta(None, reasoning="hm"),
        delta("", reasoning_content="mh"),
        delta("yes", reasoning="ok"),
        delta(None, "stop"),
        DONE,
    )

    async with client_of(script) as (client, _):
        chunks = await answer(client)

    assert chunks[:-1] == [TextDelta("", "hm"), TextDelta("", "mh"), TextDelta("yes", "ok")]


async def test_events_that_are_no_part_of_the_answer_are_skipped() -> None:
    script = stream(
        chunk(": comment\n\n"),
        event({"type": "mcp_tool_result", "name": "n", "result": "r"}),
        event({"choices": None}),
        event({"choices": [{"index": 0}]}),
        event({"choices": [{"delta": None, "finish_reason": ""}]}),
        event({"error": None, "choices": []}),
        delta("x", "length"),
        event({"choices": [], "usage": {"prompt_tokens": None, "completion_tokens": -3}}),
        DONE,
    )

    async with client_of(script) as (client, _):
        assert await answer(client) == [TextDelta("x"), Finish("length", 0, 0)]


async def test_an_empty_text_with_a_reason_is_an_answer() -> None:
    async with client_of(stream(delta(None, "stop"), DONE)) as (client, _):
        assert await answer(client) == [Finish("stop")]


async def test_a_text_that_is_done_without_a_reason_was_cut_short() -> None:
    error = await failure_of(*stream(delta("x"), DONE))

    assert isinstance(error, StreamCut)


async def test_a_bare_done_is_no_answer() -> None:
    assert isinstance(await failure_of(*stream(DONE)), EmptyResult)


async def test_neither_text_nor_reason_is_no_answer() -> None:
    error = await failure_of(*stream(delta(None, role="assistant"), DONE))

    assert isinstance(error, EmptyResult)


async def test_what_comes_after_the_end_is_ignored_and_the_connection_used_again() -> None:
    script = stream(delta("x", "stop"), DONE, DONE, delta("y"), event({"error": "late"}))

    async with client_of(script) as (client, server):
        for _ in range(3):
            assert await answer(client) == [TextDelta("x"), Finish("stop")]

    assert server.connections == 1


async def test_an_end_that_does_not_come_after_done_is_not_waited_for() -> None:
    script = (SSE_HEAD, delta("x", "stop"), DONE, Act.HANG)

    async with client_of(script, idle_s=60.0) as (client, server):
        assert await answer(client) == [TextDelta("x"), Finish("stop")]
        async with asyncio.timeout(5):
            await server.left.wait()


@pytest.mark.parametrize("tail", ["data: [DONE]", "data: [DONE]\n"])
async def test_a_done_whose_line_end_was_lost_is_still_an_end(tail: str) -> None:
    async with client_of(stream(delta("x", "stop"), chunk(tail))) as (client, _):
        assert await answer(client) == [TextDelta("x"), Finish("stop")]


# Silence and absence


async def test_a_closed_port_was_not_reached() -> None:
    client = LocalAIClient(name="gpu", url=f"http://127.0.0.1:{free_port()}")

    error = await failure(client)
    await client.close()

    assert isinstance(error, BackendUnavailable)
    assert not error.reached


async def test_a_name_that_does_not_resolve_was_not_reached() -> None:
    client = LocalAIClient(name="gpu", url="http://does-not-exist.invalid:1")

    error = await failure(client)
    await client.close()

    assert isinstance(error, BackendUnavailable)
    assert not error.reached


async def test_a_closed_client_reaches_nobody() -> None:
    async with client_of(stream(DONE)) as (client, _):
        await client.close()
        error = await failure(client)

    assert isinstance(error, BackendUnavailable)
    assert not error.reached


def certificate(folder: Path, host: str, days: int = 1) -> Path:
    """Write a certificate that trusts itself, and its key, into one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    start = datetime.now(UTC) - timedelta(days=10)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=10 + days))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(host))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path = folder / "pair.pem"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + secret)
    return path


@pytest.mark.parametrize(
    ("host", "days", "trusted", "works"),
    [
        ("127.0.0.1", 1, True, True),
        ("127.0.0.1", 1, False, False),
        ("127.0.0.1", -1, True, False),
        ("127.0.0.2", 1, True, False),
    ],
    ids=["its CA given", "self-signed", "expired", "another host"],
)
async def test_only_a_certificate_that_is_trusted_is_spoken_to(
    tmp_path: Path, host: str, days: int, trusted: bool, works: bool
) -> None:
    path = certificate(tmp_path, host, days)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(path)
    verify = ssl.create_default_context(cafile=path if trusted else None)

    async with raw_server(stream(delta("x", "stop"), DONE), tls=tls) as server:
        client = LocalAIClient(name="gpu", url=server.url, api_key="sesame", verify=verify)
        if works:
            assert await answer(client) == [TextDelta("x"), Finish("stop")]
        else:
            error = await failure(client)
            assert isinstance(error, BackendUnavailable)
            assert not error.reached
            assert "certificate" in error.hint
            assert server.heard == []
        await client.close()


@pytest.mark.parametrize("request_", [HELLO, FOX], ids=["text", "picture"])
@pytest.mark.parametrize(
    "script",
    [(), (Act.RESET,), (b"HTTP/1.1 200 OK\r\nContent-Ty", Act.RESET)],
    ids=["closed", "reset", "reset in the headers"],
)
async def test_a_backend_that_hangs_up_before_it_answers_was_reached(
    script: Script, request_: InferenceRequest
) -> None:
    error = await failure_of(*script, request=request_)

    assert isinstance(error, BackendUnavailable)
    assert error.reached


@pytest.mark.parametrize("end", [b"", Act.RESET], ids=["closed", "reset"])
async def test_a_picture_that_breaks_off_was_reached(end: bytes | Act) -> None:
    error = await failure_of(ONE_PICTURE[0][:200], end, request=FOX)

    assert isinstance(error, BackendUnavailable)
    assert error.reached


@pytest.mark.parametrize("request_", [HELLO, FOX], ids=["text", "picture"])
async def test_silence_before_the_first_byte_ends(request_: InferenceRequest) -> None:
    async with client_of((Act.HANG,), first_byte_s=0.05) as (client, server):
        error = await failure(client, request_)
        async with asyncio.timeout(5):
            await server.left.wait()

    assert isinstance(error, BackendTimeout)


async def test_each_modality_has_its_own_patience() -> None:
    patience = {Modality.TXT2IMG: 0.05}
    async with client_of((Act.HANG,), ONE_PICTURE, first_byte_s=patience) as (client, server):
        assert isinstance(await failure(client, FOX), BackendTimeout)
        task = asyncio.create_task(answer(client, SNOW))
        chunks = await task

    assert len(chunks) == 2
    assert len(server.heard) == 2


@pytest.mark.parametrize(
    ("request_", "begun"),
    [(HELLO, (SSE_HEAD, delta("x"))), (FOX, (ONE_PICTURE[0][:300],))],
    ids=["after a word", "inside a picture"],
)
async def test_silence_inside_an_answer_ends(
    request_: InferenceRequest, begun: tuple[bytes, ...]
) -> None:
    async with client_of((*begun, Act.HANG), idle_s=0.05) as (client, server):
        error = await failure(client, request_)
        async with asyncio.timeout(5):
            await server.left.wait()

    assert isinstance(error, BackendTimeout)


# Leaving early


async def test_closing_the_generator_closes_the_connection() -> None:
    async with client_of((SSE_HEAD, delta("x"), Act.HANG)) as (client, server):
        chunks = client.run(HELLO, "m", "j")
        assert await anext(chunks) == TextDelta("x")

        await chunks.aclose()

        async with asyncio.timeout(1):
            await server.left.wait()


@pytest.mark.parametrize("request_", [HELLO, FOX], ids=["text", "picture"])
async def test_cancelling_the_caller_closes_the_connection(request_: InferenceRequest) -> None:
    async with client_of((Act.HANG,)) as (client, server):
        task = asyncio.create_task(answer(client, request_))
        async with asyncio.timeout(5):
            await server.asked.wait()

        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        async with asyncio.timeout(1):
            await server.left.wait()


# Pictures


async def test_a_picture_is_asked_for_in_one_go_and_checked() -> None:
    request = small(prompt="a fox", negative_prompt="blurry", steps=4, seed=7, size="64x40")
    async with client_of(ONE_PICTURE) as (client, server):
        chunks = await answer(client, request)

    assert chunks == [Image(png(), "image/png", 32, 32, 7), Finish()]
    assert server.heard[0].line == "POST /v1/images/generations HTTP/1.1"
    assert server.heard[0].json == {
        "model": "m",
        "prompt": "a fox|blurry",
        "size": "64x40",
        "n": 1,
        "response_format": "b64_json",
        "step": 4,
        "seed": 7,
    }


async def test_a_bar_in_the_prompt_does_not_begin_a_negative_prompt() -> None:
    async with client_of(ONE_PICTURE) as (client, server):
        await answer(client, small(prompt="fox|moon", negative_prompt=" "))
        await answer(client, small(prompt="fox|moon", negative_prompt="sun"))

    assert [heard.json["prompt"] for heard in server.heard] == ["fox,moon", "fox,moon|sun"]


async def test_several_pictures_are_drawn_one_by_one_with_seeds_of_their_own() -> None:
    last = 2**31 - 1
    async with client_of(ONE_PICTURE) as (client, server):
        chunks = await answer(client, small(n=3, seed=last))
        await answer(client, small(n=2))

    assert [chunk.seed for chunk in chunks if isinstance(chunk, Image)] == [last, 0, 1]
    assert [heard.json.get("seed") for heard in server.heard] == [last, 0, 1, None, None]
    assert server.connections == 1


async def test_each_picture_is_given_on_before_the_next_is_asked_for() -> None:
    async with client_of(ONE_PICTURE, (Act.HANG,)) as (client, server):
        chunks = client.run(small(n=2), "m", "j")

        assert isinstance(await anext(chunks), Image)
        assert len(server.heard) == 1
        await chunks.aclose()


async def test_the_picture_to_be_changed_goes_as_bare_base64() -> None:
    strong = SNOW.model_copy(update={"strength": 0.3})
    async with client_of(ONE_PICTURE) as (client, server):
        await answer(client, SNOW)
        await answer(client, strong)

    first, second = (heard.json for heard in server.heard)
    assert first["file"] == PNG
    assert "strength" not in first
    assert second["strength"] == 0.3


async def test_it_is_told_when_an_answer_was_simulated() -> None:
    head = SSE_HEAD.replace(b"\r\n\r\n", b"\r\nX-Simulated: inference-manager\r\n\r\n")
    data = {"data": [{"b64_json": PNG}]}
    async with client_of(
        (head, delta("x", "stop"), DONE, END, Act.KEEP),
        (reply(200, data, X_Simulated="inference-manager"),),
    ) as (client, _):
        text, picture = await answer(client), await answer(client, FOX)

    assert text[-1] == Finish("stop", simulated=True)
    assert picture[-1] == Finish("stop", simulated=True)


# What a backend offers


NO_ROUTE = (reply(404, {"error": {"code": 404, "message": "Resource not found", "type": ""}}),)


async def test_models_are_listed_with_what_they_can_do() -> None:
    listed = {
        "object": "list",
        "data": [
            {"id": "chat", "capabilities": ["chat", "tools"], "input_modalities": ["text"]},
            {"id": "old", "capabilities": ["completion"], "input_modalities": None},
            {"id": "eyes", "capabilities": ["chat", "vision"]},
            {"id": "sees", "capabilities": ["chat"], "input_modalities": ["text", "image"]},
            {"id": "sd", "capabilities": ["image"], "input_modalities": ["text"]},
            {"id": "edit", "capabilities": ["image"], "input_modalities": ["text", "image"]},
            {"id": "words", "capabilities": ["embeddings", "rerank"]},
            {"id": "voice", "capabilities": ["tts", "sound_generation", "vad"]},
            {"id": "ears", "capabilities": ["transcript", "diarization"]},
            {"id": "film", "capabilities": ["video", "3d"], "output_modalities": ["video"]},
            {"id": "loose", "capabilities": None, "input_modalities": None},
            {"id": "odd", "capabilities": ["chat", 5, None], "input_modalities": "image"},
            {"id": "silent"},
            {"id": "", "capabilities": ["chat"]},
            {"id": 5},
            {"id": "a\nb"},
            {"id": "x" * 300},
            {"name": "nameless"},
            None,
            "text",
        ],
    }
    async with client_of((reply(200, listed),)) as (client, server):
        models = {model.name: model.modalities for model in await client.models()}

    assert server.heard[0].line == "GET /v1/models/capabilities HTTP/1.1"
    assert models == {
        "chat": {Modality.TXT2TXT},
        "old": {Modality.TXT2TXT},
        "eyes": {Modality.TXT2TXT, Modality.IMG2TXT},
        "sees": {Modality.TXT2TXT, Modality.IMG2TXT},
        "sd": {Modality.TXT2IMG},
        "edit": {Modality.TXT2IMG, Modality.IMG2IMG},
        "words": {Modality.TXT2VEC, Modality.RERANK},
        "voice": {Modality.TXT2AUDIO, Modality.TXT2SOUND},
        "ears": {Modality.AUDIO2TXT},
        "film": {Modality.TXT2VIDEO},
        "loose": set[Modality](),
        "odd": {Modality.TXT2TXT},
        "silent": None,
    }


async def test_an_older_server_tells_as_ollama_does_what_models_can_do() -> None:
    listed = {
        "models": [
            {"name": "chat:latest", "model": "chat:latest", "capabilities": ["completion"]},
            {"name": "eyes:7b", "capabilities": ["completion", "vision", "tools"]},
            {"name": "words:latest", "capabilities": ["embedding"]},
            {"name": "sd:latest"},
            {"name": "tts:latest", "capabilities": None},
            {"name": 5},
            None,
        ]
    }
    async with client_of(NO_ROUTE, (reply(200, listed),)) as (client, server):
        models = {model.name: model.modalities for model in await client.models()}

    assert server.heard[1].line == "GET /api/tags HTTP/1.1"
    assert models == {
        "chat": {Modality.TXT2TXT},
        "eyes:7b": {Modality.TXT2TXT, Modality.IMG2TXT},
        "words": {Modality.TXT2VEC},
        "sd": None,
        "tts": None,
    }


STUMBLES = [
    reply(500, {"error": {"code": 500, "message": "boom"}}),
    reply(200, "<html>"),
    reply(403, ""),
]


@pytest.mark.parametrize("stumble", STUMBLES)
async def test_a_server_that_stumbles_over_its_list_is_taken_at_its_last_word(
    stumble: bytes,
) -> None:
    listed = reply(200, {"data": [{"id": "chat", "capabilities": ["chat"]}]})
    async with client_of((listed,), (stumble,)) as (client, _):
        known = await client.models()

        assert (
            await client.models() == known == [OfferedModel("chat", frozenset({Modality.TXT2TXT}))]
        )


@pytest.mark.parametrize("stumble", STUMBLES)
async def test_a_server_that_has_never_told_what_models_can_do_is_asked_for_their_names(
    stumble: bytes,
) -> None:
    names = reply(200, {"data": [{"id": "chat"}]})
    async with client_of((stumble,), (stumble,), (names,)) as (client, _):
        assert await client.models() == [OfferedModel("chat", None)]


async def test_a_still_older_server_lists_models_without_a_word_on_what_they_can_do() -> None:
    listed = reply(200, {"object": "list", "data": [{"id": "m", "object": "model"}]})
    async with client_of(NO_ROUTE, NO_ROUTE, (listed,)) as (client, server):
        models = await client.models()

    assert models == [OfferedModel("m", None)]
    assert server.heard[2].line == "GET /v1/models HTTP/1.1"


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (reply(200, {"data": "x"}), BackendProtocolError),
        (reply(200, []), BackendProtocolError),
        (reply(200, "<html>"), BackendProtocolError),
        (reply(200, ""), BackendProtocolError),
        (reply(401, ""), BackendUnauthorised),
        (reply(503, ""), BackendBusy),
        (b"", BackendUnavailable),
    ],
)
@pytest.mark.parametrize("before", [(), (NO_ROUTE,), (NO_ROUTE, NO_ROUTE)])
async def test_a_list_that_cannot_be_had_is_an_error(
    before: tuple[Script, ...], told: bytes, expected: type[BackendError]
) -> None:
    async with client_of(*before, (told,)) as (client, _):
        with pytest.raises(expected):
            await client.models()


async def test_a_server_without_models_offers_none() -> None:
    none, none_tagged = (reply(200, {"data": None}),), (reply(200, {"models": None}),)
    async with client_of(none, NO_ROUTE, none_tagged) as (client, _):
        assert await client.models() == []
        assert await client.models() == []


async def test_it_is_known_which_models_are_in_memory() -> None:
    told = {"backends": ["llama-cpp"], "loaded_models": [{"id": "a"}, {"id": "b"}, None, {}]}
    async with client_of((reply(200, told),), (reply(200, {"loaded_models": None}),)) as (
        client,
        _,
    ):
        assert await client.resident() == frozenset({"a", "b"})
        assert await client.resident() == frozenset()


async def test_who_may_not_see_the_system_asks_as_ollama_does() -> None:
    told = {"models": [{"name": "a:latest", "model": "a:latest"}, {"model": "b:7b"}, {"size": 5}]}
    async with client_of((reply(403, ""),), (reply(200, told),)) as (client, server):
        assert await client.resident() == frozenset({"a", "b:7b"})

    assert [heard.line.split()[1] for heard in server.heard] == ["/system", "/api/ps"]


async def test_a_server_may_not_tell_what_is_in_memory() -> None:
    async with client_of((reply(404, ""),)) as (client, _):
        assert await client.resident() is None


@pytest.mark.parametrize("strange", [reply(200, [1]), reply(200, "<html>"), reply(500, "")])
async def test_a_server_whose_words_on_its_memory_are_strange_does_not_tell(strange: bytes) -> None:
    async with client_of((strange,)) as (client, _):
        assert await client.resident() is None


# Loading


async def test_a_model_is_loaded_before_it_is_needed() -> None:
    told = {"loaded": ["m"], "message": "model loaded"}
    async with client_of((reply(200, told),)) as (client, server):
        await client.load("m")

    assert client.loads_on_demand
    assert server.heard[0].line == "POST /backend/load HTTP/1.1"
    assert server.heard[0].json == {"model": "m"}


@pytest.mark.parametrize(
    "told",
    [
        reply(404, {"error": {"code": 404, "message": "Resource not found"}}),
        reply(404, "<html>"),
        reply(404, ""),
        reply(405, ""),
        reply(401, ""),
        reply(403, {"error": {"type": "authorization_error"}}),
    ],
)
async def test_a_server_that_does_not_load_on_demand_is_asked_only_once(told: bytes) -> None:
    async with client_of((told,)) as (client, server):
        assert client.loads_on_demand
        await client.load("m")
        await client.load("m")

    assert not client.loads_on_demand
    assert len(server.heard) == 1


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (reply(404, {"error": {"message": 'model "m" not found.'}}), UnknownModel),
        (reply(500, {"error": {"message": "could not load model: no such file"}}), ModelLoadFailed),
        (reply(500, {"error": {"message": "rpc error: code = Unavailable"}}), ModelLoadFailed),
        (reply(500, {"loaded": [], "message": "something else"}), ModelLoadFailed),
        (reply(503, {"error": {"message": "load is in cooldown"}}), ModelLoadFailed),
        (reply(503, {"error": {"type": "model_loading"}}), BackendBusy),
        (reply(400, ""), BackendRejected),
        (b"", BackendUnavailable),
    ],
)
async def test_a_model_that_cannot_be_loaded_is_an_error(
    told: bytes, expected: type[InferenceManagerError]
) -> None:
    async with client_of((told,)) as (client, _):
        with pytest.raises(expected) as failed:
            await client.load("m")

    assert type(failed.value) is expected


async def test_loading_does_not_take_for_ever() -> None:
    async with client_of((Act.HANG,), load_s=0.05) as (client, _):
        with pytest.raises(BackendTimeout):
            await client.load("m")


@pytest.mark.parametrize(
    "told", [reply(200, {"message": "model stopped"}), NO_ROUTE[0], reply(404, "")]
)
async def test_a_model_is_unloaded_and_one_that_is_not_there_is_no_error(told: bytes) -> None:
    async with client_of((told,)) as (client, server):
        await client.unload("m")

    assert server.heard[0].line == "POST /backend/shutdown HTTP/1.1"
    assert server.heard[0].json == {"model": "m"}


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (reply(500, {"error": {"message": "model is busy"}}), BackendFailed),
        (reply(403, {"error": {"type": "authorization_error"}}), BackendUnauthorised),
        (reply(503, ""), BackendBusy),
        (b"", BackendUnavailable),
    ],
)
async def test_a_model_that_cannot_be_unloaded_is_an_error(
    told: bytes, expected: type[BackendError]
) -> None:
    async with client_of((told,)) as (client, _):
        with pytest.raises(expected):
            await client.unload("m")


# Signs of life


async def test_a_living_backend_tells_its_version() -> None:
    told = {"version": "v4.9.0 (82c191af)\x1b"}
    async with client_of((reply(200, told),)) as (client, server):
        assert await client.ping() == "v4.9.0 (82c191af)"

    assert server.heard[0].line == "GET /version HTTP/1.1"


@pytest.mark.parametrize(
    "first", [reply(404, ""), reply(200, "<html>"), reply(200, {"version": None}), reply(403, "")]
)
async def test_a_backend_without_a_version_shows_that_it_lives(first: bytes) -> None:
    async with client_of((first,), (reply(200, ""),)) as (client, server):
        assert await client.ping() == "unknown"

    assert server.heard[1].line == "GET /healthz HTTP/1.1"


async def test_a_server_that_only_lists_models_shows_that_it_lives() -> None:
    missing = (reply(404, ""),)
    async with client_of(missing, missing, (reply(200, {"data": []}),)) as (client, server):
        assert await client.ping() == "unknown"

    assert [heard.line.split()[1] for heard in server.heard] == [
        "/version",
        "/healthz",
        "/v1/models",
    ]


@pytest.mark.parametrize(
    ("scripts", "expected"),
    [
        (((reply(401, ""),),), BackendUnauthorised),
        (((reply(500, ""),),), BackendFailed),
        (((reply(404, ""),),) * 3, InferenceManagerError),
        (((reply(404, ""),), (reply(404, ""),), (reply(401, ""),)), BackendUnauthorised),
        (((Act.HANG,),), BackendTimeout),
        (((b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n1", Act.HANG),), BackendTimeout),
        (((),), BackendUnavailable),
    ],
)
async def test_a_backend_that_is_not_well_does_not_seem_to_be(
    scripts: tuple[Script, ...], expected: type[InferenceManagerError]
) -> None:
    async with client_of(*scripts, ping_s=0.1) as (client, _):
        with pytest.raises(expected):
            await client.ping()


# Making one


@pytest.mark.parametrize(
    "url",
    ["", "localhost:8080", "ftp://host", "http://", "http://user:pass@host", "http://host/?a=1"],
)
def test_an_address_that_cannot_be_meant_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="URL of a backend"):
        LocalAIClient(name="gpu", url=url)


@pytest.mark.parametrize("key", ["top secret", "top\nsecret", "schlüssel"])
def test_a_key_that_no_header_can_hold_is_refused_unseen(key: str) -> None:
    with pytest.raises(ValueError, match="key of a backend") as refused:
        LocalAIClient(name="gpu", url="http://host", api_key=key)

    assert key not in str(refused.value)


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/"])
async def test_an_address_may_end_as_other_clients_want_it(path: str) -> None:
    async with raw_server((reply(200, {"version": "v4"}),)) as server:
        client = LocalAIClient(name="gpu", url=server.url + path)
        await client.ping()
        await client.close()

    assert server.heard[0].line == "GET /version HTTP/1.1"


async def test_a_path_before_the_routes_is_kept() -> None:
    async with raw_server((reply(200, {"version": "v4"}),)) as server:
        client = LocalAIClient(name="gpu", url=f"{server.url}/ai/")
        await client.ping()
        await client.close()

    assert server.heard[0].line == "GET /ai/version HTTP/1.1"


async def test_it_is_a_backend_and_shows_where_but_not_its_key() -> None:
    client = LocalAIClient(name="gpu", url="http://host:8080/v1", api_key="sesame")
    backend: Backend = client

    assert backend.stops_at_once(HELLO)
    assert not backend.stops_at_once(FOX)
    assert repr(client) == "<LocalAIClient gpu [http://host:8080]>"
    await client.close()


async def test_no_log_line_holds_what_a_caller_wrote_or_the_key(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    request = Img2TxtRequest(images=(DATA_URI,), question=CANARY)
    async with client_of(
        stream(delta(CANARY, "stop"), DONE), (reply(500, CANARY),), api_key=f"sesame-{CANARY}"
    ) as (client, _):
        await answer(client, request)
        await failure(client)

    assert caplog.text
    assert CANARY not in caplog.text
    assert PNG not in caplog.text


@pytest.mark.parametrize("request_", [FOX, SNOW, TEXTS, ORDER, SAY], ids=lambda r: r.modality)
async def test_further_fields_are_handed_on_whatever_is_asked_for(
    request_: InferenceRequest,
) -> None:
    request_ = request_.model_copy(update={"options": {"clip_skip": 2, "model": "odd"}})

    async with client_of([reply(400, {"error": {"message": "no"}})]) as (client, server):
        await failure(client, request_)

    assert server.heard[0].json["clip_skip"] == 2
    assert server.heard[0].json["model"] == "m"
