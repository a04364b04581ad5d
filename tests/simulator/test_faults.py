from dataclasses import replace

import pytest
from pydantic import ValidationError

from src.simulator.faults import (
    AnyAction,
    Crash,
    Facts,
    FaultBook,
    FaultRule,
    LoadFailure,
    Loading,
    Match,
    Oom,
    Rejected,
    Status,
    When,
)

CHAT = Facts(
    path="/v1/chat/completions",
    headers={"x-test": "7"},
    model="sim-chat",
    modality="txt2txt",
    stream=True,
    prompt="tell me about foxes",
)


LOOK = Facts(path="/v1/models", headers={})


def book(*rules: FaultRule) -> FaultBook:
    made = FaultBook()
    for rule in rules:
        made.add(rule)
    return made


def acts(faults: FaultBook, times: int, seed: int = 0) -> list[bool]:
    return [faults.decide(CHAT, seed=seed) is not None for _ in range(times)]


def test_without_rules_nothing_goes_wrong() -> None:
    assert book().decide(CHAT, seed=0) is None


@pytest.mark.parametrize(
    ("match", "holds"),
    [
        (Match(), True),
        (Match(path="/v1/chat/completions", model="sim-chat", stream=True), True),
        (Match(modality="txt2img"), False),
        (Match(stream=False), False),
        (Match(work=True), True),
        (Match(work=False), False),
        (Match(prompt="about .*es$"), True),
        (Match(prompt="^foxes"), False),
        (Match(header={"X-Test": "7"}), True),
        (Match(header={"X-Test": "7", "X-Other": "1"}), False),
    ],
)
def test_every_condition_must_hold(match: Match, *, holds: bool) -> None:
    assert match.holds(CHAT) is holds


def test_the_first_rule_that_acts_decides() -> None:
    faults = book(
        FaultRule(match=Match(model="other"), do=Status()),
        FaultRule(do=Rejected(), when=When(times=1)),
        FaultRule(do=Status()),
    )

    decided = [faults.decide(CHAT, seed=0) for _ in range(2)]

    assert [fault and fault.rule for fault in decided] == ["a2", "a3"]
    assert [(it.matched, it.acted) for it in faults.rules] == [(0, 0), (2, 1), (1, 1)]


@pytest.mark.parametrize(
    ("action", "facts", "acts_on_it"),
    [
        (LoadFailure(), replace(CHAT, needs_load=True), True),
        (LoadFailure(), CHAT, False),
        (Oom(at="load"), replace(CHAT, needs_load=True), True),
        (Oom(at="load"), CHAT, False),
        (Loading(), replace(CHAT, idle=True), True),
        (Loading(), CHAT, False),
        (Oom(), CHAT, True),
        (Crash(), CHAT, True),
        (Oom(), LOOK, False),
        (Crash(), LOOK, False),
        (Status(), LOOK, True),
    ],
)
def test_what_cannot_happen_to_a_request_is_not_counted(
    action: AnyAction, facts: Facts, *, acts_on_it: bool
) -> None:
    faults = book(FaultRule(do=action))

    assert (faults.decide(facts, seed=0) is not None) is acts_on_it
    assert faults.rules[0].matched == acts_on_it


def test_some_matches_pass_before_some_act() -> None:
    faults = book(FaultRule(do=Status(), when=When(skip=2, times=3)))

    assert acts(faults, 7) == [False, False, True, True, True, False, False]


def test_every_other_match_can_act() -> None:
    faults = book(FaultRule(do=Status(), when=When(every=2)))

    assert acts(faults, 5) == [False, True, False, True, False]


def test_chance_repeats_with_its_seed() -> None:
    rule = FaultRule(do=Status(), when=When(probability=0.3))

    first, again, other = (acts(book(rule), 200, seed) for seed in (1, 1, 2))

    assert first == again != other
    assert 30 < sum(first) < 90


def test_a_rule_with_a_known_id_takes_the_place_of_the_old_one() -> None:
    faults = book(FaultRule(id="x", do=Status()), FaultRule(do=Status()))

    faults.add(FaultRule(id="x", do=Rejected()))

    assert [it.rule.do.kind for it in faults.rules] == ["rejected", "status"]
    assert faults.remove("x")
    assert not faults.remove("x")


def test_an_unknown_word_in_a_rule_is_an_error_that_names_it() -> None:
    with pytest.raises(ValidationError, match="after_token\n"):
        FaultRule.model_validate({"do": {"kind": "reset", "after_token": 1}})
    with pytest.raises(ValidationError, match="no regular expression"):
        FaultRule.model_validate({"match": {"prompt": "("}, "do": {"kind": "reset"}})
    with pytest.raises(ValidationError, match="not both"):
        FaultRule.model_validate({"do": {"kind": "crash", "after_tokens": 1, "after_steps": 1}})
    with pytest.raises(ValidationError, match="explode"):
        FaultRule.model_validate({"do": {"kind": "explode"}})
