"""A stream reads the same wherever the network cuts it."""

import json
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.models.errors import BackendError, EmptyResult, StreamCut
from src.models.results import Chunk, Finish, TextDelta
from src.utils.localai_chat import ChatAnswer
from src.utils.localai_errors import Scene
from src.utils.sse_reader import SSEReader
from tests.utils.localai_asking import answer, client_of, failure, stream
from tests.utils.raw_server import chunk


def said(**delta: object) -> str:
    told = {"id": "U", "choices": [{"index": 0, "finish_reason": None, "delta": delta}]}
    return json.dumps(told, ensure_ascii=False)


ENDED = json.dumps({"choices": [{"finish_reason": "length", "delta": {"content": None}}]})
USAGE = json.dumps({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}})
FAULT = json.dumps({"error": {"message": "code = Unavailable desc = EOF", "type": "server_error"}})

RECORDED = (
    "\ufeff: warming up\r\n\r\n"
    f"data: {said(role='assistant', content=None)}\n\n"
    f"data: {said(content=None, reasoning='hm, 漢字…')}\n\n"
    f"event: message\r\nid: 7\r\ndata: {said(content='Grüße ')}\r\n\r\n"
    f"data:{said(content='🦊🧑🏽‍🚀')}\r\r"
    'data: {"type": "mcp_tool_result",\ndata: "result": "two lines"}\n\n'
    f": ping\n\n\ndata: {said(content='[DONE] data: ')}\n\n"
    f"data: {ENDED}\n\ndata: {USAGE}\n\n"
    "data: [DONE]\n\ndata: [DONE]\n\n"
).encode()
READ = [
    TextDelta("", "hm, 漢字…"),
    TextDelta("Grüße "),
    TextDelta("🦊🧑🏽‍🚀"),
    TextDelta("[DONE] data: "),
    Finish("length", 5, 2),
]
STREAMS = {
    "complete": RECORDED,
    "without its end": RECORDED[: RECORDED.index(b"data: [DONE]")],
    "with an error inside": RECORDED.replace(b"data: [DONE]", f"data: {FAULT}".encode()),
    "that ends in the middle": RECORDED[: RECORDED.index("🧑".encode()) + 2],
    "whose last line end is lost": RECORDED[: RECORDED.index(b"[DONE]\n") + 6],
    "with a wrong event": RECORDED.replace(b'"choices": []', b'"choices": 17'),
}


def read(pieces: Iterable[bytes]) -> list[Chunk | str]:
    """Read a stream as the client does; an error is told by its name, at the end."""
    reader, told = SSEReader(), ChatAnswer(Scene("gpu"))
    chunks: list[Chunk | str] = []
    try:
        for piece in pieces:
            for event in reader.feed(piece):
                if (delta := told.read(event)) is not None:
                    chunks.append(delta)
                if told.done:
                    break
            if told.done:
                break
        else:
            told.last(reader.close())
        chunks.append(Finish(told.end().reason, *told.tokens))
    except BackendError as error:
        chunks.append(type(error).__name__)
    return chunks


def cut(data: bytes, at: Iterable[int]) -> list[bytes]:
    marks = [0, *sorted(at), len(data)]
    return [data[start:end] for start, end in pairwise(marks)]


def test_what_was_told_so_far_shows() -> None:
    told = ChatAnswer(Scene("gpu"))

    told.read(ENDED)

    assert repr(told) == "<ChatAnswer [done=False, reason='length']>"


def test_the_recorded_streams_read_as_they_should() -> None:
    endings = {name: read([data])[-1] for name, data in STREAMS.items()}

    assert read([RECORDED]) == READ
    assert endings == {
        "complete": Finish("length", 5, 2),
        "without its end": "StreamCut",
        "with an error inside": "ModelCrashed",
        "that ends in the middle": "StreamCut",
        "whose last line end is lost": Finish("length", 5, 2),
        "with a wrong event": "BackendProtocolError",
    }


@pytest.mark.parametrize("data", STREAMS.values(), ids=STREAMS)
def test_no_single_cut_changes_what_is_read(data: bytes) -> None:
    whole = read([data])

    for at in range(len(data) + 1):
        assert read([data[:at], data[at:]]) == whole


@pytest.mark.parametrize("data", STREAMS.values(), ids=STREAMS)
@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_no_regular_cuts_change_what_is_read(data: bytes, size: int) -> None:
    assert read(cut(data, range(size, len(data), size))) == read([data])


@given(
    data=st.sampled_from(list(STREAMS.values())),
    at=st.lists(st.integers(0, len(RECORDED)), max_size=40),
)
def test_no_cuts_at_all_change_what_is_read(data: bytes, at: list[int]) -> None:
    assert read(cut(data, (min(mark, len(data)) for mark in at))) == read([data])


async def test_no_cut_changes_what_the_client_gives_on() -> None:
    emoji = RECORDED.index("🧑".encode())
    places = sorted({*range(0, len(RECORDED), 23), *range(emoji, emoji + 12)})
    scripts = [stream(*map(chunk, filter(None, cut(RECORDED, [at])))) for at in places]

    async with client_of(*scripts) as (client, _):
        for _ in places:
            assert await answer(client) == READ


@pytest.mark.parametrize("size", [1, 3])
async def test_the_client_reads_a_stream_byte_by_byte(size: int) -> None:
    pieces = cut(RECORDED, range(size, len(RECORDED), size))

    async with client_of(stream(*map(chunk, pieces))) as (client, _):
        assert await answer(client) == READ


async def test_a_stream_cut_short_anywhere_is_no_answer() -> None:
    first = RECORDED.index(b"\n\n") + 1
    end = RECORDED.index(b"data: [DONE]") + len("data: [DONE]") - 1
    places = [*range(0, end, 23), *range(end - 14, end + 1)]
    scripts = [stream(*map(chunk, filter(None, [RECORDED[:at]]))) for at in places]

    async with client_of(*scripts) as (client, _):
        for at in places:
            expected = EmptyResult if at <= first else StreamCut
            assert type(await failure(client)) is expected
