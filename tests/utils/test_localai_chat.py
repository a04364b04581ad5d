"""What LocalAI says in a conversation, event by event and in one piece."""

import json
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from src.models.errors import BackendProtocolError, EmptyResult
from src.models.results import Call, ChoiceEnd, Chunk, Logprobs, TextDelta, collect
from src.utils.localai_answers import answer_in
from src.utils.localai_chat import ChatAnswer, in_one_piece
from src.utils.localai_errors import Scene
from src.utils.sse_reader import SSEReader

SCENE = Scene("gpu")
NAME = "chatcmpl-job-1"


def written(delta: object, *, choice: object = None, **top: object) -> str:
    """Write an event as OpenAI does."""
    told = {"index": 0, "finish_reason": None, **(choice or {}), "delta": delta}  # type: ignore[dict-item]
    usual = {"id": NAME, "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return json.dumps({**usual, "choices": [told], **top}, ensure_ascii=False)


def told(event: str, *, choice: int = 0, name: str = NAME) -> TextDelta:
    delta = ChatAnswer(SCENE, choice=choice, name=name).read(event)
    assert delta is not None
    return delta


def calls_of(*calls: object) -> list[tuple[Call, ...]]:
    """Read events of which each has these pieces of calls."""
    answer = ChatAnswer(SCENE)
    deltas = [answer.read(written({"content": None, "tool_calls": some})) for some in calls]
    return [delta.calls for delta in deltas if delta is not None]


def piece(index: object = 0, **fields: object) -> dict[str, object]:
    function = {name: fields.pop(name) for name in ("name", "arguments") if name in fields}
    return {"index": index, "type": "function", "function": function, **fields}


# Events that are passed on


@pytest.mark.parametrize(
    ("delta", "expected"),
    [
        ({"content": "Grüße 🦊"}, ("Grüße 🦊", "")),
        ({"role": "assistant", "content": "hi"}, ("hi", "")),
        ({"content": "", "reasoning": "hm"}, ("", "hm")),
        ({"reasoning": "hm"}, ("", "hm")),
    ],
)
def test_an_event_as_openai_writes_it_is_passed_on_as_it_is(
    delta: object, expected: tuple[str, str]
) -> None:
    event = written(delta)

    assert told(event) == TextDelta(*expected, event=event)


HI: dict[str, object] = {"content": "hi"}
OTHERS: dict[str, str] = {
    "another id": written(HI, id="5d0c"),
    "no id": written(HI, id=None),
    "another object": written(HI, object="chat.completion"),
    "a usage": written(HI, usage={"prompt_tokens": 1}),
    "a null for a text": written({"content": None, "reasoning": "hi"}),
    "a null for thinking": written({**HI, "reasoning": None}),
    "a reason": written(HI, choice={"finish_reason": "stop"}),
    "an empty reason": written(HI, choice={"finish_reason": ""}),
    "another choice": written(HI, choice={"index": 1}),
    "no choice": written(HI, choice={"index": None}),
    "calls": written({**HI, "tool_calls": [piece(name="f")]}),
    "no calls": written({**HI, "tool_calls": []}),
    "another word for thinking": written({**HI, "reasoning_content": "hm"}),
    "something unheard of": written({**HI, "audio": {}}),
    "half a character": written({"content": "hi\ud800"}).replace("\ud800", "\\ud800"),
    "half a thought": written({**HI, "reasoning": "\udfff"}).replace("\udfff", "\\uDFFF"),
    "several lines": json.dumps(json.loads(written(HI)), indent=1),
    "no creation": written(HI).replace('"created"', '"made"'),
    "no model": written(HI).replace('"model"', '"made"'),
    "no word of a reason": written(HI).replace('"finish_reason": null, ', ""),
}


@pytest.mark.parametrize("event", OTHERS.values(), ids=OTHERS)
def test_an_event_with_anything_else_is_read_but_not_passed_on(event: str) -> None:
    delta = told(event)

    assert delta.event == ""
    assert "hi" in delta.text + delta.reasoning


def test_nothing_is_passed_on_of_a_second_answer_or_where_no_name_is_known() -> None:
    assert told(written(HI), choice=1) == TextDelta("hi", choice=1)
    assert told(written(HI), name="") == TextDelta("hi")
    assert told(written(HI, id=""), name="") == TextDelta("hi")


def test_what_is_escaped_without_need_is_passed_on_all_the_same() -> None:
    event = written({"content": "<🦊>"}).replace("<", "\\u003c").replace("🦊", "\\ud83e\\udd8a")

    assert told(event) == TextDelta("<🦊>", event=event)


words = st.text("ab<ß🦊\n\u2028", max_size=4)
deltas = st.fixed_dictionaries(
    {},
    optional={
        "role": st.just("assistant"),
        "content": words | st.none(),
        "reasoning": words | st.none(),
        "tool_calls": st.lists(
            st.builds(piece, st.integers(0, 2), name=words, arguments=words, id=words), max_size=2
        ),
    },
)
events = st.builds(
    written,
    deltas,
    choice=st.sampled_from([{}, {"index": 1}, {"finish_reason": "stop"}]),
    id=st.sampled_from([NAME, "other"]),
)


def read(pieces: Iterable[bytes]) -> list[TextDelta]:
    reader, answer = SSEReader(), ChatAnswer(SCENE, name=NAME)
    found = [answer.read(event) for piece in pieces for event in reader.feed(piece)]
    return [delta for delta in found if delta is not None]


@given(st.lists(events, min_size=1, max_size=5), st.lists(st.integers(0, 2000), max_size=20))
def test_wherever_the_bytes_are_cut_the_same_is_read_and_passed_on(
    said: Sequence[str], cuts: Sequence[int]
) -> None:
    data = "".join(f"data: {event}\n\n" for event in said).encode()
    marks = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]

    whole = read([data])

    assert read(data[start:end] for start, end in pairwise(marks)) == whole
    assert {delta.event for delta in whole} <= {"", *said}


