import base64
import json
import time
from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from src.models.errors import BackendFailed, InvalidInput
from src.models.jobs import Promise
from src.models.results import Result
from src.models.webhooks import (
    LONGEST_URL,
    WAITS,
    WebhookRules,
    delivery_id,
    host_of,
    is_public,
    next_try,
    read_secret,
    signed,
    told_of,
)

from .making import NOW, job

KEY = bytes(range(32))
RULES = WebhookRules(keys=[KEY])
LAX = WebhookRules(keys=[KEY], allow_http=True, allow_private=True)


def secret_of(key: bytes) -> str:
    return f"whsec_{base64.b64encode(key).decode()}"


# What is sent


def test_the_end_of_a_job_is_told_without_what_it_was_about() -> None:
    promise = Promise(webhook="https://example.org/", retry_of="job-0", batch="batch-1")
    ended = job(promise=promise).started("gpu", NOW).completed(Result(text="hi"), NOW + 1.5)

    told = json.loads(told_of(ended, "1970-01-01T00:16:41.500+00:00", "https://queue.example.org"))

    assert told == {
        "type": "job.completed",
        "timestamp": "1970-01-01T00:16:41.500+00:00",
        "data": {
            "job_id": "job-1",
            "modality": "txt2txt",
            "state": "completed",
            "retry_of": "job-0",
            "batch": "batch-1",
            "links": {"job": "https://queue.example.org/jobs/job-1"},
        },
    }
    assert delivery_id(ended) == f"job-1:{ended.version}"


def test_a_failure_is_told_with_links_on_this_server_if_nobody_knows_its_address() -> None:
    ended = job().failed(BackendFailed("no"), NOW)

    told = json.loads(told_of(ended, "1970-01-01T00:16:40.000+00:00", ""))

    assert told["type"] == "job.failed"
    assert told["data"]["links"] == {"job": "/jobs/job-1"}
    assert told["data"]["retry_of"] is told["data"]["batch"] is None


@given(st.binary(max_size=200), st.lists(st.binary(min_size=24, max_size=64), min_size=1))
def test_whoever_has_one_of_the_secrets_can_verify_what_comes(
    body: bytes, keys: list[bytes]
) -> None:
    text = json.dumps({"body": body.hex()}).encode()
    now = int(time.time())

    headers = signed(keys, "job-1:3", now, text)

    for key in keys:
        assert Webhook(secret_of(key)).verify(text, headers) == {"body": body.hex()}
    with pytest.raises(WebhookVerificationError):
        Webhook(secret_of(KEY)).verify(text + b" ", headers)


# Secrets


def test_a_secret_is_read() -> None:
    assert read_secret(secret_of(KEY)) == KEY


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a-secret-of-another-kind-0123456789", "must begin with whsec_"),
        ("whsec_AAAA*", "must be base64"),
        ("whsec_é", "must be base64"),
        (secret_of(bytes(23)), "24 to 64 bytes"),
        (secret_of(bytes(65)), "24 to 64 bytes"),
    ],
)
def test_what_is_no_secret_is_refused_without_being_quoted(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as refusal:
        read_secret(text)

    assert text.removeprefix("whsec_") not in str(refusal.value)


# Addresses


@pytest.mark.parametrize(
    ("url", "host", "port", "path", "authority"),
    [
        ("https://example.org", "example.org", 443, "/", "example.org"),
        ("https://Example.org:8443/a?b=c", "example.org", 8443, "/a?b=c", "example.org:8443"),
        ("https://93.184.215.14/hook", "93.184.215.14", 443, "/hook", "93.184.215.14"),
        ("https://[2606:2800::1]:1/", "2606:2800::1", 1, "/", "[2606:2800::1]:1"),
        ("HTTPS://xn--bcher-kva.example./x", "xn--bcher-kva.example", 443, "/x", None),
    ],
)
def test_an_address_is_taken_apart(
    url: str, host: str, port: int, path: str, authority: str | None
) -> None:
    target = RULES.check(url)

    assert target == ("https", host, port, path)
    assert target.authority == (authority or host)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://example.org/", "must begin with https://"),
        ("ftp://example.org/", "must look like"),
        ("https:///x", "must look like"),
        ("example.org", "must look like"),
        ("https://[::1/", "must look like"),
        ("https://example.org:99999/", "must look like"),
        ("https://example.org:0/", "must name a host, and a port"),
        ("https://exa mple.org/", "visible ASCII"),
        ("https://bücher.example/", "visible ASCII"),
        ("https://example.org\\@127.0.0.1/", "visible ASCII"),
        ("https://me:secret@example.org/", "a user, a password"),
        ("https://example.org/#there", "fragment"),
        ("https://example..org/", "must name a host"),
        ("https://exa*mple.org/", "must name a host"),
        (f"https://{'a.' * 127}org/", "must name a host"),
        (f"https://example.org/{'x' * LONGEST_URL}", "at most 2,048"),
        ("https://localhost/", "must be a public one"),
        ("https://printer/", "must be a public one"),
        ("https://nas.local/", "must be a public one"),
        ("https://metadata.google.internal./", "must be a public one"),
        ("https://10.0.0.1/", "must be a public one"),
        ("https://[::ffff:127.0.0.1]/", "must be a public one"),
        ("https://2130706433/", "must name a host"),
        ("https://0x7f.1/", "must name a host"),
        ("https://127.1/", "must name a host"),
    ],
)
def test_an_address_to_which_nothing_may_be_sent_is_refused(url: str, why: str) -> None:
    with pytest.raises(InvalidInput, match=why) as refusal:
        RULES.check(url)

    assert refusal.value.param == "webhook"
    assert "secret" not in refusal.value.message


