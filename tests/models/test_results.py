from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.models.blobs import Blob
from src.models.results import (
    Audio,
    Call,
    Choice,
    ChoiceEnd,
    Chunk,
    Finish,
    Heard,
    Image,
    Logprobs,
    Rank,
    Result,
    Segment,
    TextDelta,
    Vector,
    Verdict,
    Video,
    blobs_in,
    chat_id,
    collect,
    pieces_of,
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


def test_pieces_of_a_call_become_one_call_and_the_calls_are_in_their_order() -> None:
    weather, time = Call(0, "a", "get_weather"), Call(1, "b", "get_", '{"zone')
    pieces = [
        TextDelta("", calls=(time, weather)),
        TextDelta("", calls=(Call(0, "", "", '{"city": '),)),
        TextDelta("", calls=(Call(0, "later", "", '"Oslo"}'), Call(1, "", "time", '": 1}'))),
    ]

    assert collect(pieces).calls == (
        Call(0, "a", "get_weather", '{"city": "Oslo"}'),
        Call(1, "b", "get_time", '{"zone": 1}'),
    )


def test_several_answers_are_told_apart_whatever_the_order_of_their_pieces() -> None:
    result = collect(
        [
            TextDelta("c", choice=2),
            TextDelta("a"),
            TextDelta("", "hm", choice=2, calls=(Call(0, "i", "f", "{}"),)),
            Logprobs(({"token": "c"},), choice=2),
            ChoiceEnd("tool_calls", 2),
            TextDelta("b", choice=1),
            ChoiceEnd("length", 1),
            TextDelta("a"),
            Logprobs(({"token": "a"}, {"token": "a"})),
            ChoiceEnd("stop"),
            Finish("stop", 5, 6),
        ]
    )

    assert result == Result(
        text="aa",
        logprobs=({"token": "a"}, {"token": "a"}),
        others=(
            Choice("b", reason="length"),
            Choice("c", "hm", (Call(0, "i", "f", "{}"),), ({"token": "c"},), "tool_calls"),
        ),
        finish=Finish("stop", 5, 6),
    )
    assert [choice.text for choice in result.choices] == ["aa", "b", "c"]


def test_a_single_answer_ends_as_its_job_does() -> None:
    assert collect([TextDelta("a"), Finish("length")]).choices == (Choice("a", reason="length"),)


def test_a_verdict_is_kept_and_takes_room() -> None:
    verdict = Verdict(({"flagged": True}, {"flagged": False}))

    result = collect([verdict, Finish()])

    assert result == Result(verdict=verdict)
    assert result.size_bytes > Result(verdict=Verdict(({},))).size_bytes > 0


def test_every_answer_and_what_is_in_it_takes_room() -> None:
    calls, likely = (Call(0, "i", "name", "x" * 500),), ("token",) * 10
    sizes = [
        Result().size_bytes,
        Result(calls=calls).size_bytes,
        Result(calls=calls, logprobs=likely).size_bytes,
        Result(calls=calls, logprobs=likely, others=(Choice("y" * 900),)).size_bytes,
    ]

    assert sizes[0] == 0
    assert sizes[1] >= 504
    assert sizes[2] - sizes[1] >= 1000
    assert sizes[3] - sizes[2] >= 900


def test_a_piece_takes_about_as_much_as_is_sent_of_it() -> None:
    assert TextDelta("x" * 500, "y" * 100).size > 600
    assert TextDelta("x", event="z" * 321).size == 321
    assert TextDelta("").size > 0


def test_the_id_of_a_chat_tells_its_job() -> None:
    assert chat_id("j1") == "chatcmpl-j1"


def test_the_blobs_of_pieces_are_found_whatever_they_hold() -> None:
    pieces: list[Chunk] = [
        TextDelta("blob:5:k"),
        PICTURE,
        SONG,
        VECTOR,
        Rank(0, 1.0),
        HEARD,
        FILM,
        Logprobs(()),
        ChoiceEnd("stop"),
        Verdict(({"blob:5:k": "blob:5:k"},)),
        Finish(),
    ]

    assert list(blobs_in(pieces)) == [Blob("song", 900_000), Blob("film", 7_000_000)]
    assert list(blobs_in(collect(pieces).media)) == list(blobs_in(pieces))


RESULTS = st.builds(
    Result,
    text=st.text(),
    reasoning=st.text(),
    calls=st.sampled_from([(), (Call(0, "i", "f", "{}"), Call(1, "j", "g"))]),
    logprobs=st.sampled_from([(), ({"token": "a"},)]),
    others=st.lists(st.builds(Choice, st.text(), st.text(), reason=st.text())).map(tuple),
    verdict=st.sampled_from([None, Verdict(({"flagged": True},))]),
    images=st.sampled_from([(), (PICTURE,)]),
    audio=st.sampled_from([(), (SONG, SONG)]),
    videos=st.sampled_from([(), (FILM,)]),
    vectors=st.sampled_from([(), (VECTOR,)]),
    ranking=st.sampled_from([(), (Rank(1, 0.9), Rank(0, 0.1))]),
    heard=st.sampled_from([None, HEARD]),
    finish=st.builds(Finish, st.text(), st.integers(0), st.integers(0), st.booleans()),
)


@given(RESULTS)
def test_a_result_that_was_taken_apart_can_be_put_together_again(result: Result) -> None:
    assert collect(pieces_of(result)) == result


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


@given(st.lists(st.tuples(st.text(), st.text()).map(lambda said: TextDelta(*said))), st.data())
def test_how_a_text_was_cut_does_not_matter(deltas: list[TextDelta], data: st.DataObject) -> None:
    whole: list[Chunk] = [
        TextDelta("".join(d.text for d in deltas), "".join(d.reasoning for d in deltas))
    ]
    at = data.draw(st.integers(0, len(deltas)))
    pieces: list[Chunk] = [*deltas[:at], PICTURE, *deltas[at:], Finish()]

    assert collect(pieces) == collect([*whole, PICTURE, Finish()])