@given(events)
def test_what_is_passed_on_says_what_was_read(event: str) -> None:
    delta = ChatAnswer(SCENE, name=NAME).read(event)

    if delta is not None and delta.event:
        choice = json.loads(delta.event)["choices"][0]
        assert choice["finish_reason"] is None
        assert choice["delta"].get("content", "") == delta.text
        assert choice["delta"].get("reasoning", "") == delta.reasoning


# Calls


def test_a_call_comes_in_pieces() -> None:
    pieces = calls_of(
        [piece(id="u", name="get_weather", arguments="")],
        [piece(id="u", arguments='{"city": ')],
        [piece(arguments='"Oslo"}')],
    )

    assert pieces == [
        (Call(0, "u", "get_weather"),),
        (Call(0, "", "", '{"city": '),),
        (Call(0, "", "", '"Oslo"}'),),
    ]


def test_a_call_may_come_whole_and_nulls_are_as_good_as_nothing() -> None:
    [(call,)] = calls_of([{"id": "u", "function": {"name": "f", "arguments": "{}"}}])
    [(bare,)] = calls_of([{"id": None, "function": None}])
    [(odd,)] = calls_of([piece(name=None, arguments="\\")])

    assert call == Call(0, "u", "f", "{}")
    assert (bare.name, bare.arguments) == ("", "")
    assert bare.id
    assert odd.arguments == "\\"


def test_calls_that_share_an_id_get_ids_of_their_own() -> None:
    ids = [call.id for calls in calls_of([piece(0, id="u"), piece(1, id="u")]) for call in calls]

    assert ids[0] == "u"
    assert len({*ids}) == 2


@given(st.lists(st.sampled_from(["", "u", "u-1", "u-2", "u-1-2", "call-1"]), max_size=6))
def test_no_two_calls_have_the_same_id_and_none_has_none(given_: list[str]) -> None:
    pieces = calls_of([piece(index, id=own) for index, own in enumerate(given_)])

    ids = [call.id for calls in pieces for call in calls]
    assert len({*ids}) == len(ids) == len(given_)
    assert all(ids)


@pytest.mark.parametrize(
    "calls",
    [
        {},
        "f",
        [None],
        ["f"],
        [{"index": "0"}],
        [{"index": None}],
        [{"function": []}],
        [piece(id=7)],
        [piece(name={})],
        [piece(arguments={"city": "Oslo"})],
    ],
)
def test_what_is_no_call_is_refused(calls: object) -> None:
    with pytest.raises(BackendProtocolError):
        calls_of(calls)


# The end


def test_the_end_tells_the_reason_and_whose_it_is() -> None:
    answer = ChatAnswer(SCENE, choice=3)

    for event in (written(HI), written({}, choice={"finish_reason": "tool_calls"}), "[DONE]"):
        answer.read(event)

    assert answer.end() == ChoiceEnd("tool_calls", 3)


