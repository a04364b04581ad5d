from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.models.blobs import Blob
from src.models.results import (
    Audio,
    Chunk,
    Finish,
    Heard,
    Image,
    Rank,
    Result,
    Segment,
    TextDelta,
    Vector,
    Video,
    blobs_in,
    collect,
)

PICTURE = Image(b"\x89PNG", "image/png", 8, 8, seed=7)
SONG = Audio(Blob("song", 900_000), "audio/wav", 5.1)
FILM = Video(Blob("film", 7_000_000), "video/mp4")
VECTOR = Vector(array("d", [0.5, -0.25, 1.0]))
HEARD = Heard("en", 3.5, (Segment(0, 1.5, "Good"), Segment(1.5, 3.5, "morning", "ann")))


def test_a_result_is_all_its_pieces() -> None:
    finish = Finish("length", prompt_tokens=3, completion_tokens=2)

    result = collect([TextDelta("Hel", "hm"), PICTURE, TextDelta("lo"), finish])

    assert result == Result(text="Hello", reasoning="hm", images=(PICTURE,), finish=finish)


def test_every_kind_of_piece_has_its_place_in_the_order_it_came() -> None:
    small = Image(Blob("small", 70_000), "image/png", 4, 4)
    other = Vector(array("d", [1.0]))
    finish = Finish(simulated=True)

    result = collect(
        [PICTURE, SONG, VECTOR, Rank(1, 0.9), FILM, small, Rank(0, 0.1), HEARD, other, finish]
    )

    assert result == Result(
        images=(PICTURE, small),
        audio=(SONG,),
        videos=(FILM,),
        vectors=(VECTOR, other),
        ranking=(Rank(1, 0.9), Rank(0, 0.1)),
        heard=HEARD,
        finish=finish,
    )
    assert list(result.media) == [PICTURE, small, SONG, FILM]


def test_what_was_found_out_last_about_a_recording_is_kept() -> None:
    assert collect([Heard("de"), HEARD]).heard == HEARD


def test_the_blobs_of_pieces_are_found_whatever_they_hold() -> None:
    pieces: list[Chunk] = [
        TextDelta("blob:5:k"),
        PICTURE,
        SONG,
        VECTOR,
        Rank(0, 1.0),
        HEARD,
        FILM,
        Finish(),
    ]

    assert list(blobs_in(pieces)) == [Blob("song", 900_000), Blob("film", 7_000_000)]
    assert list(blobs_in(collect(pieces).media)) == list(blobs_in(pieces))


def test_no_pieces_make_an_empty_result() -> None:
    assert collect([]) == Result()


def test_the_size_counts_text_thinking_and_pictures() -> None:
    assert Result(text="abc", reasoning="d", images=(PICTURE, PICTURE)).size_bytes == 8 + 8
    assert Result().size_bytes == 0


@pytest.mark.parametrize(
    ("result", "size"),
    [
        (Result(audio=(SONG,)), 900_000),
        (Result(videos=(FILM,)), 7_000_000),
        (Result(images=(PICTURE,), audio=(SONG,), videos=(FILM,)), 4 + 900_000 + 7_000_000),
        (Result(vectors=(VECTOR, VECTOR)), 2 * 3 * 8),
    ],
)
def test_the_size_counts_media_wherever_they_are_kept_and_numbers(
    result: Result, size: int
) -> None:
    assert result.size_bytes == size


def test_a_longer_ranking_or_transcript_takes_more_room() -> None:
    one, two = (Result(ranking=(Rank(0, 0.5),) * count).size_bytes for count in (1, 2))
    silent = Result(heard=Heard("en", 3.5)).size_bytes
    said = Result(heard=HEARD).size_bytes

    assert 0 < one < two
    assert said - silent >= 2 * len("Good" + "morning")


@given(st.lists(st.builds(TextDelta, st.text(), st.text())), st.data())
def test_how_a_text_was_cut_does_not_matter(deltas: list[TextDelta], data: st.DataObject) -> None:
    whole: list[Chunk] = [
        TextDelta("".join(d.text for d in deltas), "".join(d.reasoning for d in deltas))
    ]
    at = data.draw(st.integers(0, len(deltas)))
    pieces: list[Chunk] = [*deltas[:at], PICTURE, *deltas[at:], Finish()]

    assert collect(pieces) == collect([*whole, PICTURE, Finish()])
