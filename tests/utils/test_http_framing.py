"""A body is the same wherever the network cuts it, and ends where it should."""

from collections.abc import Callable, Iterable
from itertools import pairwise

import h11
import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.utils.http_framing import (
    Chunked,
    Counted,
    Framing,
    Head,
    UntilClosed,
    framing_of,
    read_head,
    request_head,
)


def read(framing: Framing, pieces: Iterable[bytes]) -> tuple[bytes, bool, bool, str]:
    """Read as the transport does: until the end, or until something is wrong."""
    content: list[bytes] = []
    surplus = False
    for piece in pieces:
        if framing.done or framing.error:
            surplus = surplus or framing.done
            break
        content.append(framing.feed(piece))
        surplus = framing.surplus
    return b"".join(content), framing.done, surplus and framing.done, str(framing.error or "")


def cut(data: bytes, at: Iterable[int]) -> list[bytes]:
    marks = [0, *sorted(min(mark, len(data)) for mark in at), len(data)]
    return [data[start:end] for start, end in pairwise(marks) if start < end]


def chunked(*pieces: bytes, extension: bytes = b"", trailer: bytes = b"") -> bytes:
    chunks = [b"%X%s\r\n%s\r\n" % (len(piece), extension, piece) for piece in pieces if piece]
    return b"".join([*chunks, b"0%s\r\n" % extension, trailer, b"\r\n"])


PIECES = st.lists(st.binary(min_size=1, max_size=40), max_size=8)
MARKS = st.lists(st.integers(0, 600), max_size=30)


@given(
    pieces=PIECES,
    extension=st.sampled_from([b"", b" ", b';a="b"', b" ; a\r"]),
    trailer=st.sampled_from([b"", b"X-Sum: 1\r\n", b"A: b\r\nC: d\r\n"]),
    rest=st.sampled_from([b"", b"HTTP/1.1 200 OK\r\n"]),
    at=MARKS,
)
def test_chunks_are_read_whatever_the_cuts(
    pieces: list[bytes], extension: bytes, trailer: bytes, rest: bytes, at: list[int]
) -> None:
    data = chunked(*pieces, extension=extension, trailer=trailer)

    assert read(Chunked(), cut(data + rest, at)) == (b"".join(pieces), True, bool(rest), "")


@given(content=st.binary(max_size=100), rest=st.binary(max_size=9), at=MARKS)
def test_a_body_of_known_length_is_read_whatever_the_cuts(
    content: bytes, rest: bytes, at: list[int]
) -> None:
    pieces = cut(content + rest, at)

    assert read(Counted(len(content)), pieces) == (content, True, bool(rest), "")


@given(
    noise=st.binary(max_size=30) | st.text("0123456789abcdefg;\r\n ", max_size=30).map(str.encode),
    pieces=PIECES,
    at=MARKS,
)
def test_noise_is_read_alike_whatever_the_cuts(
    noise: bytes, pieces: list[bytes], at: list[int]
) -> None:
    data = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + noise

    assert read(Chunked(), cut(data, at)) == read(Chunked(), [data])


@given(pieces=PIECES, where=st.integers(0, 400))
def test_chunks_that_break_off_are_not_complete(pieces: list[bytes], where: int) -> None:
    data = chunked(*pieces)
    framing = Chunked()

    content, done, _, wrong = read(framing, [data[: min(where, len(data) - 1)]])

    assert (done, wrong) == (False, "")
    assert b"".join(pieces).startswith(content)
    assert "closed connection" in str(framing.cut())


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n",
        b"x\r\n",
        b"-1\r\n",
        b"0x5\r\nhello\r\n",
        b" 5\r\nhello\r\n",
        b"5\r\nhelloXX",
        b"5\r\nhello\rX",
        b"5\r\nhello\n\n",
        b"f" * 16 + b"\r\n",
        b"5;" + b"x" * 5000,
        b"5;" + b"x" * 5000 + b"\r\n",
        b"0\r\n" + b"A: b\r\n" * 20_000,
    ],
)
@pytest.mark.parametrize("size", [1, 3, 100_000])
def test_what_are_no_chunks_is_refused(data: bytes, size: int) -> None:
    _, done, _, wrong = read(Chunked(), cut(data, range(size, len(data), size)))

    assert not done
    assert wrong


def test_a_body_without_a_length_ends_with_its_connection() -> None:
    framing = UntilClosed()

    assert read(framing, [b"a", b"b"]) == (b"ab", False, False, "")
    assert framing.cut() is None


def test_a_body_that_is_too_short_is_told_with_its_length() -> None:
    framing = Counted(5)
    framing.feed(b"ab")

    assert "received 2 bytes, expected 5" in str(framing.cut())


def written(*lines: str, status: int = 200, version: str = "1.1") -> bytes:
    return "\r\n".join([f"HTTP/{version} {status} OK", *lines, "", ""]).encode("latin-1")


def head(*lines: str, status: int = 200, version: str = "1.1") -> Head:
    read = read_head(written(*lines, status=status, version=version))
    assert read is not None
    return read[0]


