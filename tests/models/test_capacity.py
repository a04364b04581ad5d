import pytest

from src.models.capacity import BackendLimits, Capacity, LoadFirst, ModelLimits, Pause, Run

NOW = 1_000.0
TWO = ModelLimits(parallel=2)
ONE_MODEL = BackendLimits(resident=1)


def up(*backends: Capacity) -> None:
    for capacity in backends:
        capacity.backend_up("gpu", offers=None, resident=None)


def one(
    *resident: str,
    limits: BackendLimits = ONE_MODEL,
    models: dict[str, ModelLimits] | None = None,
) -> Capacity:
    capacity = Capacity({"gpu": limits}, models)
    capacity.backend_up("gpu", offers=None, resident=resident)
    return capacity


def two(
    first: tuple[str, ...] = (),
    second: tuple[str, ...] = (),
    limits: BackendLimits = ONE_MODEL,
    models: dict[str, ModelLimits] | None = None,
) -> Capacity:
    capacity = Capacity({"left": limits, "right": limits}, models)
    capacity.backend_up("left", offers=None, resident=first)
    capacity.backend_up("right", offers=None, resident=second)
    return capacity


def test_a_resident_model_may_run_as_often_as_it_may_at_once() -> None:
    capacity = one("chat", models={"chat": TWO})

    for _ in range(2):
        assert capacity.place("chat", NOW) == Run("gpu")
        capacity.occupy("gpu", "chat")

    assert capacity.place("chat", NOW) is None
    assert capacity.exhausted()
    capacity.vacate("gpu", "chat")
    assert not capacity.exhausted()
    assert capacity.place("chat", NOW) == Run("gpu")


def test_a_model_that_is_not_resident_is_loaded_in_place_of_the_longest_unused_one() -> None:
    capacity = one("a", "b", limits=BackendLimits(resident=2))
    capacity.occupy("gpu", "a")
    capacity.vacate("gpu", "a")

    placement = capacity.place("c", NOW)

    assert placement == LoadFirst("gpu", ("b",))
    capacity.begin_load("gpu", "c", ("b",))
    assert capacity.resident("gpu") == {"a": 0}
    assert capacity.loading("gpu") == "c"
    assert capacity.place("c", NOW) is None
    capacity.end_load("gpu", "c")
    assert capacity.resident("gpu") == {"a": 0, "c": 0}
    assert capacity.loading("gpu") is None


def test_a_busy_model_drains_before_it_is_replaced() -> None:
    capacity = one("a", models={"a": TWO})
    capacity.occupy("gpu", "a")

    assert capacity.place("b", NOW) is None

    assert capacity.place("a", NOW) is None
    assert capacity.exhausted()
    capacity.new_round()
    assert capacity.place("a", NOW) == Run("gpu")
    capacity.vacate("gpu", "a")
    assert capacity.place("b", NOW) == LoadFirst("gpu", ("a",))


def test_only_what_must_leave_drains() -> None:
    capacity = one(
        "small",
        "large",
        limits=BackendLimits(memory_gb=10),
        models={
            "small": ModelLimits(parallel=2, weights_gb=2),
            "large": ModelLimits(parallel=2, weights_gb=8),
            "new": ModelLimits(weights_gb=7),
        },
    )
    capacity.occupy("gpu", "small")
    capacity.occupy("gpu", "large")

    assert capacity.place("new", NOW) is None

    assert capacity.place("large", NOW) is None
    assert capacity.place("small", NOW) == Run("gpu")


