import contextlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from src.simulator.world import (
    BUSY_WAIT,
    HEALTH_CHECK,
    Granted,
    Happening,
    Lost,
    Refused,
    Weight,
    World,
)

MODELS = {
    "chat": Weight(slots=2, weights_gb=2, load_s=1),
    "vision": Weight(slots=1, weights_gb=3, load_s=1.5),
    "image": Weight(slots=1, weights_gb=5, load_s=2),
}


def world(memory_gb: float = 8, max_active: int = 0, idle_s: float | None = None) -> World:
    return World(MODELS, memory_gb=memory_gb, max_active=max_active, idle_s=idle_s)


def test_the_first_request_pays_for_the_load_and_the_next_do_not() -> None:
    it = world()

    assert it.ask(1, "chat", now=0) == []
    assert it.due() == 1
    assert it.advance(1) == [Granted(1)]
    assert it.ask(2, "chat", now=2) == [Granted(2)]
    assert it.view("chat", 2).loads == 1
    assert it.due() is None


def test_one_model_is_loaded_at_a_time_for_whoever_has_waited_longest() -> None:
    it = world()
    it.ask(1, "chat", now=0)
    it.ask(2, "image", now=0.1)
    it.ask(3, "vision", now=0.2)

    assert [it.view(name, 0.5).phase for name in MODELS] == ["loading", "unloaded", "unloaded"]
    assert it.advance(1) == [Granted(1)]
    assert [it.view(name, 1).phase for name in MODELS] == ["busy", "unloaded", "loading"]


def test_inside_a_model_the_line_is_first_in_first_out() -> None:
    it = world()
    for number in (1, 2, 3):
        it.ask(number, "image", now=0)

    assert it.advance(2) == [Granted(1)]
    assert it.leave(1, now=3) == [Granted(2)]
    assert it.leave(2, now=4) == [Granted(3)]


def test_the_least_recently_used_idle_model_makes_room() -> None:
    it = world()
    for number, name in enumerate(("chat", "vision"), 1):
        it.ask(number, name, now=number * 10)
        it.advance(number * 10 + 2)
        it.leave(number, now=number * 10 + 3)

    it.ask(3, "image", now=30)

    assert it.resident(30) == ["vision"]
    assert it.advance(32) == [Granted(3)]
    assert it.swaps == 1


def test_a_busy_model_is_waited_for_and_then_the_load_goes_over_the_budget() -> None:
    it = world()
    it.put_in("image", now=0)
    it.put_in("chat", now=0)
    it.ask(1, "image", now=0)
    it.ask(2, "vision", now=0)

    assert it.resident(50) == ["image"]
    assert it.due() is not None

    it = world()
    it.put_in("image", now=0)
    it.ask(1, "image", now=0)
    it.resize(
        {**MODELS, "vision": Weight(slots=1, weights_gb=4, load_s=1)},
        memory_gb=8,
        max_active=0,
        now=0,
    )
    it.ask(2, "vision", now=1)
    assert it.due() == 1 + BUSY_WAIT
    assert it.advance(30) == []
    assert it.over_budget == 0
    assert it.advance(31) == []
    assert it.over_budget == 1
    assert it.advance(32) == [Granted(2)]
    assert it.memory_used() == 9


def test_a_model_that_falls_idle_during_the_wait_is_evicted() -> None:
    it = world(max_active=1)
    it.put_in("image", now=0)
    it.ask(1, "image", now=0)
    it.ask(2, "chat", now=1)

    assert it.view("chat", 5).phase == "loading"
    assert it.leave(1, now=5) == []
    assert it.advance(6) == [Granted(2)]
    assert (it.swaps, it.over_budget) == (1, 0)


def test_a_failed_load_turns_away_all_who_wait_and_then_whoever_comes() -> None:
    it = world()
    it.doom("chat", loads=1)
    it.ask(1, "chat", now=0)
    it.ask(2, "chat", now=0.5)

    assert it.advance(1) == [Refused(1, "load_failed"), Refused(2, "load_failed")]
    assert it.ask(3, "chat", now=5) == [Refused(3, "cooldown", 6)]
    assert it.view("chat", 5).cooldown_until == 11


