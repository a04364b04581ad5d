"""The page about the simulator says what the code does."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel
from starlette.routing import Route

from src.simulator import control
from src.simulator.config import ModelConfig, SimulatorConfig
from src.simulator.faults import ACTIONS, Match, When
from src.simulator.profiles import PROFILES
from src.simulator.simulation import Simulation
from tests import reference
from tests.reference import NONE, Row, code, tables

PAGE = Path(__file__).parents[2] / "docs/reference/simulator.md"


@pytest.fixture
def page() -> dict[str, list[Row]]:
    return dict(tables(PAGE.read_text(encoding="utf-8")))


def keys(model: type[BaseModel]) -> Iterator[tuple[str, str]]:
    """Each key and its default."""
    for name, default, _ in reference.definition(model):
        yield name, default


def explained(rows: list[Row]) -> list[Row]:
    """The rows without their last cell, which says something in each."""
    assert all(row[-1] for row in rows)
    return [row[:-1] for row in rows]


@pytest.mark.parametrize(
    ("heading", "model"),
    [
        ("Configuration", SimulatorConfig),
        ("Keys of a model", ModelConfig),
        ("Which of those", When),
    ],
)
def test_the_keys_are_those_of_the_code(
    page: dict[str, list[Row]], heading: str, model: type[BaseModel]
) -> None:
    assert explained(page[heading]) == list(keys(model))


def test_the_conditions_of_a_rule_are_those_of_the_code(page: dict[str, list[Row]]) -> None:
    assert explained(page["Which requests"]) == [(code(name),) for name in Match.model_fields]


def test_the_kinds_of_fault_and_their_parameters_are_those_of_the_code(
    page: dict[str, list[Row]],
) -> None:
    real: list[Row] = []
    for kind in ACTIONS:
        parameters = (f"{name} {default}" for name, default in list(keys(kind))[1:])
        real.append((code(kind().kind), ", ".join(parameters) or NONE))

    assert explained(page["What goes wrong"]) == real


def test_the_profiles_are_those_of_the_code(page: dict[str, list[Row]]) -> None:
    assert page["Profiles"] == [(code(name), it.about) for name, it in PROFILES.items()]


def test_the_control_routes_are_those_of_the_code(page: dict[str, list[Row]]) -> None:
    router = control.build(Simulation(SimulatorConfig()), drop_everyone=lambda: None)
    routes = [route for route in router.routes if isinstance(route, Route)]
    real = {
        code(f"{method} {route.path}")
        for route in routes
        for method in (route.methods or set()) - {"HEAD"}
    }

    assert {row[0] for row in page["Control routes"]} == real


def test_what_can_be_changed_while_it_runs_is_what_the_page_says(
    page: dict[str, list[Row]],
) -> None:
    said = {row[0]: row[1] for row in page["Control routes"]}

    assert said["`PATCH /sim`"] == "Change " + ", ".join(map(code, sorted(control.CHANGEABLE)))
    assert all(code(key) in said["`PATCH /sim/models/{model}`"] for key in control.FIXED)