@pytest.mark.parametrize(
    ("told", "method", "kind", "kept"),
    [
        (head("Content-Length: 5"), "POST", Counted, True),
        (head("Content-Length: 5", "Connection: Close"), "POST", Counted, False),
        (head("Content-Length: 5", "Connection: keep-alive, close"), "POST", Counted, False),
        (head("Content-Length: 5", "Connection: closed"), "POST", Counted, True),
        (head("Content-Length: 5", version="1.0"), "POST", Counted, False),
        (head("Transfer-Encoding: chunked"), "POST", Chunked, True),
        (head("Transfer-Encoding: chunked", "Content-Length: 5"), "POST", Chunked, False),
        (head(), "POST", UntilClosed, False),
        (head("Content-Length: 5"), "HEAD", Counted, True),
        (head("Transfer-Encoding: chunked"), "HEAD", Counted, True),
        (head(status=204), "POST", Counted, True),
        (head("Content-Length: 5", status=304), "GET", Counted, True),
    ],
)
def test_the_head_tells_how_the_body_ends(
    told: Head, method: str, kind: Callable[..., Framing], kept: bool
) -> None:
    framing, keep = framing_of(told, method)

    nothing_follows = method == "HEAD" or told.status != 200
    assert type(framing) is kind
    assert keep is kept
    assert framing.done is nothing_follows


# Heads


def as_h11_reads(data: bytes) -> tuple[int, list[tuple[bytes, bytes]], bytes] | None:
    """Read the head of an answer; None if it is none, or not complete."""
    exchange = h11.Connection(h11.CLIENT)
    exchange.send(h11.Request(method="GET", target="/", headers=[("Host", "host")]))
    exchange.receive_data(data)
    try:
        event = exchange.next_event()
    except h11.RemoteProtocolError:
        return None
    if not isinstance(event, h11.Response | h11.InformationalResponse):
        return None
    return event.status_code, list(event.headers), exchange.trailing_data[0]


_NAMES = st.sampled_from(["Server", "x-a", "Content-Type", "X a", "", "a:", "\u00e9", "Date\t"])
_VALUES = st.text(st.sampled_from('aZ9 ,;=\t:"\u00e9\x00\x0b\x7f\r\n'), max_size=6)
_FIRST = st.sampled_from(
    [
        "HTTP/1.1 200 OK",
        "HTTP/1.0 404",
        "HTTP/1.1 503 ",
        "HTTP/1.1 100 Go on",
        "HTTP/1.1 101 Switching Protocols",
        "HTTP/1.1 99 No",
        "HTTP/1.1  200 OK",
        "HTTP/2.0 200 OK",
        "http/1.1 200 OK",
        "HTTP/1.1 2000 OK",
        "SSH-2.0",
        "",
    ]
)


@given(
    first=_FIRST,
    fields=st.lists(st.tuples(_NAMES, st.sampled_from([":", ": ", ":\t", " :", ""]), _VALUES)),
    end=st.sampled_from(["\r\n", "\n"]),
)
def test_nothing_is_read_that_h11_would_not_read_just_so(
    first: str, fields: list[tuple[str, str, str]], end: str
) -> None:
    lines = [first, *("".join(field) for field in fields), "", "rest"]
    data = end.join(lines).encode("latin-1")
    try:
        read = read_head(data)
    except httpx2.RemoteProtocolError:
        read = None

    if read is not None:
        assert (read[0].status, read[0].headers, read[1]) == as_h11_reads(data)


@given(
    status=st.integers(100, 599).filter(lambda status: status != 101),
    fields=st.dictionaries(
        st.from_regex(r"[A-Za-z][A-Za-z-]{0,8}", fullmatch=True).filter(
            lambda name: name.lower() not in ("content-length", "transfer-encoding")
        ),
        st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=8),
        max_size=5,
    ),
    rest=st.binary(max_size=8),
)
def test_every_good_head_is_read_as_h11_reads_it(
    status: int, fields: dict[str, str], rest: bytes
) -> None:
    data = written(*(f"{name}: {value}" for name, value in fields.items()), status=status) + rest
    read = read_head(data)

    assert read is not None
    assert (read[0].status, read[0].headers, read[1]) == as_h11_reads(data)


def test_a_switch_to_another_protocol_is_refused_as_by_h11() -> None:
    data = written("Upgrade: h2c", "Connection: upgrade", status=101)

    with pytest.raises(httpx2.RemoteProtocolError, match="switched"):
        read_head(data)
    assert as_h11_reads(data) is None


def test_a_head_that_is_not_complete_is_waited_for() -> None:
    data = written("Content-Length: 5", "X: y")

    assert [read_head(data[:size]) for size in range(len(data))] == [None] * len(data)


@pytest.mark.parametrize("data", [b"x" * 70_000, written("X: " + "y" * 70_000)])
def test_a_head_that_is_far_too_long_is_none(data: bytes) -> None:
    with pytest.raises(httpx2.RemoteProtocolError, match="too long"):
        read_head(data)


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (["Transfer-Encoding: gzip, chunked"], "transfer-encoding"),
        (["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"], "transfer-encoding"),
        (["Content-Length: 5", "Content-Length: 6"], "conflicting"),
        (["Content-Length: 5, 6"], "conflicting"),
        (["Content-Length: +5"], "bad content-length"),
        (["Content-Length: " + "9" * 30], "bad content-length"),
    ],
)
def test_a_head_that_tells_no_sure_length_is_refused(lines: list[str], why: str) -> None:
    with pytest.raises(httpx2.RemoteProtocolError, match=why):
        framing_of(head(*lines), "POST")


def test_a_request_is_written_line_by_line() -> None:
    request = httpx2.Request("POST", "http://host/a%20b?c", headers={"X": "y"}, content=b"hi")

    assert request_head(request) == (
        b"POST /a%20b?c HTTP/1.1\r\nHost: host\r\nX: y\r\nContent-Length: 2\r\n\r\n"
    )


@pytest.mark.parametrize("value", [b"a\r\nB: c", b"a\nb", b"a\rb", b"a\0b"])
def test_a_field_that_would_become_two_is_not_sent(value: bytes) -> None:
    request = httpx2.Request("GET", "http://host/", headers=[(b"X", value)])

    with pytest.raises(httpx2.LocalProtocolError):
        request_head(request)
