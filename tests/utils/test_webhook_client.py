"""Where webhooks go and what is heard of it: real sockets, names that only a test knows."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from ssl import create_default_context

import pytest

from src.models.webhooks import WebhookRules
from src.utils.webhook_client import Heard, WebhookClient

from ..certificates import Authority, server_side
from .raw_server import Act, RawServer, Script, free_port, raw_server, reply

KEYS = [bytes(32)]
STRICT = WebhookRules(keys=KEYS, allow_http=True)
AT_HOME = WebhookRules(keys=KEYS, allow_http=True, allow_private=True)
SEVERAL = ["127.0.0.9", "127.0.0.1"]


class Names:
    """Finds the same addresses for every name, and counts how often it was asked."""

    def __init__(self, *addresses: str) -> None:
        self.addresses: Sequence[str] = addresses
        self.asked: list[tuple[str, int]] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append((host, port))
        return self.addresses


@asynccontextmanager
async def receiver(
    *scripts: Script, names: Names | None = None, seconds: float = 5.0
) -> AsyncGenerator[tuple[WebhookClient, RawServer, str]]:
    """Serve under the name `hooks.example`."""
    async with raw_server(*scripts) as server:
        client = WebhookClient(
            AT_HOME, clock=lambda: 0.0, seconds=seconds, resolve=names or Names("127.0.0.1")
        )
        port = server.url.rpartition(":")[2]
        try:
            yield client, server, f"http://hooks.example:{port}/told?by=queue"
        finally:
            await client.close()


async def test_what_is_sent_arrives_under_the_name_that_was_asked_for() -> None:
    async with receiver((reply(204),)) as (client, server, url):
        heard = await client.post(url, b'{"a":1}', {"webhook-id": "job-1:3"})

    assert heard == Heard(204, "answered 204")
    (request,) = server.heard
    assert request.line == "POST /told?by=queue HTTP/1.1"
    assert request.header("host") == f"hooks.example:{server.url.rpartition(':')[2]}"
    assert request.header("webhook-id") == "job-1:3"
    assert request.header("content-type") == "application/json"
    assert request.body == b'{"a":1}'


async def test_a_name_is_resolved_once_and_the_connection_goes_there() -> None:
    names = Names("127.0.0.1")
    async with receiver((reply(200),), names=names) as (client, server, url):
        await client.post(url, b"{}", {})
        await client.post(url, b"{}", {})

    assert [host for host, _ in names.asked] == ["hooks.example"] * 2
    assert server.connections == 2


@pytest.mark.parametrize(
    "addresses", [["10.0.0.1"], ["93.184.215.14", "127.0.0.1"], ["::ffff:127.0.0.1"], []]
)
async def test_nothing_is_sent_if_a_name_stands_for_an_address_that_is_not_public(
    addresses: list[str],
) -> None:
    async with raw_server((reply(200),)) as server:
        client = WebhookClient(STRICT, clock=lambda: 0.0, resolve=Names(*addresses))
        heard = await client.post(server.url.replace("127.0.0.1", "hooks.example"), b"{}", {})
        await client.close()

    assert heard == Heard(None, "its name stands for an address that is not public")
    assert server.connections == 0


async def test_nothing_is_sent_where_the_rules_forbid_it_by_now() -> None:
    client = WebhookClient(STRICT, clock=lambda: 0.0)

    heard = await client.post("http://127.0.0.1/", b"{}", {})
    await client.close()

    assert heard == Heard(None, "the address of a webhook must be a public one")


async def test_a_redirect_is_not_followed_and_a_body_not_read() -> None:
    endless = b"HTTP/1.1 302 X\r\nLocation: /there\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello"
    async with receiver((endless, Act.HANG)) as (client, server, url):
        heard = await client.post(url, b"{}", {})
        async with asyncio.timeout(5):
            await server.left.wait()

    assert heard == Heard(302, "answered 302")
    assert len(server.heard) == 1


async def test_cookies_are_not_kept() -> None:
    async with receiver((reply(200, set_cookie="a=b"),)) as (client, server, url):
        await client.post(url, b"{}", {})
        await client.post(url, b"{}", {})

    assert server.heard[1].header("cookie") is None


async def test_a_receiver_says_for_how_long_it_wants_to_be_left_alone() -> None:
    async with receiver((reply(429, retry_after="120"),)) as (client, _, url):
        assert await client.post(url, b"{}", {}) == Heard(429, "answered 429", 120)


@pytest.mark.parametrize(
    ("script", "seconds", "said"),
    [
        ((Act.HANG,), 0.2, "silent for 0.2 s"),
        ((Act.RESET,), 10, "broke off without an answer"),
        ((b"what?\r\n\r\n",), 10, "broke off without an answer"),
    ],
)
async def test_what_goes_wrong_is_said_in_our_own_words(
    script: Script, seconds: float, said: str
) -> None:
    async with receiver(script, seconds=seconds) as (client, _, url):
        assert await client.post(url, b"{}", {}) == Heard(None, said)


async def test_every_address_of_a_name_is_tried() -> None:
    async with receiver((reply(200),), names=Names(*SEVERAL)) as (client, _, url):
        assert (await client.post(url, b"{}", {})).status == 200


async def test_nobody_is_there() -> None:
    client = WebhookClient(AT_HOME, clock=lambda: 0.0)

    heard = await client.post(f"http://127.0.0.1:{free_port()}/", b"{}", {})
    unknown = await client.post("http://nobody.invalid/", b"{}", {})
    await client.close()

    assert heard == Heard(None, "cannot be reached")
    assert unknown == Heard(None, "its name cannot be resolved")


@pytest.mark.parametrize(
    ("issued_for", "heard"),
    [
        ("hooks.example", Heard(200, "answered 200")),
        ("other.example", Heard(None, "its certificate is not trusted")),
    ],
)
async def test_the_certificate_must_be_made_for_the_name(
    issued_for: str, heard: Heard, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    tls = server_side(authority.issue("server", host=issued_for))
    trusting = create_default_context(cafile=authority.file)
    async with raw_server((reply(200),), tls=tls) as server:
        client = WebhookClient(
            AT_HOME, clock=lambda: 0.0, resolve=Names("127.0.0.1"), verify=trusting
        )
        port = server.url.rpartition(":")[2]
        assert await client.post(f"https://hooks.example:{port}/", b"{}", {}) == heard
        await client.close()
