"""`/v1/chat/completions`: byte for byte what comes out, for what LocalAI says behind it."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from src.handles import JobHandle
from src.models.errors import BackendError
from src.models.results import Finish, Result
from src.routes.errors import detail_of
from src.routes.openai.chat import ChatFrames
from src.utils.localai_chat import ChatAnswer
from src.utils.localai_errors import Scene
from src.utils.sse_reader import SSEReader
from tests.models.making import job
from tests.routes.doorstep import EPOCH, Call, doorstep, said
from tests.routes.house import CANARY, House, base64_of, png
from tests.utils.localai_asking import stream
from tests.utils.raw_server import DONE, END, SSE_HEAD, Act, Script, chunk, delta, event, reply

ID = "chatcmpl-job-1"
ALL_DONE = "data: [DONE]\n\n"
ROLE = '{"role":"assistant","content":""}'


def line(
    delta: str, reason: str = "null", *, choice: int = 0, likely: str = "null", at: int = EPOCH
) -> str:
    """Write an event as this server does."""
    return (
        f'data: {{"id":"{ID}","object":"chat.completion.chunk","created":{at},"model":"m",'
        f'"choices":[{{"index":{choice},"delta":{delta},"logprobs":{likely},'
        f'"finish_reason":{reason}}}]}}\n\n'
    )


def counted(prompt: int, said: int, more: str = "") -> str:
    """Write the event with the count."""
    return (
        f'data: {{"id":"{ID}","object":"chat.completion.chunk","created":{EPOCH},"model":"m",'
        f'"choices":[],"usage":{{"prompt_tokens":{prompt},"completion_tokens":{said},'
        f'"total_tokens":{prompt + said}{more}}}}}\n\n'
    )


def as_openai(delta: str, reason: str = "null", at: int = 7) -> str:
    """Write an event as OpenAI would, with spaces of its own."""
    return (
        f'{{"created": {at},  "object":"chat.completion.chunk", "id":"{ID}", "model":"m",'
        f'"choices":[{{"index":0,"finish_reason":{reason},"delta":{delta}}}]}}'
    )


def verbatim(*events: str) -> list[bytes]:
    return [chunk(f"data: {one}\n\n") for one in events]


def call_piece(index: int, **function: str) -> dict[str, Any]:
    return {"index": index, "id": f"call{index}", "type": "function", "function": function}


ESCAPED = as_openai('{"content":"Gr\\u00fc\\u00dfe "}')
SPACED = as_openai('{"content" : "🦊"}')
USAGE = event({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}})
ENDED = delta(None, "stop")
HELLO = (delta("Hel"), delta("lo"), ENDED)
LIKELY: dict[str, Any] = {"token": "Hello", "logprob": -0.1, "bytes": None, "top_logprobs": []}
WHOLE: dict[str, Any] = {
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": "Hello"},
            "logprobs": {"content": [LIKELY]},
        }
    ],
    "usage": {"prompt_tokens": 5, "completion_tokens": 1},
}
THOUGHT = '{"reasoning":"hm","reasoning_content":"hm"}'
REFUSED = reply(400, {"error": {"code": 400, "message": f"no {CANARY}", "type": ""}})

Golden = tuple[dict[str, Any], Sequence[Script], list[str]]
GOLDEN: dict[str, Golden] = {
    "what is said": (
        {},
        [stream(*HELLO, DONE)],
        [
            line(ROLE),
            line('{"content":"Hel"}'),
            line('{"content":"lo"}'),
            line("{}", '"stop"'),
            ALL_DONE,
        ],
    ),
    "what is written as OpenAI would goes out as it came": (
        {},
        [
            stream(
                *verbatim(
                    as_openai('{"role":"assistant","content":null}'),
                    ESCAPED,
                    SPACED,
                    as_openai('{"content":null}', '"stop"'),
                ),
                DONE,
            )
        ],
        [
            line(ROLE, at=7),
            f"data: {ESCAPED}\n\n",
            f"data: {SPACED}\n\n",
            line("{}", '"stop"', at=7),
            ALL_DONE,
        ],
    ),
    "with the count that LocalAI made": (
        {"stream_options": {"include_usage": True}},
        [stream(*HELLO, USAGE, DONE)],
        [
            line(ROLE),
            line('{"content":"Hel"}'),
            line('{"content":"lo"}'),
            line("{}", '"stop"'),
            counted(5, 2),
            ALL_DONE,
        ],
    ),
    "with a count of ours where LocalAI made none": (
        {"stream_options": {"include_usage": True}},
        [stream(delta("Hello"), ENDED, DONE)],
        [
            line(ROLE),
            line('{"content":"Hello"}'),
            line("{}", '"stop"'),
            counted(3, 2, ',"estimated":true'),
            ALL_DONE,
        ],
    ),
    "functions that are called": (
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        [
            stream(
                delta(None, tool_calls=[call_piece(0, name="f", arguments="")]),
                delta(None, tool_calls=[call_piece(0, arguments='{"a":')]),
                delta(None, tool_calls=[call_piece(0, arguments="1}")]),
                delta(None, tool_calls=[call_piece(1, name="g", arguments="{}")]),
                delta(None, "tool_calls"),
                DONE,
            )
        ],
        [
            line(ROLE),
            line(
                '{"tool_calls":[{"index":0,"id":"call0","type":"function",'
                '"function":{"name":"f","arguments":""}}]}'
            ),
            line('{"tool_calls":[{"index":0,"function":{"arguments":"{\\"a\\":"}}]}'),
            line('{"tool_calls":[{"index":0,"function":{"arguments":"1}"}}]}'),
            line(
                '{"tool_calls":[{"index":1,"id":"call1","type":"function",'
                '"function":{"name":"g","arguments":"{}"}}]}'
            ),
            line("{}", '"tool_calls"'),
            ALL_DONE,
        ],
    ),
    "a function that is called as before there were tools": (
        {"functions": [{"name": "f"}]},
        [
            stream(
                delta("well", tool_calls=[call_piece(0, name="f", arguments="")]),
                delta(None, tool_calls=[call_piece(0, arguments='{"a":')]),
                delta(None, tool_calls=[call_piece(0, arguments="1}")]),
                delta(None, tool_calls=[call_piece(1, name="g", arguments="{}")]),
                delta(None, "tool_calls"),
                DONE,
            )
        ],
        [
            line(ROLE),
            line('{"content":"well"}'),
            line('{"function_call":{"name":"f","arguments":""}}'),
            line('{"function_call":{"arguments":"{\\"a\\":"}}'),
            line('{"function_call":{"arguments":"1}"}}'),
            line("{}", '"function_call"'),
            ALL_DONE,
        ],
    ),
    "several answers": (
        {"n": 2, "stream_options": {"include_usage": True}},
        [
            stream(delta("one"), ENDED, USAGE, DONE),
            stream(delta("two"), delta(None, "length"), USAGE, DONE),
        ],
        [
            line(ROLE),
            line('{"content":"one"}'),
            line("{}", '"stop"'),
            line(ROLE, choice=1),
            line('{"content":"two"}', choice=1),
            line("{}", '"length"', choice=1),
            counted(5, 4),
            ALL_DONE,
        ],
    ),
    "thinking, under both names": (
        {},
        [stream(delta(None, reasoning="hm"), delta("yes"), ENDED, DONE)],
        [
            line(ROLE),
            line(THOUGHT),
            line('{"content":"yes"}'),
            line("{}", '"stop"'),
            ALL_DONE,
        ],
    ),
    "thinking, as others call it": (
        {},
        [stream(delta(None, reasoning_content="hm"), delta("yes"), ENDED, DONE)],
        [line(ROLE), line(THOUGHT), line('{"content":"yes"}'), line("{}", '"stop"'), ALL_DONE],
    ),
    "how likely the tokens were": (
        {"logprobs": True},
        [(reply(200, WHOLE, keep=True), Act.KEEP)],
        [
            line(ROLE),
            line('{"content":"Hello"}'),
            line(
                "{}",
                likely='{"content":[{"token":"Hello","logprob":-0.1,"bytes":null,'
                '"top_logprobs":[]}],"refusal":null}',
            ),
            line("{}", '"stop"'),
            ALL_DONE,
        ],
    ),
    "nothing at all": (
        {},
        [stream(ENDED, DONE)],
        [line(ROLE), line("{}", '"stop"'), ALL_DONE],
    ),
    "an error in the middle": (
        {},
        [stream(delta("Hel"), event({"error": {"message": f"no {CANARY}", "code": 500}}))],
        [
            line(ROLE),
            line('{"content":"Hel"}'),
            (
                'data: {"error":{"type":"server_error","code":"backend_failed","message":'
                '"backend localai reports an internal error (500)","request_id":"req-1",'
                '"docs":"/errors/backend_failed","job_id":"job-1"}}\n\n'
            ),
            ALL_DONE,
        ],
    ),
    "an end in the middle": (
        {},
        [(SSE_HEAD, delta("Hel"), END)],
        [
            line(ROLE),
            line('{"content":"Hel"}'),
            (
                'data: {"error":{"type":"server_error","code":"stream_cut","message":'
                '"the answer of backend localai was cut short","request_id":"req-1",'
                '"docs":"/errors/stream_cut","job_id":"job-1"}}\n\n'
            ),
            ALL_DONE,
        ],
    ),
}


@pytest.mark.parametrize(("fields", "scripts", "expected"), GOLDEN.values(), ids=GOLDEN)
async def test_a_stream_is_byte_for_byte_what_openai_clients_expect(
    fields: dict[str, Any], scripts: Sequence[Script], expected: list[str]
) -> None:
    async with doorstep(*scripts) as here:
        call = await here.ask(said(CANARY, stream=True, **fields))

    assert call.status == 200
    assert call.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert call.body.decode().split("\n\n") == "".join(expected).split("\n\n")


async def test_an_error_before_the_first_byte_is_answered_as_one() -> None:
    async with doorstep((REFUSED, Act.KEEP)) as here:
        call = await here.ask(said(CANARY, stream=True))

    assert call.status == 400
    assert call.headers["content-type"] == "application/json"
    assert call.json["error"]["code"] == "backend_rejected"
    assert CANARY.encode() not in call.body


async def test_an_attempt_that_nobody_has_heard_of_is_made_again() -> None:
    async with doorstep((SSE_HEAD, Act.RESET), stream(*HELLO, DONE)) as here:
        call = await here.ask(said(stream=True))

    assert call.headers["x-attempts"] == "2"
    assert call.body.decode() == "".join(GOLDEN["what is said"][2])


# However the bytes of the backend are split


def wire(*events: bytes) -> bytes:
    """Take the frames of a transfer off."""
    return b"".join(one.partition(b"\r\n")[2].removesuffix(b"\r\n") for one in events)


STREAMS = [
    wire(*HELLO, USAGE, DONE),
    wire(*verbatim(ESCAPED, SPACED), ENDED, DONE),
    wire(delta(None, reasoning="hm, 漢字…"), delta("Grüße 🦊🧑🏽‍🚀"), ENDED, DONE),
    wire(delta(None, tool_calls=[call_piece(0, name="f", arguments="{}")]), ENDED, DONE),
    wire(*verbatim(ESCAPED, SPACED), ENDED, DONE).replace(b"\n", b"\r\n"),
    wire(delta("Hel"), event({"error": {"message": "no", "code": 500}})),
    wire(delta("Hel"), delta("lo")),
]


def cut(data: bytes, at: Iterable[int]) -> list[bytes]:
    marks = [0, *sorted(min(mark, len(data)) for mark in at), len(data)]
    return [data[start:end] for start, end in pairwise(marks)]


def passed_on(pieces: Iterable[bytes]) -> bytes:
    """Read a stream as the client does, and write it as the door does."""
    reader, told = SSEReader(), ChatAnswer(Scene("gpu"), name=ID)
    frames = ChatFrames(JobHandle(job()), counted=True)
    written: list[bytes] = []
    try:
        for piece in pieces:
            for read in reader.feed(piece):
                if (said := told.read(read)) is not None:
                    written.append(frames.frame(said))
                if told.done:
                    break
        finish = Finish(told.end().reason, *told.tokens)
        written += [frames.frame(finish), frames.closing(job(), Result(finish=finish))]
    except BackendError as error:
        written.append(frames.failed(detail_of(error)))
    return b"".join(written)


@given(
    data=st.sampled_from(STREAMS), at=st.lists(st.integers(0, max(map(len, STREAMS))), max_size=40)
)
def test_no_cuts_change_what_goes_out(data: bytes, at: list[int]) -> None:
    assert passed_on(cut(data, at)) == passed_on([data])


@pytest.mark.parametrize("data", STREAMS[:-2])
async def test_no_cut_changes_what_a_caller_reads(data: bytes) -> None:
    places = range(0, len(data), 29)
    named = [data.replace(b"job-1", b"job-%d" % number) for number in range(1, len(places) + 1)]
    scripts: list[Script] = [
        (SSE_HEAD, *map(chunk, filter(None, cut(one, [at]))), END, Act.KEEP)
        for one, at in zip(named, places, strict=True)
    ]

    async with doorstep(*scripts) as here:
        whole = [(await here.ask(said(stream=True))).body for _ in places]

    alike = {body.replace(f"job-{n}".encode(), b"job-1") for n, body in enumerate(whole, 1)}
    assert len(alike) == 1
    assert alike.pop().endswith(ALL_DONE.encode())


async def test_a_stream_may_come_byte_by_byte() -> None:
    pieces = [chunk(bytes([byte])) for byte in STREAMS[0]]
    script: Script = (SSE_HEAD, *pieces, END, Act.KEEP)

    async with doorstep(script, stream(*HELLO, USAGE, DONE)) as here:
        slow, quick = [(await here.ask(said(stream=True))).body for _ in range(2)]

    assert slow == quick.replace(b"job-2", b"job-1")


# Whole answers


LEFT_OUT: dict[str, Script] = {
    "the count": stream(*HELLO, DONE),
    "half of the count": stream(
        *HELLO, event({"choices": [], "usage": {"prompt_tokens": 5}}), DONE
    ),
    "a count that is null": stream(*HELLO, event({"choices": [], "usage": None}), DONE),
    "every id and time": stream(event({"choices": [{"delta": {"content": "x"}}]}), ENDED, DONE),
    "the text": stream(ENDED, DONE),
    "the ids of calls": stream(
        delta(None, tool_calls=[{"function": {"name": "f"}}]), delta(None, "tool_calls"), DONE
    ),
    "the arguments of a call": stream(
        delta(None, tool_calls=[{"index": 0, "id": "a", "function": {"name": "f"}}]),
        delta(None, "tool_calls"),
        DONE,
    ),
    "nothing but the thinking": stream(delta(None, reasoning="hm"), ENDED, DONE),
    "choices, at first": stream(event({"choices": None}), event({}), *HELLO, DONE),
}


def strictly(call: Call) -> None:
    """Read an answer as OpenAI's client does, but without forgiving anything."""
    assert call.status == 200
    if call.headers["content-type"] == "application/json":
        told = ChatCompletion.model_validate_json(call.body, strict=True)
        assert told.id == f"chatcmpl-{call.job_id}"
        assert told.usage is not None
        assert told.usage.total_tokens == told.usage.prompt_tokens + told.usage.completion_tokens
        return
    *events, done, rest = call.body.decode().split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    for one in events:
        piece = ChatCompletionChunk.model_validate_json(one.removeprefix("data: "), strict=True)
        assert piece.id == f"chatcmpl-{call.job_id}"


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("script", LEFT_OUT.values(), ids=LEFT_OUT)
async def test_whatever_localai_leaves_out_the_answer_has_openais_shape(
    script: Script, *, streamed: bool
) -> None:
    options: dict[str, Any] = {"stream_options": {"include_usage": True}} if streamed else {}
    async with doorstep(script) as here:
        call = await here.ask(said(stream=streamed, **options))

    strictly(call)


