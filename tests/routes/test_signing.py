"""Addresses of media that work without a key, for a while."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.models.errors import AddressExpired, WrongSignature
from src.routes.signing import check, sign
from src.routes.tools import KINDS

NOW = 1_000
PATH = "/images/j/0"


@pytest.mark.parametrize("kind", KINDS)
def test_a_signed_address_is_good_until_its_time_is_over(kind: str) -> None:
    path = f"/{kind}/j/0"
    query = sign(path, NOW).encode()

    assert check(path, query, NOW - 0.1)
    with pytest.raises(AddressExpired):
        check(path, query, NOW)


@given(st.integers(0, 10_000), st.data())
def test_whoever_changes_anything_is_refused(until: int, data: st.DataObject) -> None:
    address = f"{PATH}?{sign(PATH, until)}"
    at = data.draw(st.integers(address.index("j"), len(address) - 1))
    other = data.draw(st.sampled_from("0123456789abcdefgj&=").filter(lambda c: c != address[at]))
    path, _, query = f"{address[:at]}{other}{address[at + 1 :]}".partition("?")

    if re.fullmatch(PATH.replace("j/0", ".+/.+"), path) and "signature=" in query:
        with pytest.raises(WrongSignature):
            check(path, query.encode(), 0)
    else:
        assert not check(path, query.encode(), 0)


@pytest.mark.parametrize(
    "query",
    [
        b"signature=",
        b"until=2000&signature=%E2%82%AC",
        b"until=2000&until=2000&signature=0",
        b"signature=0" + b"&x=1" * 50,
        b"until=2000&signature=\xff",
    ],
)
def test_what_is_no_signature_at_all_is_refused_likewise(query: bytes) -> None:
    with pytest.raises(WrongSignature):
        check(PATH, query, NOW)


@pytest.mark.parametrize(
    ("path", "query"), [(PATH, b""), (PATH, b"until=2000"), ("/mcp/get_job", b"signature=0")]
)
def test_other_requests_are_not_judged(path: str, query: bytes) -> None:
    assert not check(path, query, NOW)