def test_memory_is_counted_in_gb_where_they_are_known() -> None:
    capacity = one(
        limits=BackendLimits(memory_gb=10),
        models={
            "a": ModelLimits(weights_gb=4),
            "b": ModelLimits(weights_gb=6),
            "huge": ModelLimits(weights_gb=12),
        },
    )
    for model in ("a", "b"):
        assert capacity.place(model, NOW) == LoadFirst("gpu", ())
        capacity.begin_load("gpu", model, ())
        capacity.end_load("gpu", model)

    assert capacity.place("huge", NOW) == LoadFirst("gpu", ("a", "b"))
    assert capacity.place("of unknown size", NOW) == LoadFirst("gpu", ("a", "b"))
    capacity.occupy("gpu", "b")
    assert capacity.place("a", NOW) == Run("gpu")
    capacity.occupy("gpu", "a")
    assert capacity.exhausted()


def test_room_that_a_load_will_leave_is_kept_for_the_job_that_waits_for_it() -> None:
    capacity = one("a", limits=BackendLimits(resident=2))
    capacity.begin_load("gpu", "b", ())

    assert capacity.place("c", NOW) is None

    assert capacity.place("a", NOW) is None
    capacity.end_load("gpu", "b")
    capacity.new_round()
    assert capacity.place("c", NOW) == LoadFirst("gpu", ("a",))


def test_a_load_is_never_overtaken_by_another() -> None:
    capacity = one()
    capacity.begin_load("gpu", "a", ())

    assert capacity.place("b", NOW) is None
    assert capacity.place("a", NOW) is None
    assert capacity.exhausted()


def test_the_least_busy_copy_of_a_model_is_taken() -> None:
    capacity = two(("m",), ("m",), models={"m": ModelLimits(parallel=3)})
    capacity.occupy("left", "m")

    assert capacity.place("m", NOW) == Run("right")
    capacity.occupy("right", "m")
    assert capacity.place("m", NOW) == Run("left")


def test_a_model_at_home_takes_free_memory_but_no_other_models_place() -> None:
    crowded, roomy = two(("m",), ("other",)), two(("m",), ())
    for capacity in (crowded, roomy):
        capacity.occupy("left", "m")

    assert crowded.place("m", NOW) is None
    assert roomy.place("m", NOW) == LoadFirst("right", ())
    assert crowded.place("other", NOW) == Run("right")


def test_a_model_at_home_takes_the_place_of_an_idle_one_if_more_wait_than_run_at_home() -> None:
    capacity = two(("m",), ("idle",))
    capacity.occupy("left", "m")

    assert capacity.place("m", NOW, waiting=1) is None
    assert capacity.place("m", NOW, waiting=2, wanted={"m", "idle"}) is None
    assert capacity.place("m", NOW, waiting=2, wanted={"m"}) == LoadFirst("right", ("idle",))


def test_a_model_at_home_does_not_drain_a_busy_one_elsewhere() -> None:
    capacity = two(("m",), ("busy",), models={"busy": TWO})
    capacity.occupy("left", "m")
    capacity.occupy("right", "busy")

    assert capacity.place("m", NOW, waiting=9, wanted={"m"}) is None

    assert capacity.place("busy", NOW) == Run("right")


def test_a_model_at_home_does_not_wait_for_a_load_elsewhere() -> None:
    capacity = two(("m",), ("idle",))
    capacity.occupy("left", "m")
    capacity.begin_load("right", "other", ("idle",))

    assert capacity.place("m", NOW, waiting=9, wanted={"m"}) is None

    capacity.end_load("right", "other")
    assert capacity.place("m", NOW, waiting=9, wanted={"m"}) == LoadFirst("right", ("other",))


def test_a_model_that_is_drained_at_home_may_move() -> None:
    capacity = two(("m",), ("idle",), models={"m": TWO})
    capacity.backend_up("right", offers=["m", "idle"], resident=None)
    capacity.occupy("left", "m")
    assert capacity.place("better", NOW) is None

    assert capacity.place("m", NOW) == LoadFirst("right", ("idle",))


def test_a_load_goes_where_the_least_has_to_give_way() -> None:
    idle_or_free = two(("idle",), ())
    busy_or_idle = two(("busy",), ("idle",))
    busy_or_idle.occupy("left", "busy")

    assert idle_or_free.place("m", NOW) == LoadFirst("right", ())
    assert busy_or_idle.place("m", NOW) == LoadFirst("right", ("idle",))