@pytest.mark.parametrize("name", [name for name in GOLDEN if "middle" not in name])
async def test_whole_answers_say_the_same_as_streams(name: str) -> None:
    fields, scripts, _ = GOLDEN[name]
    fields = {k: v for k, v in fields.items() if k != "stream_options"}
    async with doorstep(*scripts, *scripts) as here:
        call = await here.ask(said(**fields))
        streamed = await here.ask(said(stream=True, **fields))

    strictly(call)
    strictly(streamed)
    for number, choice in enumerate(ChatCompletion.model_validate_json(call.body).choices):
        events = streamed.body.decode().split("\n\n")[:-2]
        chunks = [ChatCompletionChunk.model_validate_json(e.removeprefix("data: ")) for e in events]
        pieces = [c for chunk in chunks for c in chunk.choices if c.index == number]
        assert "".join(p.delta.content or "" for p in pieces) == (choice.message.content or "")
        assert [p.finish_reason for p in pieces if p.finish_reason] == [choice.finish_reason]
        assert (choice.logprobs is None) == all(p.logprobs is None for p in pieces)


async def test_a_whole_answer_is_byte_for_byte_what_openai_clients_expect() -> None:
    thinking = delta("yes", reasoning="hm", tool_calls=[call_piece(0, name="f", arguments="{}")])
    async with doorstep(stream(thinking, delta(None, "tool_calls"), USAGE, DONE)) as here:
        call = await here.ask(said())

    assert call.body.decode() == (
        f'{{"id":"{ID}","object":"chat.completion","created":{EPOCH},"model":"m","choices":['
        '{"index":0,"message":{"role":"assistant","content":"yes","refusal":null,'
        '"reasoning":"hm","reasoning_content":"hm","tool_calls":[{"id":"call0",'
        '"type":"function","function":{"name":"f","arguments":"{}"}}]},"logprobs":null,'
        '"finish_reason":"tool_calls"}],"usage":{"prompt_tokens":5,"completion_tokens":2,'
        '"total_tokens":7},"system_fingerprint":null}'
    )


