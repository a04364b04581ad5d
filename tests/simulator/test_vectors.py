import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from src.simulator.vectors import likeness, vector


@given(st.text())
@example("µ")  # its two features cancel each other out
def test_every_text_has_64_numbers_of_unit_length(text: str) -> None:
    made = vector(text)

    assert len(made) == 64
    assert math.hypot(*made) == pytest.approx(1)


def test_case_makes_no_difference_but_words_do() -> None:
    assert vector("A Red Fox") == vector("a red fox")
    assert vector("a red fox") != vector("a blue whale")
    assert vector("!") != vector("?")


def test_texts_that_share_words_are_nearer() -> None:
    fox = vector("a red fox in the snow")

    near, far = vector("the red fox sleeps"), vector("quarterly tax report")

    assert likeness(fox, near) > likeness(fox, far) + 0.2
    assert likeness(fox, fox) == pytest.approx(1)