def test_two_models_never_wait_for_the_same_room() -> None:
    capacity = two(("a",), ("b",))
    capacity.occupy("left", "a")
    capacity.occupy("right", "b")

    for model in ("c", "d", "e"):
        assert capacity.place(model, NOW) is None

    assert capacity.exhausted()


def test_a_backend_that_is_down_gets_nothing() -> None:
    capacity = one("m")
    capacity.backend_down("gpu")

    assert not capacity.is_up("gpu")
    assert capacity.place("m", NOW) is None
    assert capacity.exhausted()


def test_a_backend_gets_only_what_it_offers() -> None:
    capacity = one()
    capacity.backend_up("gpu", offers=["m"], resident=None)

    assert capacity.place("other", NOW) is None
    assert capacity.place("m", NOW) == LoadFirst("gpu", ())


def test_a_model_that_failed_to_load_is_left_alone_for_a_while() -> None:
    capacity = one()
    capacity.begin_load("gpu", "m", ())

    capacity.end_load("gpu", "m", Pause(NOW + 10, "it could not be loaded"))

    assert capacity.place("m", NOW + 9) is None
    assert capacity.pauses("gpu", NOW) == {"m": Pause(NOW + 10, "it could not be loaded")}
    assert capacity.next_change(NOW) == NOW + 10
    assert capacity.pauses("gpu", NOW + 10) == {}
    assert capacity.next_change(NOW + 10) is None
    assert capacity.place("m", NOW + 10) == LoadFirst("gpu", ())


def test_a_model_that_came_back_after_its_pause_stays() -> None:
    capacity = one()
    capacity.begin_load("gpu", "m", ())
    capacity.end_load("gpu", "m", Pause(NOW + 10))
    capacity.backend_up("gpu", offers=None, resident=["m"])
    assert capacity.place("m", NOW + 10) == Run("gpu")

    capacity.occupy("gpu", "m")
    capacity.vacate("gpu", "m")

    assert capacity.resident("gpu") == {"m": 0}


def test_an_idle_model_that_died_is_gone_at_once() -> None:
    capacity = one("m")

    capacity.gone("gpu", "m", Pause(NOW))

    assert capacity.resident("gpu") == {}
    assert capacity.place("m", NOW) == LoadFirst("gpu", ())


def test_nobody_joins_the_attempts_on_a_model_that_died() -> None:
    capacity = one("m", models={"m": ModelLimits(parallel=3)})
    capacity.occupy("gpu", "m")
    capacity.occupy("gpu", "m")

    capacity.gone("gpu", "m", Pause(NOW + 1))

    assert capacity.place("m", NOW + 2) is None
    capacity.vacate("gpu", "m")
    assert capacity.place("m", NOW + 2) is None
    capacity.set_models({"m": ModelLimits(parallel=5)})
    assert capacity.place("m", NOW + 2) is None
    capacity.vacate("gpu", "m")
    assert capacity.place("m", NOW + 2) == LoadFirst("gpu", ())


def test_a_report_of_residents_drops_the_idle_and_keeps_the_busy() -> None:
    capacity = one("idle", "busy", limits=BackendLimits(resident=3))
    capacity.occupy("gpu", "busy")

    capacity.backend_up("gpu", offers=None, resident=["new"])

    assert capacity.resident("gpu") == {"busy": 1, "new": 0}


def test_more_idle_models_than_may_be_resident_are_not_counted_on() -> None:
    capacity = Capacity({"a": BackendLimits(resident=1)})
    capacity.backend_up("a", offers=None, resident={"chat"})

    capacity.backend_up("a", offers=None, resident={"another", "chat", "image"})

    assert capacity.resident("a") == {"chat": 0}
    assert capacity.place("image", 0.0) == LoadFirst("a", ("chat",))


