import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.models.errors import BackendProtocolError
from src.utils.sse_reader import SSEReader

CORPUS: list[tuple[bytes, list[str]]] = [
    (b"data: a\n\n", ["a"]),
    (b"data:a\n\n", ["a"]),
    (b"data:  a\n\n", [" a"]),
    (b"data: a\r\n\r\n", ["a"]),
    (b"data: a\r\rdata: b\r\r", ["a", "b"]),
    (b"data: a\n\r\ndata: b\r\n\n", ["a", "b"]),
    (b"data: a\r\n\ndata: b\n\r", ["a", "b"]),
    (b"\xef\xbb\xbfdata: a\n\n", ["a"]),
    (b"\xef\xbb\xbf\ndata: a\n\n", ["a"]),
    (b": a comment\n\n:\n\n", []),
    (b"data: a\n: in between\ndata: b\n\n", ["a\nb"]),
    (b"event: x\nid: 7\nretry: 5\ndata: a\n\n", ["a"]),
    (b"data\n\n", [""]),
    (b"data:\n\n", [""]),
    (b"\n\n\n\r\n", []),
    (b"data: a\n\ndata: cut", ["a"]),
    (b"data: a\n\ndata: cut\n", ["a"]),
    ("data: grüße 🦊\n\n".encode(), ["grüße 🦊"]),
    (b"data: \xff\n\n", ["\ufffd"]),
    (b"data: [DONE]\n\ndata: [DONE]\n\n", ["[DONE]", "[DONE]"]),
    (b"dat: a\nData: b\n data: c\n\n", []),
]


def read(pieces: list[bytes]) -> list[str]:
    reader = SSEReader()
    return [event for piece in pieces for event in reader.feed(piece)]


def cut(data: bytes, at: list[int]) -> list[bytes]:
    marks = [0, *sorted(min(mark, len(data)) for mark in at), len(data)]
    return [data[start:end] for start, end in pairwise(marks)]


@pytest.mark.parametrize(("data", "events"), CORPUS)
def test_events_are_read_as_the_standard_has_it(data: bytes, events: list[str]) -> None:
    assert read([data]) == events


@pytest.mark.parametrize(("data", "events"), CORPUS)
def test_no_cut_anywhere_changes_what_is_read(data: bytes, events: list[str]) -> None:
    assert read([bytes([byte]) for byte in data]) == events
    for at in range(len(data) + 1):
        assert read([data[:at], data[at:]]) == events
        assert read([data[:at], b"", data[at:]]) == events


lines = st.one_of(
    st.text().map(lambda text: f"data: {text}"),
    st.sampled_from(["", "", "data", "data:", ": note", "event: x", "data:🦊", "\ufeff"]),
)
streams = st.lists(st.tuples(lines, st.sampled_from(["\n", "\r", "\r\n"]))).map(
    lambda parts: "".join(line + end for line, end in parts).encode("utf-8", "replace")
)


@given(data=st.one_of(streams, st.binary()), at=st.lists(st.integers(0, 300)))
def test_events_do_not_depend_on_how_the_bytes_were_split(data: bytes, at: list[int]) -> None:
    assert read(cut(data, at)) == read([data])


@given(texts=st.lists(st.text(min_size=1)), end=st.sampled_from(["\n", "\r", "\r\n"]))
def test_what_was_sent_as_json_comes_out_as_it_was(texts: list[str], end: str) -> None:
    data = "".join(f"data: {json.dumps(text)}{end}{end}" for text in texts).encode()

    assert [json.loads(event) for event in read([data])] == texts


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_line_without_an_end_is_refused_before_it_fills_the_memory(size: int) -> None:
    reader = SSEReader(limit=1000)
    data = b"data: first\n\ndata: " + b"x" * 2000
    events: list[str] = []

    with pytest.raises(BackendProtocolError, match="1,000 bytes"):  # noqa: PT012
        for piece in cut(data, list(range(0, len(data), size))):
            events.extend(reader.feed(piece))

    assert events == ["first"]


def test_many_lines_of_one_event_are_refused_like_one_long_line() -> None:
    reader = SSEReader(limit=1000)

    with pytest.raises(BackendProtocolError):
        list(reader.feed(b"data: 0123456789\n" * 100))


def test_a_long_stream_of_short_events_is_read_for_ever() -> None:
    reader = SSEReader(limit=100)

    assert sum(1 for _ in range(1000) for _ in reader.feed(b": note\ndata: 0123456789\n\n")) == 1000


@pytest.mark.parametrize("tail", [b"data: [DONE]", b"data: [DONE]\n", b"data: [DONE]\r"])
def test_an_event_whose_line_end_was_lost_can_be_asked_for(tail: bytes) -> None:
    reader = SSEReader()

    assert list(reader.feed(tail)) == []
    assert list(reader.close()) == ["[DONE]"]
    assert list(reader.close()) == []


def test_its_repr_tells_what_it_waits_for() -> None:
    reader = SSEReader()

    list(reader.feed(b"data: a\nda"))

    assert repr(reader) == "<SSEReader [2 bytes of a line, 1 data lines]>"
