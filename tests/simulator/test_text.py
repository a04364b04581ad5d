from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.simulator.text import Answer, Message, answer, count_prompt, tokens_of


def asked(question: str, **options: Any) -> Answer:
    messages = [Message("user", question)]
    seeded: dict[str, Any] = {"seed": 0, **options}
    return answer("sim-chat", messages, **seeded)


@given(st.text())
def test_tokens_joined_are_the_text_again(text: str) -> None:
    assert "".join(tokens_of(text)) == text


def test_a_token_is_a_word_with_its_space_or_one_mark() -> None:
    assert tokens_of("Hi, old  friend!") == ["Hi", ",", " old", "  friend", "!"]


def test_an_answer_says_that_it_is_simulated_and_what_was_asked() -> None:
    messages = [Message("system", "Be brief."), Message("user", "word " * 30)]

    said = answer("sim-chat", messages, seed=0)

    assert said.text.startswith('[simulated] You asked "word word')
    assert '…" in 2 messages with a system prompt.' in said.text
    assert said.text.endswith(".")
    assert 40 <= len(said.tokens) <= 120


def test_the_answer_depends_on_model_messages_and_seed_alone() -> None:
    messages = [Message("user", "hello")]

    assert asked("hello") == asked("hello")
    assert asked("hello") != asked("hello", seed=1)
    assert asked("hello") != answer("sim-vision", messages, seed=0)


def test_three_prompts_have_a_fixed_meaning() -> None:
    assert asked("repeat: X, and\nno more").text == "X, and\nno more"
    assert asked("Count to 4").tokens == ("1", " 2", " 3", " 4")
    assert len(asked("tokens 1234").tokens) == 1234
    assert asked("tokens 1234").text.startswith("[simulated]")
    assert asked("count to 0").tokens == ()


def test_a_limit_ends_it_with_length() -> None:
    assert asked("count to 9", max_tokens=3) == Answer(("1", " 2", " 3"), "length")
    assert asked("count to 3", max_tokens=3).finish_reason == "stop"


def test_a_stop_text_ends_it_and_is_not_said() -> None:
    said = asked("count to 9", stop=["", "7", "5"])

    assert (said.text, said.finish_reason) == ("1 2 3 4 ", "stop")


def test_pictures_are_told_one_by_one() -> None:
    assert asked("what?", seen=["A fox."]).text == "[simulated] A fox."
    both = asked("what?", seen=["A fox.", "An owl."]).text
    assert both == "[simulated] Picture 1: A fox. Picture 2: An owl."


@pytest.mark.parametrize("text", ["", "three little words"])
def test_prompts_are_counted_like_answers(text: str) -> None:
    assert count_prompt([Message("user", text)]) == len(text.split())


def test_thought_is_kept_apart() -> None:
    said = asked("repeat: yes", think=True)

    assert "".join(said.reasoning).startswith("[simulated]")
    assert said.text == "yes"