# In one piece


def whole(message: object, **choice: object) -> dict[str, Any]:
    return {"choices": [{"index": 0, "finish_reason": "stop", "message": message, **choice}]}


def pieces_of(answer: dict[str, Any], choice: int = 0) -> list[Chunk]:
    return [*in_one_piece(answer, SCENE, choice)]


def test_an_answer_in_one_piece_has_its_text_its_calls_and_its_end() -> None:
    message = {
        "content": "hi",
        "reasoning": "hm",
        "tool_calls": [piece(0, id="u", name="f", arguments="{}"), piece(1, id="u", name="g")],
    }

    pieces = pieces_of(whole(message, finish_reason="tool_calls"), 2)

    calls = (Call(0, "u", "f", "{}"), Call(1, "u-1", "g"))
    assert pieces == [TextDelta("hi", "hm", 2, calls), ChoiceEnd("tool_calls", 2)]


def test_it_tells_how_likely_its_tokens_were_if_it_was_asked_for() -> None:
    likely: JsonValue = {"token": "hi", "logprob": -0.5, "bytes": None, "top_logprobs": [None]}

    pieces = pieces_of(whole({"content": "hi"}, logprobs={"content": [likely]}))

    assert pieces == [TextDelta("hi"), Logprobs((likely,)), ChoiceEnd("stop")]
    assert collect(pieces).logprobs == (likely,)
    for none in (None, {}, {"content": None}, 7):
        assert pieces_of(whole({"content": "hi"}, logprobs=none)) == [
            TextDelta("hi"),
            ChoiceEnd("stop"),
        ]


def test_halves_of_characters_are_mended_in_all_of_it() -> None:
    likely = {"token": "\ud83e", "\udd8a": ["\udd8a", 1, None]}
    told = json.dumps(whole({"content": "🦊"}, logprobs={"content": [likely]}))

    pieces = pieces_of(answer_in(told.encode(), SCENE))

    assert pieces == [
        TextDelta("🦊"),
        Logprobs(({"token": "\ufffd", "\ufffd": ["\ufffd", 1, None]},)),
        ChoiceEnd("stop"),
    ]


def test_an_empty_answer_with_a_reason_is_one() -> None:
    assert pieces_of(whole({"content": ""})) == [ChoiceEnd("stop")]


@pytest.mark.parametrize("reason", [None, "", 7])
def test_an_answer_without_a_reason_is_none(reason: object) -> None:
    with pytest.raises(EmptyResult):
        pieces_of(whole({"content": "hi"}, finish_reason=reason))


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"choices": []},
        {"choices": {}},
        {"choices": [{"finish_reason": "stop"}]},
        whole(None),
        whole({"content": 7}),
        whole({"tool_calls": {}}),
    ],
)
def test_what_is_no_answer_to_a_chat_is_refused(answer: dict[str, Any]) -> None:
    with pytest.raises(BackendProtocolError):
        pieces_of(answer)


_TEXTS = st.text(min_size=1, max_size=8) | st.sampled_from(
    ["hi", '"', "\\", "\\n", "\n", "\x00", "content", '","content":"', "}", "\u2028", "{}]}"]
)


@given(texts=st.lists(_TEXTS, max_size=6), reasonings=st.lists(_TEXTS, max_size=2), data=st.data())
def test_an_event_reads_the_same_whatever_was_read_before_it(
    texts: list[str], reasonings: list[str], data: st.DataObject
) -> None:
    dense = data.draw(st.booleans())
    deltas = [*({"content": text} for text in texts), *({"reasoning": r} for r in reasonings)]
    events = [written(delta) for delta in data.draw(st.permutations(deltas))]
    if dense:
        events = [json.dumps(json.loads(e), separators=(",", ":")) for e in events]

    one = ChatAnswer(SCENE, name=NAME)

    assert [one.read(event) for event in events] == [told(event) for event in events]


def test_what_differs_in_more_than_its_text_is_read_anew() -> None:
    answer = ChatAnswer(SCENE, name=NAME)
    first, other = written({"content": "a"}), written({"content": "b"}, id="5d0c")

    deltas = [answer.read(event) for event in (first, other, written({"content": "c", "x": 1}))]

    assert [delta and delta.event for delta in deltas] == [first, "", ""]
    assert [delta and delta.text for delta in deltas] == ["a", "b", "c"]
