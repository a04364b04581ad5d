"""Addresses of media that work without a key, for a while: whoever has one may fetch that medium.

They are signed with a secret of this process, so they end with it, as the media do.
"""

import hmac
import re
import secrets
from urllib.parse import parse_qs

from ..models.errors import AddressExpired, WrongSignature

_SECRET = secrets.token_bytes(32)
_MEDIUM = re.compile(r"/(?:images|audio|videos)/[^/]+/[^/]+")
_MAX_FIELDS = 20


def sign(path: str, until: int) -> str:
    """Return the query that makes a medium's path good for anybody until then.

    Args:
        path: such as `/images/{job_id}/{index}`, as a request has it.
        until: seconds since 1970.

    """
    return f"until={until}&signature={_signature(path, str(until))}"


def check(path: str, query: bytes, now: float) -> bool:
    """Say whether a medium is asked for by a signed address.

    Raises:
        WrongSignature: the signature is not ours, or not for this path and time.
        AddressExpired: it was good until some time before `now`, in seconds since 1970.

    """
    if b"signature=" not in query or _MEDIUM.fullmatch(path) is None:
        return False
    match _fields(query):
        case {"until": [until], "signature": [signature]}:
            good = hmac.compare_digest(signature.encode(), _signature(path, until).encode())
        case _:
            good, until = False, ""
    if not good:
        raise WrongSignature(
            "this address was not signed by the server that runs now, or was changed",
            hint="take it over as it was given, or ask for the job again to get a new one",
        )
    if now >= int(until):
        raise AddressExpired(
            "the time of this address is over", hint="ask for the job again to get a new one"
        )
    return True


def _signature(path: str, until: str) -> str:
    return hmac.digest(_SECRET, f"{path}?{until}".encode(), "sha256").hex()


def _fields(query: bytes) -> dict[str, list[str]]:
    try:
        return parse_qs(query.decode("ascii"), True, max_num_fields=_MAX_FIELDS)
    except ValueError:
        return {}
