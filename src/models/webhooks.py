"""Webhooks: what is told of a job's end, how it is signed, to whom it may go, and how often.

The signature is that of Standard Webhooks 1.0.
"""

import base64
import binascii
import hmac
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import NamedTuple
from urllib.parse import urlsplit

from .errors import InvalidInput
from .jobs import Job

WAITS = (5.0, 300.0, 1800.0, 7200.0)
"""Seconds between one try and the next; after the last one a delivery is given up."""

LONGEST_URL = 2048
_LONGEST_NAME = 253
_LONGEST_WAIT = 7200.0
_PREFIX = "whsec_"
_KEY_BYTES = range(24, 65)
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_URL = re.compile(r"[!-~]+")
_UNICAST = IPv6Network("2000::/3")
_TUNNELS = (IPv6Network("2002::/16"), IPv6Network("2001::/32"))
_NAT64 = IPv6Network("64:ff9b::/96")


class Target(NamedTuple):
    """Where a webhook goes: an address, taken apart. `host` is a name or a bare IP address."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """What the header `Host` says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _port(self.scheme) else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookRules:
    """Which webhooks may be asked for.

    Attributes:
        keys: what they are signed with, all of them; without any there are no webhooks.
        allow_http: whether they may go over connections that are not encrypted.
        allow_private: whether they may go to addresses that are not public.

    """

    keys: Sequence[bytes] = ()
    allow_http: bool = False
    allow_private: bool = False

    def check(self, url: str) -> Target:
        """Take an address apart. What its name stands for is seen when something is sent.

        Raises:
            InvalidInput: nothing may be sent there, or nothing could be.

        """
        if not self.keys:
            raise InvalidInput(
                "this server sends no webhooks",
                param="webhook",
                hint="leave the field out and ask for the job; `webhook_secrets` switches them on",
            )
        target = _taken_apart(url)
        if target.scheme == "http" and not self.allow_http:
            raise _refused("must begin with https://")
        if not self.allow_private and _is_local(target.host):
            raise _refused("must be a public one")
        return target

    def reaches(self, address: str) -> bool:
        """Whether something may be sent to an IP address."""
        return self.allow_private or is_public(address)


def read_secret(text: str) -> bytes:
    """Return the key of a secret as Standard Webhooks writes it: `whsec_` and base64.

    Raises:
        ValueError: it is written otherwise, or too short; the message does not quote it.

    """
    if not text.startswith(_PREFIX):
        raise ValueError(f"a secret of webhooks must begin with {_PREFIX}")
    try:
        key = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"behind {_PREFIX} a secret of webhooks must be base64") from None
    if len(key) not in _KEY_BYTES:
        raise ValueError("a secret of webhooks must stand for 24 to 64 bytes")
    return key


def signed(keys: Sequence[bytes], delivery_id: str, at: int, body: bytes) -> dict[str, str]:
    """Return the headers of a delivery.

    Args:
        keys: one signature is made with each.
        delivery_id: the same each time that this delivery is tried.
        at: seconds since 1970, of this try.
        body: what is sent, to the byte.

    """
    told = f"{delivery_id}.{at}.".encode() + body
    signatures = [base64.b64encode(hmac.digest(key, told, "sha256")).decode() for key in keys]
    return {
        "webhook-id": delivery_id,
        "webhook-timestamp": str(at),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


def delivery_id(job: Job) -> str:
    """Name what is told of the end of a job."""
    return f"{job.id}:{job.version}"


def host_of(url: str) -> str:
    """Name the host of an address; empty if it has none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def told_of(job: Job, ended: str, base_url: str) -> bytes:
    """Write what is told of the end of a job: which one it is and how it ended, no more.

    Args:
        job: it has ended.
        ended: when, as RFC 3339 writes it.
        base_url: what links begin with; empty: they are paths on this server.

    """
    promise = job.promise
    message = {
        "type": f"job.{job.state}",
        "timestamp": ended,
        "data": {
            "job_id": job.id,
            "modality": job.modality,
            "state": job.state,
            "retry_of": (promise and promise.retry_of) or None,
            "batch": (promise and promise.batch) or None,
            "links": {"job": f"{base_url}/jobs/{job.id}"},
        },
    }
    return json.dumps(message, separators=(",", ":")).encode()


def next_try(tries: int, *, chance: float, asked: float | None = None) -> float | None:
    """Return how many seconds to wait after a try that failed; None: it was the last one.

    Args:
        tries: how many there have been.
        chance: a random number from 0 to 1, which spreads the tries of many.
        asked: for how long the receiver wants to be left alone, if it said so.

    """
    if tries > len(WAITS):
        return None
    wait = WAITS[tries - 1] * (0.8 + 0.4 * chance)
    return wait if asked is None else max(wait, min(asked, _LONGEST_WAIT))


def is_public(address: str) -> bool:
    """Whether an IP address is one of the internet's, and of one machine there.

    An IPv6 address that stands for an IPv4 one is as public as that; tunnels are not.
    """
    try:
        ip = ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, IPv6Address):
        if ip in _NAT64:
            ip = IPv4Address(int(ip) & 0xFFFFFFFF)
        elif ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        elif ip not in _UNICAST or any(ip in tunnel for tunnel in _TUNNELS):
            return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)


def _taken_apart(url: str) -> Target:
    if len(url) > LONGEST_URL:
        raise _refused(f"must have at most {LONGEST_URL:,} characters")
    if _URL.fullmatch(url) is None or "\\" in url:
        raise _refused(
            "must be visible ASCII characters without a backslash",
            hint="write a name in its ASCII form (xn--...), and other characters as %..",
        )
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").removesuffix("."), parts.port
    except ValueError:
        raise _refused("must look like https://host/path") from None
    if parts.scheme not in ("http", "https") or not host:
        raise _refused("must look like https://host/path")
    if "@" in parts.netloc or "#" in url:
        raise _refused("must not hold a user, a password or a fragment")
    if port == 0 or not (_is_ip(host) or _is_name(host)):
        raise _refused("must name a host, and a port from 1 to 65535 if any")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(parts.scheme, host, port or _port(parts.scheme), path)


def _is_local(host: str) -> bool:
    """Whether a host is plainly not on the internet, without asking anybody what it stands for."""
    if _is_ip(host):
        return not is_public(host)
    return "." not in host or host.endswith((".localhost", ".local", ".internal"))


def _is_name(host: str) -> bool:
    """Whether a host is a name, rather than an IP address in one of its odd old forms."""
    labels = host.split(".")
    named = all(_LABEL.fullmatch(label) for label in labels) and not labels[-1][0].isdigit()
    return named and len(host) <= _LONGEST_NAME


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _port(scheme: str) -> int:
    return 443 if scheme == "https" else 80


def _refused(message: str, *, hint: str = "") -> InvalidInput:
    return InvalidInput(f"the address of a webhook {message}", param="webhook", hint=hint)