def test_the_cooldown_doubles_up_to_five_minutes_and_a_success_ends_it() -> None:
    it = world()
    it.doom("chat", loads=7)
    now, lengths = 0.0, list[float]()
    for number in range(7):
        it.ask(number, "chat", now)
        now += 1
        it.advance(now)
        until = it.view("chat", now).cooldown_until
        assert until is not None
        lengths.append(until - now)
        now = until

    assert lengths == [10, 20, 40, 80, 160, 300, 300]
    it.ask(8, "chat", now)
    assert it.advance(now + 1) == [Granted(8)]
    assert it.view("chat", now + 1).cooldown_until is None
    it.leave(8, now + 1)
    it.take_out("chat", now + 1)
    it.doom("chat", loads=1)
    it.ask(9, "chat", now + 1)
    it.advance(now + 2)
    assert it.view("chat", now + 2).cooldown_until == now + 2 + 10


def test_who_leaves_while_their_load_runs_aborts_it_and_the_others_get_one_more_try() -> None:
    it = world()
    for number in (1, 2, 3):
        it.ask(number, "chat", now=0)

    assert it.leave(1, now=0.5) == []
    assert it.ask(4, "chat", now=0.6) == []  # the second try has begun: no cooldown meanwhile
    assert it.leave(2, now=0.7) == [Refused(3, "load_failed")]
    assert it.view("chat", 0.7).phase == "loading"
    assert it.leave(4, now=0.8) == []
    assert it.view("chat", 0.8).phase == "cooling"


def test_who_leaves_before_the_load_has_begun_or_after_another_began_it_harms_nobody() -> None:
    it = world()
    for number in (1, 2):
        it.ask(number, "chat", now=0)
    it.ask(3, "image", now=0)

    it.leave(2, now=0.5)
    it.leave(3, now=0.5)

    assert it.advance(1) == [Granted(1)]
    assert it.view("image", 1).phase == "unloaded"


def test_giving_up_while_room_is_made_is_no_failure() -> None:
    it = world(max_active=1)
    it.put_in("image", now=0)
    it.ask(1, "image", now=0)
    it.ask(2, "chat", now=1)

    it.leave(2, now=2)

    assert it.view("chat", 2).phase == "unloaded"
    assert it.due() is None


def test_warming_takes_no_slot() -> None:
    it = world()

    it.warm(1, "image", now=0)
    it.ask(2, "image", now=0)

    assert it.advance(2) == [Granted(1), Granted(2)]
    assert it.view("image", 2).busy == 1


def test_a_shutdown_waits_for_the_work_for_thirty_seconds() -> None:
    it = world()
    it.put_in("chat", now=0)
    it.ask(1, "chat", now=0)

    assert it.shut_down(2, "chat", now=1) == []
    assert it.leave(1, now=5) == [Granted(2)]
    assert it.resident(50) == []

    it.put_in("chat", now=6)
    it.ask(3, "chat", now=6)
    it.shut_down(4, "chat", now=7)
    assert it.advance(it.due() or 0) == [Refused(4, "still_busy")]


def test_models_are_moved_by_hand_only_where_that_breaks_nothing() -> None:
    it = world()
    it.put_in("image", now=0)
    it.ask(1, "image", now=0)

    with pytest.raises(ValueError, match="image is busy"):
        it.take_out("image", now=1)

    it.put_in("chat", now=1)
    it.put_in("vision", now=1)
    assert it.resident(50) == ["vision", "image"]
    it.ask(2, "chat", now=2)
    assert repr(it) == "<World [chat loading, vision unloaded, image busy] 7/8 GB>"
    with pytest.raises(ValueError, match="no room for vision"):
        it.put_in("vision", now=2)
    with pytest.raises(ValueError, match="chat is busy"):
        it.take_out("chat", now=2)
    assert it.put_in("chat", now=2) == [Granted(2)]