def test_busy_models_stay_even_beyond_what_fits() -> None:
    capacity = Capacity(
        {"a": BackendLimits(memory_gb=8)}, {m: weighing(4) for m in ("chat", "image")}
    )
    capacity.backend_up("a", offers=None, resident={"chat", "image"})
    capacity.occupy("a", "chat")
    capacity.occupy("a", "image")
    capacity.set_models({m: weighing(6) for m in ("chat", "image")})

    capacity.backend_up("a", offers=None, resident={"chat", "image", "voice"})

    assert capacity.resident("a") == {"chat": 1, "image": 1}


def weighing(gb: float) -> ModelLimits:
    return ModelLimits(weights_gb=gb)


def test_a_backend_that_does_not_say_is_believed_unless_it_was_away() -> None:
    stayed, left = one("m"), one("m")
    left.backend_down("gpu")

    up(stayed, left)

    assert stayed.resident("gpu") == {"m": 0}
    assert left.resident("gpu") == {}


@pytest.mark.parametrize("seen", ["new", "old"])
def test_a_report_during_a_load_does_not_bring_its_models(seen: str) -> None:
    capacity = one("old")
    capacity.begin_load("gpu", "new", ["old"])

    capacity.backend_up("gpu", offers=None, resident=[seen])

    assert capacity.resident("gpu") == {}
    assert capacity.place(seen, NOW) is None


def test_limits_may_change_while_attempts_run() -> None:
    capacity = one("m", models={"m": TWO})
    capacity.occupy("gpu", "m")

    capacity.set_models({})
    assert capacity.parallel("m") == 1
    assert capacity.place("m", NOW) is None

    capacity.set_models({"m": TWO})
    assert capacity.place("m", NOW) == Run("gpu")
    capacity.occupy("gpu", "m")
    capacity.set_models({})
    capacity.vacate("gpu", "m")
    assert capacity.place("m", NOW) is None


def test_it_is_known_which_backends_may_be_asked_for_a_model() -> None:
    capacity = two()
    capacity.backend_up("right", offers=["m"], resident=None)
    assert capacity.offering("n") == ["left"]
    assert capacity.offering("m") == ["left", "right"]

    capacity.backend_down("left")

    assert capacity.offering("m") == ["right"]


def test_a_model_is_dying_until_the_last_attempt_on_it_has_ended() -> None:
    capacity = one("m", models={"m": TWO})
    capacity.occupy("gpu", "m")
    assert not capacity.is_dying("gpu", "m")

    capacity.gone("gpu", "m", Pause(NOW))

    assert capacity.is_dying("gpu", "m")
    assert not capacity.is_resident("m")
    capacity.vacate("gpu", "m")
    assert not capacity.is_dying("gpu", "m")


def test_capacity_shows_what_runs_where() -> None:
    capacity = two(("m",), ())
    capacity.occupy("left", "m")
    capacity.begin_load("right", "n", ())
    capacity.backend_down("right")

    assert repr(capacity) == "<Capacity [left up: m 1/1, right down: empty loading n]>"


def test_a_pause_is_not_shortened_by_another() -> None:
    capacity = Capacity({"gpu": BackendLimits()})
    capacity.pause("gpu", "m", Pause(50.0, "its process died"))

    capacity.pause("gpu", "m", Pause(20.0, "it failed"))
    assert capacity.pauses("gpu", 0.0)["m"].why == "its process died"

    capacity.pause("gpu", "m", Pause(60.0, "it failed"))
    assert capacity.pauses("gpu", 0.0)["m"].until == 60.0

    capacity.end_pause("gpu", "m")
    assert not capacity.pauses("gpu", 0.0)


def test_without_backends_nothing_can_be_placed() -> None:
    capacity = Capacity({})

    assert capacity.full() == set()
    assert capacity.exhausted()
    assert capacity.place("m", 0.0) is None