async def test_a_whole_answer_has_the_first_call_as_before_there_were_tools() -> None:
    calls = [call_piece(0, name="f", arguments="{}"), call_piece(1, name="g", arguments="{}")]
    script = stream(delta(None, tool_calls=calls), delta(None, "tool_calls"), USAGE, DONE)
    async with doorstep(script) as here:
        call = await here.ask(said(functions=[{"name": "f"}]))

    strictly(call)
    (choice,) = call.json["choices"]
    assert choice["finish_reason"] == "function_call"
    assert choice["message"] == {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "function_call": {"name": "f", "arguments": "{}"},
    }


async def test_calls_that_localai_did_not_count_are_counted_here() -> None:
    called = delta(None, tool_calls=[call_piece(0, name="four", arguments='{"a":12}')])
    async with doorstep(stream(called, delta(None, "tool_calls"), DONE)) as here:
        call = await here.ask(said())

    assert call.json["usage"]["completion_tokens"] == 3
    assert call.json["usage"]["estimated"] is True


# What LocalAI is asked


F = {"type": "function", "function": {"name": "f"}}
ASKED = {"model": "m", "stream": True, "stream_options": {"include_usage": True}}


async def asked(body: dict[str, Any], **headers: str) -> dict[str, Any]:
    """Send a body and return what LocalAI was asked, without what it always is."""
    async with doorstep(stream(*HELLO, DONE)) as here:
        call = await here.ask(body, **headers)
        assert call.status == 200, call.body
        (heard,) = here.asked
    assert heard.items() >= ASKED.items()
    return {name: value for name, value in heard.items() if name not in ASKED}