def test_a_model_put_in_by_hand_while_room_is_made_for_it_still_needs_the_room() -> None:
    it = world()
    it.put_in("chat", now=0)
    it.put_in("vision", now=0)
    it.ask(1, "chat", now=0)
    it.ask(2, "vision", now=0)
    it.ask(3, "image", now=1)

    with pytest.raises(ValueError, match="no room for image"):
        it.put_in("image", now=2)
    it.leave(1, now=3)
    assert it.memory_used() == 8
    assert it.put_in("image", now=4) == [Granted(3)]
    assert it.memory_used() == 8


def test_a_crash_takes_everybody_there_with_it() -> None:
    it = world()
    it.put_in("image", now=0)
    for number in (1, 2, 3):
        it.ask(number, "image", now=0)

    assert it.crash("image", now=5) == [Lost(1), Lost(2), Lost(3)]
    assert it.memory_used() == 0
    assert not it.works(1)


def test_a_dead_process_counts_as_loaded_until_the_next_look_and_is_loaded_anew() -> None:
    it = world()
    it.put_in("chat", now=0)

    it.crash("chat", now=5)

    assert (it.resident(5), it.view("chat", 5).phase) == (["chat"], "crashed")
    assert it.ask(1, "chat", now=29.9) == [Refused(1, "crashed")]
    assert it.warm(2, "chat", now=29.9) == [Granted(2)]  # nobody looks whether it is true
    assert it.resident(HEALTH_CHECK) == []
    assert it.ask(3, "chat", now=31) == []
    assert it.advance(32) == [Granted(3)]


def test_a_look_at_the_process_counts_for_half_a_minute() -> None:
    it = world()
    it.put_in("chat", now=0)
    it.ask(1, "chat", now=40)
    it.leave(1, now=41)
    it.ask(2, "chat", now=60)

    it.crash("chat", now=60)

    assert it.view("chat", 69.9).phase == "crashed"
    assert it.view("chat", 40 + HEALTH_CHECK).phase == "unloaded"
    it.put_in("chat", now=61)
    it.crash("chat", now=200)
    assert it.view("chat", 200).phase == "unloaded"  # the next request looks, and loads


def test_a_crash_during_the_load_is_a_failed_load_and_without_process_there_is_none() -> None:
    it = world()
    it.ask(1, "chat", now=0)

    assert it.crash("chat", now=0.5) == [Refused(1, "load_failed")]
    assert it.view("chat", 0.5).phase == "cooling"
    with pytest.raises(ValueError, match="chat is not in memory"):
        it.crash("chat", now=1)


@pytest.mark.parametrize("how", ["put_in", "take_out", "shut_down"])
def test_moving_a_dead_model_by_hand_ends_its_death(how: str) -> None:
    it = world()
    it.put_in("chat", now=0)
    it.crash("chat", now=1)

    if how == "shut_down":
        assert it.shut_down(9, "chat", now=2) == [Granted(9)]
    else:
        (it.put_in if how == "put_in" else it.take_out)("chat", now=2)

    assert it.view("chat", 2).phase == ("ready" if how == "put_in" else "unloaded")
    assert it.due() is None


def test_a_load_may_run_out_of_memory() -> None:
    it = world()
    it.doom("chat", 1, "out_of_memory")
    it.ask(1, "chat", now=0)

    assert it.advance(1) == [Refused(1, "out_of_memory")]


def test_an_idle_model_can_leave_the_memory_by_itself() -> None:
    it = world(idle_s=2)
    it.ask(1, "chat", now=0)
    it.advance(1)

    assert it.due() is None  # at work
    it.leave(1, now=10)
    assert it.due() == 12
    it.advance(12)
    assert it.resident(50) == []


