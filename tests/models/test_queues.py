import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.models.jobs import Level
from src.models.modality import Modality
from src.models.queues import Entry, Line, model_sets, priority_order

from .making import CHAT, DRAW, EDIT, LOOK, entry


def ids(line: Line) -> list[str]:
    return [waiting.id for waiting in line]


def line_of(*entries: Entry) -> Line:
    line = Line()
    for one in entries:
        line.put(one)
    return line


def test_every_modality_has_its_place_and_its_models() -> None:
    assert sorted(priority_order) == sorted(Modality)
    assert set(model_sets) == set(Modality)


def test_words_come_before_drawing_editing_and_looking_as_they_always_did() -> None:
    assert [m for m in priority_order if m in (LOOK, EDIT, DRAW, CHAT)] == [CHAT, DRAW, EDIT, LOOK]
    assert priority_order[0] is CHAT


def test_the_models_that_are_known_are_those_of_the_first_four() -> None:
    assert {m: set(names) for m, names in model_sets.items() if names} == {
        CHAT: {"Qwen2.5-32B-Instruct"},
        DRAW: {"Flux-Dev"},
        EDIT: {"Flux-Dev"},
        LOOK: {"Qwen2.5-VL-32B-Instruct"},
    }


def test_text_overtakes_an_older_image_that_still_waits() -> None:
    image, text = entry(1, modality=DRAW), entry(2, modality=CHAT)

    line = line_of(image, text)

    assert ids(line) == ["job-2", "job-1"]
    assert line.position(text) == 0
    assert line.position(image) == 1


def test_a_level_counts_inside_a_modality_only() -> None:
    line = line_of(
        entry(1, level=Level.LOW),
        entry(2),
        entry(3, level=Level.HIGH),
        entry(4, modality=DRAW, level=Level.HIGH),
    )

    assert ids(line) == ["job-3", "job-2", "job-1", "job-4"]


def test_the_settings_may_give_another_order() -> None:
    line = Line((LOOK, DRAW, EDIT, CHAT))
    line.put(entry(1, modality=CHAT))
    line.put(entry(2, modality=LOOK))

    assert line.order == (LOOK, DRAW, EDIT, CHAT)
    assert ids(line) == ["job-2", "job-1"]


def test_a_job_that_comes_back_finds_its_old_place() -> None:
    first, second, third = entry(1), entry(2), entry(3)
    line = line_of(first, second, third)
    line.take(first)

    line.put(first)

    assert ids(line) == ["job-1", "job-2", "job-3"]
    assert next(line.first_of_each_model()) == first


def test_each_model_shows_its_best_job() -> None:
    line = line_of(
        entry(1, model="a", modality=DRAW),
        entry(2, model="b"),
        entry(3, model="a"),
        entry(4, model="b"),
        entry(5, model=None),
    )

    assert [e.id for e in line.first_of_each_model()] == ["job-2", "job-3"]
    assert [e.id for e in line.first_of_each_model(without={"b"})] == ["job-3"]


def test_a_line_tells_what_waits_for_a_model() -> None:
    line = line_of(entry(1, model="a", modality=DRAW), entry(2, model="a"), entry(3, model=None))

    assert line.head("a") == entry(2, model="a")
    assert line.head("b") is None
    assert (line.count_of("a"), line.count_of("b")) == (2, 0)
    assert "a" in line.models
    assert "b" not in line.models


def test_a_job_is_better_by_modality_then_level_then_submission() -> None:
    line = Line()

    assert line.is_better(entry(1), entry(2, model="other"))
    assert line.is_better(entry(2, level=Level.HIGH), entry(1))
    assert line.is_better(entry(2), entry(1, modality=DRAW, level=Level.HIGH))
    assert line.place(entry(1)) < line.place(entry(2))