async def test_everything_that_localai_understands_is_handed_on() -> None:
    fields: dict[str, Any] = {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 3,
        "max_tokens": 7,
        "stop": ["END"],
        "seed": 7,
        "presence_penalty": 0.5,
        "frequency_penalty": -0.5,
        "tools": [{"type": "function", "function": {"name": "f", "strict": None}}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "response_format": {"type": "json_object"},
        "grammar": 'root ::= "yes"',
        "min_p": 0.1,
        "repeat_penalty": 1.1,
        "reasoning_effort": "low",
        "metadata": {"enable_thinking": "false"},
        "of_tomorrow": [1, {"a": None}],
    }

    heard = await asked(said("hi", **fields))

    assert heard == {"messages": [{"role": "user", "content": "hi"}], **fields}


async def test_what_means_nothing_here_and_what_is_ours_is_not_handed_on() -> None:
    dropped = {"user": "u", "store": True, "service_tier": "auto", "prompt_cache_key": "k"}
    ours = {"timeout": 60, "strict": False, "n": 1, "logprobs": False}
    nulls = dict.fromkeys(("temperature", "stop", "tools", "seed", "stream", "response_format"))

    heard = await asked(said("hi", **dropped, **ours, **nulls))

    assert heard == {"messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize(
    ("fields", "heard"),
    [
        ({"max_completion_tokens": 9, "max_tokens": 7}, {"max_tokens": 9}),
        ({"stop": "END"}, {"stop": ["END"]}),
        ({"stop": ["", "END"]}, {"stop": ["END"]}),
        ({"stop": ""}, {}),
        ({"stop": [""]}, {}),
        ({"top_p": 0}, {"top_p": 0}),
        ({"top_k": -1}, {}),
        ({"functions": [{"name": "f"}]}, {"tools": [F]}),
        (
            {"functions": [{"name": "f"}], "function_call": "none"},
            {"tools": [F], "tool_choice": "none"},
        ),
        (
            {"functions": [{"name": "f"}], "function_call": {"name": "f"}},
            {"tools": [F], "tool_choice": F},
        ),
        ({"functions": []}, {}),
        ({"seed": -1}, {}),
        ({"seed": 2**31 + 5}, {"seed": 5}),
    ],
)
async def test_what_is_said_in_several_ways(fields: dict[str, Any], heard: dict[str, Any]) -> None:
    told = await asked(said("hi", **fields))

    assert told == {"messages": [{"role": "user", "content": "hi"}], **heard}


async def test_functions_called_before_there_were_tools_are_handed_on() -> None:
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "", "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "42"},
    ]

    heard = await asked({"model": "m", "messages": messages})

    assert heard["messages"] == messages