def test_an_address_names_its_host() -> None:
    assert host_of("https://Example.org:8443/a") == "example.org"
    assert host_of("https://[::1/") == host_of("nowhere") == ""


def test_without_secrets_there_are_no_webhooks() -> None:
    with pytest.raises(InvalidInput, match="sends no webhooks") as refusal:
        WebhookRules().check("https://example.org/")

    assert "webhook_secrets" in refusal.value.hint


def test_addresses_at_home_may_be_allowed() -> None:
    assert LAX.check("http://localhost:5678/hook").authority == "localhost:5678"
    assert LAX.check("http://printer/").port == 80
    assert LAX.reaches("127.0.0.1")
    assert not RULES.reaches("127.0.0.1")


@given(st.text(max_size=40) | st.from_regex(r"https://[a-z0-9.:\[\]@/?#%-]{0,30}", fullmatch=True))
def test_an_address_is_taken_or_refused_and_never_more_than_it_says(url: str) -> None:
    try:
        target = RULES.check(url)
    except InvalidInput:
        return

    assert target.path.startswith("/")
    assert target.host in url.lower()
    assert 0 < target.port < 65_536


# Public addresses


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "93.184.215.14", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"],
)
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(address)


PRIVATE = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.2.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/4",
    "240.0.0.0/4",
]
PRIVATE_6 = [
    "::/128",
    "::1/128",
    "::/96",
    "100::/64",
    "2001::/32",
    "2001:db8::/32",
    "2002::/16",
    "64:ff9b:1::/48",
    "fc00::/7",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
]


@given(st.data())
@pytest.mark.parametrize("network", PRIVATE)
def test_private_addresses_are_not_public_in_whichever_form(
    network: str, data: st.DataObject
) -> None:
    first = int(ip_network(network)[0])
    last = int(ip_network(network)[-1])
    number = data.draw(st.integers(first, last))

    assert not is_public(str(IPv4Address(number)))
    assert not is_public(str(IPv6Address((0xFFFF << 32) + number)))
    assert not is_public(str(IPv6Address((0x64FF9B << 96) + number)))


@given(st.data())
@pytest.mark.parametrize("network", PRIVATE_6)
def test_private_ipv6_addresses_are_not_public(network: str, data: st.DataObject) -> None:
    there = ip_network(network)
    number = data.draw(st.integers(int(there[0]), int(there[-1])))

    assert not is_public(str(IPv6Address(number)))


def test_what_is_no_address_is_not_public() -> None:
    assert not is_public("example.org")
    assert not is_public("fe80::1%eth0")


# Tries


def test_there_are_five_tries_over_hours() -> None:
    waits = [next_try(tries, chance=0.5) for tries in range(1, 6)]

    assert waits == [*WAITS, None]
    assert 2 * 3600 < sum(WAITS) < 4 * 3600


@given(st.integers(1, len(WAITS)), st.floats(0, 1), st.none() | st.floats(0, 1e9))
def test_waits_are_spread_and_a_receiver_may_ask_for_longer_ones(
    tries: int, chance: float, asked: float | None
) -> None:
    wait = next_try(tries, chance=chance, asked=asked)

    usual = WAITS[tries - 1]
    assert wait is not None
    assert wait >= 0.8 * usual
    assert wait <= max(1.2001 * usual, min(asked or 0, 7200))
    assert wait >= min(asked or 0, 7200)
