from hypothesis import given
from hypothesis import strategies as st

from src.models.results import Chunk, Finish, Image, Result, TextDelta, collect

PICTURE = Image(b"\x89PNG", "image/png", 8, 8, seed=7)


def test_a_result_is_all_its_pieces() -> None:
    finish = Finish("length", prompt_tokens=3, completion_tokens=2)

    result = collect([TextDelta("Hel", "hm"), PICTURE, TextDelta("lo"), finish])

    assert result == Result(text="Hello", reasoning="hm", images=(PICTURE,), finish=finish)


def test_no_pieces_make_an_empty_result() -> None:
    assert collect([]) == Result()


def test_the_size_counts_text_thinking_and_pictures() -> None:
    assert Result(text="abc", reasoning="d", images=(PICTURE, PICTURE)).size_bytes == 8 + 8
    assert Result().size_bytes == 0


@given(st.lists(st.builds(TextDelta, st.text(), st.text())), st.data())
def test_how_a_text_was_cut_does_not_matter(deltas: list[TextDelta], data: st.DataObject) -> None:
    whole: list[Chunk] = [
        TextDelta("".join(d.text for d in deltas), "".join(d.reasoning for d in deltas))
    ]
    at = data.draw(st.integers(0, len(deltas)))
    pieces: list[Chunk] = [*deltas[:at], PICTURE, *deltas[at:], Finish()]

    assert collect(pieces) == collect([*whole, PICTURE, Finish()])
