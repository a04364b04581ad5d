from hypothesis import given
from hypothesis import strategies as st

from src.simulator.subtitles import Segment, lrc, spread, srt, txt, vtt

SEGMENTS = [Segment(0.0, 1.5, "One."), Segment(1.5, 3661.25, "Two.")]


def test_each_format_is_written_as_players_read_it() -> None:
    assert txt(SEGMENTS) == "One.\nTwo.\n"
    assert srt(SEGMENTS) == (
        "1\n00:00:00,000 --> 00:00:01,500\nOne.\n\n2\n00:00:01,500 --> 01:01:01,250\nTwo.\n\n"
    )
    assert vtt(SEGMENTS) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nOne.\n\n00:00:01.500 --> 01:01:01.250\nTwo.\n\n"
    )
    assert lrc(SEGMENTS) == "[00:00.00] One.\n[00:01.50] Two.\n"


@given(st.lists(st.text(min_size=1)), st.floats(0, 1000))
def test_sentences_follow_one_another_without_a_gap(sentences: list[str], seconds: float) -> None:
    segments = spread(sentences, seconds)

    assert [segment.text for segment in segments] == sentences
    ends = [0.0, *(segment.end for segment in segments)]
    assert [segment.start for segment in segments] == ends[:-1]
    assert ends == sorted(ends)
    assert not segments or segments[-1].end == round(seconds, 3)
