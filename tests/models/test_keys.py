"""Names and keys of callers, as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.models.keys import check_keys, read_keys

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)
keys = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=512)


@given(st.dictionaries(names, keys).filter(lambda given: len({*given.values()}) == len(given)))
def test_what_is_written_is_read(callers: dict[str, str]) -> None:
    callers.pop("anonymous", None)

    assert read_keys(f" {name} = {key} " for name, key in callers.items()) == callers


def test_empty_lines_and_comments_say_nothing() -> None:
    assert read_keys(["", "  # our programs", "ann=a=b", ""]) == {"ann": "a=b"}


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["ann=sesame", "canary-key"], "entry 2 must look like name=key"),
        (["ann=canary-key", "ann=barley"], "ann is given twice"),
        (["canary key=1", "canary key=2"], "a name is given twice"),
        (["ann=sesame", "two words=canary-key"], "name 2 must be letters"),
        (["anonymous=canary-key"], "and not anonymous"),
        (["=canary-key"], "name 1 must be letters"),
        (["ann="], "the key of ann must be 1 to 512"),
        (["ann=two canary-key"], "the key of ann must be 1 to 512 visible ASCII"),
        (["ann=canary-key", "bob=canary-key"], "two names have the same key"),
    ],
)
def test_what_cannot_be_is_refused_without_quoting_it(lines: list[str], says: str) -> None:
    with pytest.raises(ValueError, match=says) as refused:
        read_keys(lines)

    assert "canary" not in str(refused.value)


def test_keys_that_were_read_otherwise_are_checked_likewise() -> None:
    check_keys({"ann": "sesame", "bob": "barley"})

    with pytest.raises(ValueError, match="the key of bob"):
        check_keys({"ann": "sesame", "bob": "ключ"})
