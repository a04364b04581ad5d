import asyncio

from src.simulator.clock import Clock


class Wall:
    """Real time, moved by hand."""

    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


def test_time_flows_as_fast_as_it_is_told() -> None:
    wall = Wall()
    clock = Clock(20, monotonic=wall)

    wall.time += 1

    assert clock.now() == 20


async def test_a_change_of_speed_keeps_what_has_passed() -> None:
    wall = Wall()
    clock = Clock(20, monotonic=wall)
    wall.time += 1

    clock.set_speed(2)
    wall.time += 1

    assert clock.now() == 22


async def test_without_speed_sleepers_wake_in_order_and_nobody_waits() -> None:
    clock = Clock(0, monotonic=Wall())
    woken: list[float] = []

    async def sleeper(due: float) -> None:
        await clock.sleep_until(due)
        woken.append(clock.now())

    async with asyncio.timeout(5):
        await asyncio.gather(*[sleeper(due) for due in (3000, 10, 2000, 10)])

    assert woken == [10, 10, 2000, 3000]


async def test_without_speed_time_stands_while_real_work_is_done() -> None:
    clock = Clock(0, monotonic=Wall())
    rung = asyncio.Event()
    clock.at(1000, rung.set)

    with clock.held():
        for _ in range(10):
            await asyncio.sleep(0)
        assert not rung.is_set()

    async with asyncio.timeout(5):
        await rung.wait()


async def test_a_cancelled_alarm_neither_rings_nor_moves_time() -> None:
    clock = Clock(0, monotonic=Wall())
    rung: list[str] = []
    clock.at(1000, lambda: rung.append("late")).cancel()

    async with asyncio.timeout(5):
        await clock.sleep(1)
    await asyncio.sleep(0)

    assert rung == []
    assert clock.now() == 1
    assert repr(clock) == "<Clock 1.000 speed 0 alarms 0>"


async def test_time_can_be_advanced() -> None:
    clock = Clock(1)

    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        tasks.create_task(clock.sleep(1000))
        await asyncio.sleep(0)
        await clock.advance(1000)

    assert clock.now() >= 1000


async def test_a_manual_clock_stands_still() -> None:
    clock = Clock(20, manual=True)
    rung: list[str] = []
    clock.at(0.001, lambda: rung.append("later"))
    clock.at(0, lambda: rung.append("now"))

    await clock.sleep(0)

    assert (rung, clock.now()) == (["now"], 0)
    assert repr(clock) == "<Clock 0.000 manual alarms 1>"


async def test_advancing_returns_when_everything_due_has_happened_each_at_its_moment() -> None:
    clock = Clock(1, manual=True)
    seen: list[float] = []

    async def ticking() -> None:
        while True:
            await clock.sleep(0.5)
            with clock.held():
                await asyncio.to_thread(seen.append, clock.now())

    ticks = asyncio.create_task(ticking())
    await clock.advance(2.25)
    ticks.cancel()

    assert seen == [0.5, 1, 1.5, 2]
    assert clock.now() == 2.25


async def test_two_who_advance_at_once_do_so_one_after_the_other() -> None:
    clock = Clock(1, manual=True)
    rung: list[float] = []
    for due in (1, 2, 3):
        clock.at(due, lambda: rung.append(clock.now()))

    await asyncio.gather(clock.advance(1.5), clock.advance(1.5))

    assert (rung, clock.now()) == ([1, 2, 3], 3)


async def test_a_year_passes_in_no_time() -> None:
    clock = Clock(1, manual=True)
    year = 365 * 86_400.0
    rung: list[float] = []
    clock.at(year, lambda: rung.append(clock.now()))

    async with asyncio.timeout(5):
        await clock.advance(year)

    assert rung == [year]


async def test_a_stopped_clock_has_forgotten_its_alarms() -> None:
    clock = Clock(0, monotonic=Wall())
    clock.at(1, lambda: None)

    clock.stop()

    assert repr(clock) == "<Clock 0.000 speed 0 alarms 0>"
