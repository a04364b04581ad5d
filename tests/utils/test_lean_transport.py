"""Requests over plain asyncio: what comes back, what is used again, and what is left of nothing."""

import asyncio
import gc
import itertools
import re
import socket
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, aclosing, asynccontextmanager, suppress
from pathlib import Path
from ssl import SSLContext, create_default_context

import httpx2
import pytest

from src.utils.lean_transport import AnswerBody, LeanTransport
from tests import virtual_time
from tests.certificates import Authority, server_side
from tests.utils.raw_server import (
    END,
    SSE_HEAD,
    Act,
    RawServer,
    Script,
    chunk,
    free_port,
    raw_server,
    reply,
)

OK = (reply(200, b"fine", keep=True), Act.KEEP)
DEAF = "127.0.0.3"
LARGE = bytes(range(256)) * 40_000  # 10 MB

Pair = tuple[LeanTransport, RawServer]
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def transport_of(*scripts: Script, verify: SSLContext | bool = False) -> AsyncGenerator[Pair]:
    async with raw_server(*scripts) as server, LeanTransport(verify) as transport:
        yield transport, server


async def ask(
    transport: LeanTransport,
    url: str,
    method: str = "POST",
    content: bytes | AsyncIterator[bytes] = b"{}",
    **headers: str,
) -> httpx2.Response:
    timeout = {"timeout": {"connect": 0.5}}
    request = httpx2.Request(method, url, content=content, headers=headers, extensions=timeout)
    async with asyncio.timeout(20):
        return await transport.handle_async_request(request)


async def told(transport: LeanTransport, url: str, method: str = "POST") -> bytes:
    """Ask, and read all of the answer."""
    answer = await ask(transport, url, method)
    async with asyncio.timeout(20), aclosing(answer):
        return await answer.aread()


@asynccontextmanager
async def serving(talk: Talk) -> AsyncGenerator[str]:
    """Have each connection talked to, until the end of the test; return the address."""
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await talk(reader, writer)
            await reader.read()  # until the other side closes
        writer.transport.abort()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.get_running_loop().create_task(connected(reader, writer)))

    listener = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    finally:
        listener.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks)


def body_of(answer: httpx2.Response) -> AnswerBody:
    assert isinstance(answer.stream, AnswerBody)
    return answer.stream


async def state(transport: LeanTransport, connections: int, idle: int) -> None:
    """Wait until the transport holds so many connections."""
    wanted = f"<LeanTransport [{connections} connections, {idle} idle]>"
    async with asyncio.timeout(5):
        while repr(transport) != wanted:  # noqa: ASYNC110 - the other end is told by the kernel
            await asyncio.sleep(0)


# Answers


async def test_an_answer_has_its_status_its_headers_and_its_body() -> None:
    async with transport_of((reply("418", b"tea", x_kind="Oolong"),)) as (transport, server):
        answer = await ask(transport, f"{server.url}/a/b?c=d", content=b"water", x_pot="blue")

        assert answer.status_code == 418
        assert answer.headers["X-Kind"] == "Oolong"
        assert answer.http_version == "HTTP/1.1"
        assert await answer.aread() == b"tea"

    [heard] = server.heard
    assert heard.line == "POST /a/b?c=d HTTP/1.1"
    assert heard.header("x_pot") == "blue"
    assert heard.body == b"water"


HELLO = {
    "with its length": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "in chunks": SSE_HEAD + chunk("he") + chunk("llo") + END,
    "in chunks, with a trailer": SSE_HEAD + chunk("hello") + b"0\r\nX-Sum: 1\r\n\r\n",
    "until it closes": b"HTTP/1.1 200 OK\r\n\r\nhello",
    "of old": b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "after hints": b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Go on\r\n\r\n"
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
}


@pytest.mark.parametrize("data", HELLO.values(), ids=HELLO)
@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_an_answer_reads_the_same_however_it_comes(data: bytes, size: int) -> None:
    pieces = [data[at : at + size] for at in range(0, len(data), size)]

    async with transport_of(pieces) as (transport, server):
        assert await told(transport, server.url) == b"hello"


