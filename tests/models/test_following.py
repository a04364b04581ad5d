"""Going on exactly where one broke off."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.models.errors import InvalidInput
from src.models.following import SLICE, Bookmark, Delta, Script
from src.models.results import ChoiceEnd, Chunk, Finish, TextDelta, collect, pieces_of

TEXTS = st.text(max_size=8)
PIECES = st.lists(
    st.builds(TextDelta, text=TEXTS, reasoning=TEXTS, choice=st.integers(0, 2)), max_size=12
)


def heard(deltas: list[Delta]) -> dict[tuple[int, bool], str]:
    """What somebody has read of each answer."""
    texts: dict[tuple[int, bool], str] = {}
    for delta in deltas:
        place = delta.choice, delta.reasoning
        texts[place] = texts.get(place, "") + delta.text
    return texts


def whole(pieces: list[TextDelta]) -> dict[tuple[int, bool], str]:
    return heard(
        [Delta(p.reasoning, p.choice, True) for p in pieces if p.reasoning]
        + [Delta(p.text, p.choice, False) for p in pieces if p.text]
    )


@given(
    marks=st.builds(
        Bookmark,
        st.integers(0, 999_999_999),
        st.integers(0, 999),
        st.lists(st.integers(1, 10**9), max_size=20),
    )
)
def test_a_bookmark_is_read_as_it_was_written(marks: Bookmark) -> None:
    assert Bookmark.read(str(marks)) == marks


@pytest.mark.parametrize(
    "word", ["", "1", "1.2", "1.2.x", "1.2.-3", "1.2.3-", "1.2.3.4", "\u0661.1.1"]
)
def test_anything_else_is_refused(word: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Bookmark.read(word)

    assert caught.value.param == "Last-Event-ID"


@given(pieces=PIECES, data=st.data())
def test_whoever_breaks_off_anywhere_hears_everything_once(
    pieces: list[TextDelta], data: st.DataObject
) -> None:
    came = data.draw(st.integers(0, len(pieces)))
    first = Script(Bookmark(fence=1))
    told: list[Delta] = []
    words = [str(first.bookmark)]
    for piece in pieces[:came]:
        for delta in first.news([piece]):
            told.append(delta)
            words.append(str(first.bookmark))
    got = data.draw(st.integers(0, len(told)))

    again = Script(Bookmark.read(words[got]))
    assert not again.turn_to(1)

    assert heard([*told[:got], *again.news(pieces)]) == whole(pieces)


@given(pieces=PIECES, data=st.data())
def test_the_result_goes_on_where_the_pieces_broke_off(
    pieces: list[TextDelta], data: st.DataObject
) -> None:
    chunks: list[Chunk] = [*(ChoiceEnd("stop", n) for n in range(3)), *pieces, Finish()]
    result = collect(chunks)
    first = Script(Bookmark(fence=1))
    told = list(first.news(pieces[: data.draw(st.integers(0, len(pieces)))]))

    again = Script(Bookmark.read(str(first.bookmark)))
    assert heard([*told, *again.news(pieces_of(result))]) == {
        place: text
        for number, choice in enumerate(result.choices)
        for place, text in (((number, True), choice.reasoning), ((number, False), choice.text))
        if text
    }


def test_another_attempt_begins_anew_and_says_so_if_anything_was_told() -> None:
    script = Script(Bookmark(steps=2))

    assert not script.turn_to(1)
    assert [d.text for d in script.news([TextDelta("once"), TextDelta(" upon")])] == ["once upon"]
    assert str(script.bookmark) == "2.1.9"
    assert script.turn_to(2)
    assert [d.text for d in script.news([TextDelta("twice")])] == ["twice"]
    assert str(script.bookmark) == "2.2.5"
    assert not Script(Bookmark(steps=2, fence=1)).turn_to(3)


def test_a_long_text_is_told_in_slices() -> None:
    script = Script(Bookmark())

    told = list(script.news([TextDelta("x" * (2 * SLICE + 1))]))

    assert [len(delta.text) for delta in told] == [SLICE, SLICE, 1]
    assert not list(script.news([Finish()]))