def test_the_next_load_can_be_made_longer_and_a_slow_request_loads_slowly() -> None:
    it = world()
    it.put_in("chat", now=0)
    it.unload("chat", now=0, next_load_s=7)

    it.ask(1, "chat", now=0)
    assert it.due() == 7
    it.advance(7)
    it.leave(1, now=7)
    it.take_out("chat", now=8)
    it.ask(2, "chat", now=10, pace=3)
    assert it.due() == 13


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(
            ["ask", "warm", "leave", "shut_down", "doom", "put_in", "take_out", "crash"]
        ),
        st.sampled_from(sorted(MODELS)),
        st.integers(0, 20),
        st.floats(0, 40),
    ),
    max_size=60,
)


class Story:
    """A world, what it was told, and what it must never do."""

    def __init__(self, max_active: int, idle_s: float | None = None) -> None:
        self.world = world(max_active=max_active, idle_s=idle_s)
        self.now = 0.0
        self.open: set[int] = set()
        self.slots: dict[int, str] = {}
        self.asked: dict[int, str] = {}
        self.told: list[Happening] = []

    def hear(self, happenings: list[Happening]) -> None:
        self.told += happenings
        for happening in happenings:
            if isinstance(happening, Lost) and happening.number in self.slots:
                del self.slots[happening.number]
                continue
            assert happening.number in self.open, "each request is answered once"
            self.open.discard(happening.number)
            if isinstance(happening, Granted) and happening.number in self.asked:
                self.slots[happening.number] = self.asked[happening.number]
        over_before = self.world.over_budget
        for name, weight in MODELS.items():
            busy = [number for number, model in self.slots.items() if model == name]
            assert len(busy) == self.world.view(name, self.now).busy <= weight.slots
        if not over_before:
            assert self.world.memory_used() <= 8

    def wait(self, seconds: float) -> None:
        until = self.now + seconds
        while (due := self.world.due()) is not None and due <= until:
            self.now = max(self.now, due)
            self.hear(self.world.advance(self.now))
        self.now = until

    def act(self, action: str, name: str, number: int, seconds: float) -> None:
        self.wait(seconds)
        it, now = self.world, self.now
        if action == "leave":
            self.open.discard(number)
            self.slots.pop(number, None)
            self.hear(it.leave(number, now))
        elif action == "doom":
            it.doom(name, 1)
        elif action in ("put_in", "take_out", "crash"):
            move = {"put_in": it.put_in, "take_out": it.take_out, "crash": it.crash}[action]
            with contextlib.suppress(ValueError):
                self.hear(move(name, now))
        elif number not in self.open and number not in self.slots:
            self.ask(action, name, number)

    def ask(self, action: str, name: str, number: int) -> None:
        it, now = self.world, self.now
        if action == "shut_down" and name not in it.resident(now):
            return
        self.open.add(number)
        self.asked.pop(number, None)
        if action == "ask":
            self.asked[number] = name
            self.hear(it.ask(number, name, now))
        else:
            wish = it.warm if action == "warm" else it.shut_down
            self.hear(wish(number, name, now))


@given(ACTIONS, st.integers(0, 2), st.sampled_from([None, 2.0]))
def test_whatever_happens_slots_memory_and_answers_are_right(
    actions: list[tuple[str, str, int, float]], max_active: int, idle_s: float | None
) -> None:
    story = Story(max_active, idle_s)

    for action in actions:
        story.act(*action)

    for number in list(story.slots):
        story.act("leave", "chat", number, 0)
    while story.open or story.slots:
        story.wait(1000)
        for number in list(story.slots):
            story.act("leave", "chat", number, 0)
    story.wait(1000)
    assert story.world.due() is None


@given(ACTIONS)
@example(
    [
        ("ask", "chat", 1, 0),
        ("ask", "vision", 2, 0),
        ("ask", "image", 3, 5),
        ("put_in", "image", 0, 0),
    ]
)
def test_the_same_script_has_the_same_end(actions: list[tuple[str, str, int, float]]) -> None:
    first, second = Story(0), Story(0)

    for action in actions:
        first.act(*action)
        second.act(*action)

    assert first.told == second.told
    assert repr(first.world) == repr(second.world)