@pytest.mark.parametrize(
    ("method", "head"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"),
        ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ],
)
async def test_where_no_body_follows_none_is_waited_for(method: str, head: bytes) -> None:
    async with transport_of((head, Act.KEEP)) as (transport, server):
        for _ in range(2):
            assert await told(transport, server.url, method) == b""

    assert server.connections == 1


async def test_pieces_are_given_on_as_they_come() -> None:
    async with transport_of((SSE_HEAD, chunk("one"), Act.HANG)) as (transport, server):
        async with aclosing(await ask(transport, server.url)) as answer:
            assert await body_of(answer).read(5.0) == b"one"

        await server.left.wait()


async def test_a_request_that_cannot_be_written_is_not_sent() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"of unknown length"

    async with transport_of(OK) as (transport, server):
        with pytest.raises(httpx2.LocalProtocolError):
            await ask(transport, server.url, x_line="a\r\nInjected: b")
        with pytest.raises(httpx2.LocalProtocolError):
            await ask(transport, server.url, content=pieces())

    assert server.connections == 0


# What goes wrong


@pytest.mark.parametrize(
    ("script", "kind", "words"),
    [
        ((), httpx2.RemoteProtocolError, "disconnected without sending"),
        ((b"HTTP/1.1 200 OK\r\nConte",), httpx2.RemoteProtocolError, "disconnected without"),
        ((Act.RESET,), httpx2.ReadError, ""),
        ((SSE_HEAD, chunk("x")), httpx2.RemoteProtocolError, "closed connection .*chunked"),
        ((reply(200, b"12345")[:-2],), httpx2.RemoteProtocolError, "closed connection .*3 bytes"),
        ((SSE_HEAD, chunk("x"), Act.RESET), httpx2.ReadError, ""),
        ((b"SSH-2.0-OpenSSH\r\n\r\n",), httpx2.RemoteProtocolError, "illegal"),
        ((SSE_HEAD, b"zz\r\n", Act.HANG), httpx2.RemoteProtocolError, "size of a chunk"),
        ((b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",), httpx2.RemoteProtocolError, ""),
        ((b"HTTP/1.1 200 OK\r\nA: " + b"b" * 70_000,), httpx2.RemoteProtocolError, ""),
    ],
)
async def test_each_failure_has_the_name_that_it_has_with_httpx2(
    script: Script, kind: type[httpx2.TransportError], words: str
) -> None:
    async with transport_of(script) as (transport, server):
        with pytest.raises(kind) as failed:
            await told(transport, server.url)
        assert re.search(words, str(failed.value))
        await state(transport, 0, 0)


async def test_what_came_before_a_failure_is_given_on() -> None:
    async with transport_of((SSE_HEAD + chunk("one") + b"zz\r\n",)) as (transport, server):
        body = body_of(await ask(transport, server.url))

        assert await body.read() == b"one"
        with pytest.raises(httpx2.RemoteProtocolError):
            await body.read()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "does-not-exist.invalid", "a" * 64])
async def test_who_cannot_be_reached_is_a_connect_error(host: str) -> None:
    async with LeanTransport(verify=False) as transport:
        with pytest.raises(httpx2.ConnectError):
            await ask(transport, f"http://{host}:{free_port()}")


async def test_a_handshake_that_does_not_end_is_a_connect_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        async with LeanTransport(verify=False) as transport:
            request = httpx2.Request(
                "GET",
                f"https://127.0.0.1:{deaf.getsockname()[1]}",
                extensions={"timeout": {"connect": 0.05}},
            )
            with pytest.raises(httpx2.ConnectTimeout):
                await transport.handle_async_request(request)


