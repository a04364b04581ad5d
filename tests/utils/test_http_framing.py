"""A body is the same wherever the network cuts it, and ends where it should."""

from collections.abc import Callable, Iterable
from itertools import pairwise

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.utils.http_framing import Chunked, Counted, Framing, UntilClosed, framing_of


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


def head(*lines: str, status: int = 200, version: str = "1.1") -> h11.Response:
    headers = [(name, value) for name, _, value in (line.partition(": ") for line in lines)]
    return h11.Response(status_code=status, headers=headers, http_version=version)


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
    told: h11.Response, method: str, kind: Callable[..., Framing], kept: bool
) -> None:
    framing, keep = framing_of(told, method)

    nothing_follows = method == "HEAD" or told.status_code != 200
    assert type(framing) is kind
    assert keep is kept
    assert framing.done is nothing_follows