async def test_a_conversation_is_handed_on_turn_by_turn() -> None:
    called = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    messages: list[dict[str, Any]] = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "hi"}], "name": "ann"},
        {"role": "assistant", "content": None, "tool_calls": called},
        {"role": "tool", "content": "42", "tool_call_id": "c"},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}], "refusal": None},
    ]

    heard = await asked({"model": "m", "messages": messages})

    assert heard["messages"] == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "hi"}], "name": "ann"},
        {"role": "assistant", "content": "", "tool_calls": called},
        {"role": "tool", "content": "42", "tool_call_id": "c"},
        {"role": "assistant", "content": [{"type": "text", "text": "no"}]},
    ]


async def refused(body: dict[str, Any], **headers: str) -> dict[str, Any]:
    async with doorstep(stream(*HELLO, DONE)) as here:
        call = await here.ask(body, **headers)
        assert here.asked == []
    assert call.status == 400
    assert CANARY.encode() not in call.body
    error: dict[str, Any] = call.json["error"]
    return error


def parts(*parts: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": [*parts]}]}


@pytest.mark.parametrize(
    ("body", "param", "says"),
    [
        (said(CANARY, functions=[{"name": "f"}], tools=[{}]), "functions", "together with tools"),
        (said(CANARY, function_call="auto"), "function_call", "without functions"),
        (
            said(CANARY, functions=[{"name": "f"}], function_call={"nam": CANARY}),
            "function_call.name",
            "required",
        ),
        (
            said(CANARY, functions=[{"name": "f"}], function_call=CANARY),
            "function_call",
            "'auto' or 'none'",
        ),
        (said(CANARY, top_k=-2), "top_k", "-1"),
        (
            parts({"type": "input_audio", "input_audio": {"data": CANARY, "format": "wav"}}),
            "messages.0.content.0",
            "parts of type input_audio are not taken here; send text or image_url",
        ),
        (
            parts({"type": "text", "text": CANARY}, {"type": "video_url", "video_url": CANARY}),
            "messages.0.content.1",
            "parts of type video_url are not taken here",
        ),
        (parts({"type": CANARY}), "messages.0.content.0", "a part must have a type"),
    ],
)
async def test_what_is_not_taken_is_named(body: dict[str, Any], param: str, says: str) -> None:
    error = await refused(body)

    assert error["param"] == param
    assert says in error["message"]


@pytest.mark.parametrize("half", [r"\ud83d x", r"x\ud83d", r"\udc00", r"\ud83d\ud83d"])
async def test_half_of_a_character_is_called_that(shared_house: House, half: str) -> None:
    body = f'{{"messages":[{{"role":"user","content":"{CANARY} {half}"}}]}}'
    async with shared_house.http() as http:
        answer = await http.post("/v1/chat/completions", content=body)

    error = answer.json()["error"]
    assert answer.status_code == 400
    assert error["param"] == "body"
    assert "holds half of a character (a lone surrogate)" in error["message"]
    assert CANARY not in answer.text


@pytest.mark.parametrize("how", [{"headers": {"X_Strict": "true"}}, {"fields": {"strict": True}}])
async def test_who_is_strict_is_told_of_fields_that_nobody_understands(how: dict[str, Any]) -> None:
    known = {"min_p": 0.1, "user": CANARY, "grammar": "g", **how.get("fields", {})}
    headers = how.get("headers", {})

    error = await refused(said(CANARY, temprature=CANARY, **known), **headers)

    assert error["param"] == "temprature"
    assert error["hint"] == "did you mean temperature?"
    assert (await asked(said("hi", **known), **headers))["min_p"] == 0.1


async def test_a_strange_name_is_not_repeated() -> None:
    error = await refused(said("hi", **{f"{CANARY} is my field": 1}), X_Strict="1")

    assert error["param"] == "body"
    assert error["hint"] == "leave it out, or send it without `strict`"


# Pictures


def looked(*urls: Any, **fields: Any) -> dict[str, Any]:
    parts: list[Any] = [{"type": "image_url", "image_url": url} for url in urls]
    parts.insert(1, {"type": "text", "text": "what is it?"})
    return {"model": "eye", "messages": [{"role": "user", "content": parts}], **fields}


def data_uri(color: str = "teal") -> str:
    return f"data:image/png;base64,{base64_of(png(32, 32, color))}"


async def test_pictures_stay_where_they_are_shown() -> None:
    async with doorstep(stream(*HELLO, DONE)) as here:
        call = await here.ask(looked({"url": data_uri("red"), "detail": "low"}, data_uri("blue")))
        (heard,) = here.asked

    first, words, second = heard["messages"][0]["content"]
    strictly(call)
    assert heard["model"] == "eye"
    assert words == {"type": "text", "text": "what is it?"}
    for shown in (first, second):
        assert shown["type"] == "image_url"
        assert shown["image_url"]["url"].startswith("data:image/png;base64,")
    assert first != second


async def test_a_picture_that_was_made_here_is_shown_by_its_address(shared_house: House) -> None:
    async with shared_house.http() as http:
        small = {"prompt": "a red fox", "size": "64x64", "steps": 1}
        made = (await http.post("/mcp/txt2img", json=small)).json()
        for address in (made["images"][0]["url"], f"job:{made['job_id']}/0"):
            body = looked({"url": address}) | {"model": "sim-vision"}
            answer = await http.post("/v1/chat/completions", json=body)
            assert answer.status_code == 200, answer.text
    shown = [record for record in shared_house.sim.requests() if record.modality == "img2txt"]
    assert len({record.digest for record in shown[-2:]}) == 1


@pytest.mark.parametrize(
    ("urls", "param", "says"),
    [
        (["http://169.254.169.254/CANARY-4711"], "messages", "address"),
        (["https://example.com/CANARY-4711.png"], "messages", "address"),
        (["file:///etc/CANARY-4711"], "messages", ""),
        (["data:text/html;base64,Q0FOQVJZ"], "messages", ""),
        (["data:image/png;base64,CANARY-4711"], "messages", "base64"),
        (["job:none/0"], "", ""),
        ([{"url": ""}], "messages.0.content.0.image_url.url", ""),
        ([{"address": "CANARY-4711"}], "messages.0.content.0.image_url.url", ""),
        ([7], "messages.0.content.0.image_url", ""),
    ],
)
async def test_a_picture_that_is_none_is_refused_by_name(
    urls: list[Any], param: str, says: str
) -> None:
    async with doorstep(stream(*HELLO, DONE)) as here:
        call = await here.ask(looked(*urls))
        assert here.asked == []

    error = call.json["error"]
    assert call.status == (404 if urls == ["job:none/0"] else 400)
    assert error.get("param", "").startswith(param)
    assert says in f"{error['message']} {error.get('hint')}"
    assert CANARY.encode() not in call.body


async def test_more_pictures_than_fit_are_refused() -> None:
    error = await refused(looked(*[data_uri()] * 9))

    assert error["param"] == "messages"
    assert "8 pictures" in error["message"]