def test_a_job_taken_while_one_looks_makes_room_for_the_next_of_its_model() -> None:
    line = line_of(entry(1, model="a"), entry(2, model="b"), entry(3, model="a"))
    seen: list[str] = []

    for best in line.first_of_each_model():
        seen.append(best.id)
        line.take(best)

    assert seen == ["job-1", "job-2", "job-3"]
    assert len(line) == 0
    assert list(line.first_of_each_model()) == []


def test_a_job_without_a_model_waits_but_is_nobodys_first() -> None:
    unresolved = entry(1, model=None)
    line = line_of(unresolved, entry(2))

    assert line.position(unresolved) == 0
    assert [e.id for e in line.first_of_each_model()] == ["job-2"]

    line.take(unresolved)
    assert ids(line) == ["job-2"]


def test_a_line_tells_who_waits_for_a_modality_and_who_was_first() -> None:
    line = line_of(entry(1, level=Level.LOW), entry(2, level=Level.HIGH), entry(3, modality=LOOK))

    assert [e.id for e in line.waiting(CHAT)] == ["job-2", "job-1"]
    assert line.count(CHAT) == 2
    assert line.count(DRAW) == 0
    assert line.oldest(CHAT) == entry(1, level=Level.LOW)
    assert line.oldest(LOOK) == entry(3, modality=LOOK)
    assert line.oldest(EDIT) is None


def test_a_line_shows_how_many_wait() -> None:
    line = Line((CHAT, DRAW, EDIT, LOOK))
    line.put(entry(1))
    line.put(entry(2, modality=DRAW))

    assert repr(line) == "<Line [txt2txt 1, txt2img 1, img2img 0, img2txt 0]>"
    for modality in Modality:
        assert f"{modality} 0" in repr(Line())


entries = st.builds(
    entry,
    st.integers(0, 2**48 - 1),
    modality=st.sampled_from(Modality),
    level=st.sampled_from(Level),
    model=st.sampled_from((None, "a", "b", "c")),
)


@given(
    st.lists(entries, max_size=12, unique_by=lambda e: e.sequence),
    st.permutations(priority_order),
    st.data(),
)
def test_the_order_is_modality_then_level_then_sequence(
    waiting: list[Entry], order: list[Modality], data: st.DataObject
) -> None:
    line = Line(order)
    for one in waiting:
        line.put(one)
    leaving = data.draw(st.lists(st.sampled_from(waiting), unique=True)) if waiting else []
    for one in leaving:
        line.take(one)

    expected = sorted(
        (e for e in waiting if e not in leaving),
        key=lambda e: (order.index(e.modality), e.level, e.sequence),
    )

    assert list(line) == expected
    for place, one in enumerate(expected):
        assert line.position(one) == place
    firsts = {e.model: e for e in reversed(expected) if e.model is not None}
    assert list(line.first_of_each_model()) == [e for e in expected if e in firsts.values()]


def test_a_job_that_does_not_wait_cannot_be_taken() -> None:
    line = line_of(entry(1))

    with pytest.raises(KeyError):
        line.take(entry(2))


@given(
    st.lists(
        st.tuples(st.sampled_from((CHAT, DRAW)), st.sampled_from(("a", "b", None))), max_size=12
    ),
    st.sets(st.integers(0, 12)),
)
def test_many_leave_and_come_back_as_each_would(
    kinds: list[tuple[Modality, str | None]], leaving: set[int]
) -> None:
    entries = [
        entry(number, modality=modality, model=model)
        for number, (modality, model) in enumerate(kinds)
    ]
    line = line_of(*entries)

    gone = line.take_all(lambda one: one.sequence in leaving)

    rest = line_of(*(one for one in entries if one.sequence not in leaving))
    assert gone == list(line_of(*(one for one in entries if one.sequence in leaving)))
    assert list(line) == list(rest)
    assert list(line.first_of_each_model()) == list(rest.first_of_each_model())
    line.put_all(gone)
    whole = line_of(*entries)
    assert list(line) == list(whole)
    assert list(line.first_of_each_model()) == list(whole.first_of_each_model())
    assert [line.count_of(model) for model in "ab"] == [whole.count_of(model) for model in "ab"]
