import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.models.blobs import Blob, size_of

keys = st.text(string.ascii_letters + string.digits + "_-", min_size=1, max_size=128)


@given(keys, st.integers(0, 10**15 - 1))
def test_a_reference_stands_for_its_blob(key: str, size: int) -> None:
    blob = Blob(key, size)

    assert Blob.referred_to(blob.reference) == blob


@given(st.text() | st.from_regex(r"blob:.{0,4}:.{0,4}"))
def test_only_what_a_reference_looks_like_stands_for_a_blob(text: str) -> None:
    blob = Blob.referred_to(text)

    assert blob is None or Blob.referred_to(blob.reference) == blob


@pytest.mark.parametrize(
    "text",
    [
        *("", "blob", "blob:", "blob:5", "blob:5:", "blob::k", "blob:-5:k", "blob:5:k:k"),
        *("Blob:5:k", " blob:5:k", "blob:5:k ", "blob:5:k\n", "data:image/png;base64,blob:5:k"),
        *("blob:5:../etc/passwd", "blob:5:a/b", "blob:5:a.b", "blob:5:a\x00"),
        *("blob:\u0665:k", "blob:5:\u00e9", f"blob:{10**15}:k", "blob:5:" + "k" * 129),
        "blob:5:" + "k" * 10_000_000,
    ],
    ids=lambda text: repr(text)[:20],
)
def test_other_texts_stand_for_nothing(text: str) -> None:
    assert Blob.referred_to(text) is None


def test_the_size_of_content_is_known_wherever_it_is_kept() -> None:
    assert size_of(b"12345") == 5
    assert size_of(Blob("k", 10_000_000)) == 10_000_000