async def _answers_at_one_of(first: str, second: str) -> tuple[bytes, float]:
    """Ask a host of two addresses, of which only the second answers; tell how long it took."""

    async def both(_: str) -> list[str]:
        return [first, second]

    with pytest.MonkeyPatch.context() as patch, ExitStack() as sockets:
        patch.setattr("src.utils.lean_transport._addresses", both)
        async with transport_of(OK) as (transport, server):
            port = int(server.url.rpartition(":")[2])
            if first == DEAF:
                sockets.enter_context(socket.create_server((DEAF, port), backlog=0))
                for _ in range(3):
                    filler = sockets.enter_context(socket.socket())
                    filler.setblocking(False)
                    filler.connect_ex((DEAF, port))
            return await told(transport, f"http://two.test:{port}"), virtual_time.here().time()


@pytest.mark.parametrize(("first", "seconds"), [("127.0.0.2", 0.0), (DEAF, 0.25)])
def test_where_one_address_does_not_answer_another_is_tried(first: str, seconds: float) -> None:
    assert virtual_time.run(_answers_at_one_of(first, "127.0.0.1")) == (b"fine", seconds)


async def test_who_leaves_while_a_connection_is_made_loses_no_socket(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def at_once(*_: object, **__: object) -> list[object]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    async with transport_of(OK) as (transport, server):
        port = int(server.url.rpartition(":")[2])
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", at_once)
        url = server.url.replace("127.0.0.1", "localhost")
        for turns in range(60):
            task = asyncio.create_task(ask(transport, url))
            for _ in range(turns % 20):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
        async with asyncio.timeout(5):
            while not re.search(r"\[(\d+) connections, \1 idle", repr(transport)):  # noqa: ASYNC110
                await asyncio.sleep(0)

    gc.collect()  # warnings of sockets that were not closed are errors


async def test_large_bodies_go_and_come_through_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    tls = server_side(authority.issue("server"))
    verify = create_default_context(cafile=authority.file)

    async with (
        raw_server((reply(200, LARGE, keep=True), Act.KEEP), tls=tls) as server,
        LeanTransport(verify) as transport,
    ):
        for _ in range(2):
            answer = await ask(transport, server.url, content=LARGE)
            assert await answer.aread() == LARGE

        assert [heard.body == LARGE for heard in server.heard] == [True, True]
        assert server.connections == 1


async def test_a_server_that_is_not_trusted_is_a_connect_error(tmp_path: Path) -> None:
    tls = server_side(Authority(tmp_path).issue("server"))

    async with raw_server(OK, tls=tls) as server, LeanTransport(create_default_context()) as lean:
        with pytest.raises(httpx2.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            await ask(lean, server.url)

    assert server.heard == []


# Silence


async def _reads(patience: float, after: float) -> list[str]:
    """Read words that come every nine seconds; tell when each wait was over."""
    now = virtual_time.here().time

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(SSE_HEAD)
        for _ in range(3):
            await asyncio.sleep(9)
            writer.write(chunk("word"))
        await asyncio.sleep(100)

    seen: list[str] = []
    async with serving(talk) as url, LeanTransport(verify=False) as transport:
        body = body_of(await ask(transport, url))
        start = now()
        try:
            for wait in (patience, patience, patience, after):
                word = await body.read(wait)
                seen.append(f"{word.decode()} {now() - start:.0f}")
        except TimeoutError:
            seen.append(f"silent {now() - start:.0f}")
        await body.aclose()
    return seen


@pytest.mark.parametrize(
    ("patience", "after", "seen"),
    [
        (10.0, 10.0, ["word 9", "word 18", "word 27", "silent 37"]),
        (600.0, 5.0, ["word 9", "word 18", "word 27", "silent 32"]),
        (10.0, 60.0, ["word 9", "word 18", "word 27", "silent 87"]),
        (8.0, 8.0, ["silent 8"]),
    ],
)
def test_silence_is_counted_from_the_last_word(
    patience: float, after: float, seen: list[str]
) -> None:
    assert virtual_time.run(_reads(patience, after)) == seen


async def _drips() -> float:
    """Wait for a body of which only bytes between its chunks come."""

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(SSE_HEAD)
        for _ in range(10):
            await asyncio.sleep(6)
            writer.write(b"0")

    async with serving(drip) as url, LeanTransport(verify=False) as transport:
        body = body_of(await ask(transport, url))
        start = virtual_time.here().time()
        with pytest.raises(TimeoutError):
            await body.read(10.0)
        return virtual_time.here().time() - start


def test_bytes_without_content_are_silence() -> None:
    assert virtual_time.run(_drips()) == pytest.approx(10.0)


# Connections


async def test_a_connection_is_used_again_the_last_one_first() -> None:
    numbers = itertools.count()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = next(numbers)
        while await reader.readuntil(b"\r\n\r\n{}"):
            writer.write(reply(200, str(number), keep=True))

    async with serving(talk) as url, LeanTransport(verify=False) as transport:
        at_once = await asyncio.gather(*(told(transport, url) for _ in range(3)))
        later = [await told(transport, url) for _ in range(5)]

    assert sorted(at_once) == [b"0", b"1", b"2"]
    assert len(set(later)) == 1


@pytest.mark.parametrize(
    "first",
    [
        (reply(200, b"fine"), Act.KEEP),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nfine", Act.KEEP),
        (reply(200, b"fine", keep=True) + b"more", Act.KEEP),
        (SSE_HEAD + chunk("fine") + END + b"HTTP/1.1 200 OK\r\n\r\n", Act.KEEP),
    ],
    ids=["said", "of old", "more than was told", "another answer"],
)
async def test_a_connection_that_is_not_to_be_used_again_is_closed(first: Script) -> None:
    async with transport_of(first, OK) as (transport, server):
        assert await told(transport, server.url) == b"fine"
        await state(transport, 0, 0)
        assert await told(transport, server.url) == b"fine"

    assert server.connections == 2


@pytest.mark.parametrize("late", [(), (b"HTTP/1.1 408 Too late\r\n\r\n", Act.KEEP)])
async def test_an_idle_connection_that_ends_or_speaks_is_dropped(late: Script) -> None:
    async with transport_of((*OK[:1], *late), OK) as (transport, server):
        assert await told(transport, server.url) == b"fine"
        await state(transport, 0, 0)
        assert await told(transport, server.url) == b"fine"


async def test_an_end_that_the_loop_has_not_seen_yet_is_seen() -> None:
    answered, hung_up = threading.Event(), threading.Event()

    def serve_two() -> None:
        for _ in range(2):
            peer, _ = listener.accept()
            with peer:
                peer.recv(65536)
                peer.sendall(OK[0])
                answered.wait(10)
            hung_up.set()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        server = threading.Thread(target=serve_two)
        server.start()
        async with LeanTransport(verify=False) as transport:
            assert await told(transport, url) == b"fine"
            answered.set()
            hung_up.wait(10)  # the loop stands still meanwhile
            assert await told(transport, url) == b"fine"
        server.join()


async def _asks_again_after(seconds: float) -> int:
    async with transport_of(OK) as (transport, server):
        await told(transport, server.url)
        await asyncio.sleep(seconds)
        await told(transport, server.url)
        return server.connections


def test_a_connection_is_idle_for_a_minute_at_most() -> None:
    assert virtual_time.run(_asks_again_after(59.0)) == 1
    assert virtual_time.run(_asks_again_after(61.0)) == 2


async def test_no_more_than_32_idle_connections_are_kept() -> None:
    async with transport_of((reply(200, b"1234", keep=True)[:-2], b"34", Act.KEEP)) as (
        transport,
        server,
    ):
        answers = await asyncio.gather(*(ask(transport, server.url) for _ in range(40)))
        await asyncio.gather(*(answer.aread() for answer in answers))

        await state(transport, 32, 32)


# Leaving


async def test_who_leaves_before_an_answer_closes_the_connection() -> None:
    async with transport_of((Act.HANG,)) as (transport, server):
        task = asyncio.create_task(ask(transport, server.url))
        await server.asked.wait()

        task.cancel()
        await asyncio.wait([task])

        async with asyncio.timeout(5):
            await server.left.wait()
        await state(transport, 0, 0)


async def test_who_leaves_as_the_answer_comes_leaves_the_connection_alone() -> None:
    async with transport_of(OK) as (transport, server):
        for turns in range(40):
            task = asyncio.create_task(ask(transport, server.url))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            assert await told(transport, server.url) == b"fine"
            await asyncio.wait([task])


async def test_an_answer_that_is_left_closes_its_socket_at_once() -> None:
    async with transport_of((SSE_HEAD, Act.HANG)) as (transport, server):
        answer = await ask(transport, server.url)

        await answer.aclose()

        assert repr(transport) == "<LeanTransport [0 connections, 0 idle]>"
        async with asyncio.timeout(5):
            await server.left.wait()


async def test_closing_ends_what_runs_and_what_is_idle() -> None:
    async with raw_server(OK, (Act.HANG,)) as server:
        transport = LeanTransport(verify=False)
        await told(transport, server.url)
        server.asked.clear()
        waiting = asyncio.create_task(ask(transport, server.url))
        await server.asked.wait()

        await transport.aclose()

        assert repr(transport) == "<LeanTransport [0 connections, 0 idle]>"
        with pytest.raises(httpx2.RemoteProtocolError):
            await waiting
        with pytest.raises(RuntimeError):
            await ask(transport, server.url)


# Large bodies


async def test_a_large_body_goes_without_holding_up_the_loop() -> None:
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async with transport_of(OK) as (transport, server):
        turning = asyncio.create_task(turn())
        await ask(transport, server.url, content=LARGE)
        turning.cancel()

    assert server.heard[0].body == LARGE
    assert turns >= len(LARGE) // 65536


async def test_a_form_goes_as_httpx2_writes_it() -> None:
    files = {"image": ("a.png", LARGE[:300_000], "image/png"), "mask": ("b.png", b"m", "image/png")}
    async with transport_of(OK) as (transport, server):
        request = httpx2.Request("POST", server.url, data={"a": "b" * 70_000}, files=files)
        await transport.handle_async_request(request)

    form = server.heard[0].form
    assert form["a"].content == b"b" * 70_000
    assert form["image"].content == LARGE[:300_000]
    assert form["mask"].content == b"m"


async def test_a_refusal_is_read_while_the_request_is_still_being_sent() -> None:
    heard = asyncio.Event()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer after the head, and read nothing of the body."""
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply(413, b"too large", keep=True)[:-5])
        await heard.wait()
        writer.write(b"large")

    async with serving(refuse) as url, LeanTransport(verify=False) as transport:
        answer = await ask(transport, url, content=LARGE * 3)
        heard.set()

        assert answer.status_code == 413
        assert await answer.aread() == b"too large"
        await state(transport, 0, 0)


async def test_a_refusal_is_read_even_if_the_server_has_hung_up_meanwhile() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        hung_up = threading.Event()

        def refuse() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.recv(1000)
                peer.sendall(reply(413, b"too large"))
            hung_up.set()

        async def body() -> AsyncIterator[bytes]:
            yield bytes(100_000)
            hung_up.wait(10)  # the loop stands still, and does not see the answer
            yield bytes(100_000)

        server = threading.Thread(target=refuse)
        server.start()
        async with LeanTransport(verify=False) as transport:
            answer = await ask(
                transport,
                f"http://127.0.0.1:{listener.getsockname()[1]}",
                content=body(),
                **{"Content-Length": "200000"},
            )
            assert answer.status_code == 413
            assert await answer.aread() == b"too large"
        server.join()


async def test_what_nobody_reads_is_left_to_the_server() -> None:
    sent = 0

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
        for _ in range(1000):
            writer.write(bytes(100_000))
            sent += 100_000
            await writer.drain()

    async with serving(pour) as url, LeanTransport(verify=False) as transport:
        answer = await ask(transport, url)
        before = -1
        while before != sent:
            before = sent
            for _ in range(500):
                await asyncio.sleep(0)

        assert sent < 50_000_000
        assert len(await answer.aread()) == 100_000_000
