"""The OpenAPI document is true: what it shows works, what it forbids is refused, nothing breaks.

`IM_SOAK=1` tries far more of everything.
"""

import json
import os
from collections.abc import Callable, Generator
from typing import Any, cast

import httpx2
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode, checks
from schemathesis.specs.openapi import checks as openapi_checks

from src.app import create_app
from src.settings import Settings
from src.simulator.config import SimulatorConfig
from tests.routes.house import House, house

TRIES = 400 if os.environ.get("IM_SOAK") else 12
PATIENCE_S = 20.0
GENERAL: Any = checks
KNOWN: Any = openapi_checks
TRUE = [
    KNOWN.status_code_conformance,
    KNOWN.content_type_conformance,
    KNOWN.response_schema_conformance,
]
LENGTHS = ("maxLength", "maxItems")
MODEST = {
    "width": 64,
    "height": 64,
    "size": "64x64",
    "steps": 2,
    "n": 1,
    "n_iter": 1,
    "batch_size": 1,
    "num_frames": 2,
    "seconds": 1,
}
IN_TIME = ["deadline_exceeded"]
"""What may fail for a reason that the caller gave: it wanted the result sooner than can be."""

DOCUMENT = create_app(Settings(localai_url="http://127.0.0.1:9", log_file=None)).openapi()
OPERATIONS = [
    f"{method.upper()} {path}" for path, item in DOCUMENT["paths"].items() for method in item
]
TAKING = [
    f"POST {path}"
    for path, item in DOCUMENT["paths"].items()
    if "requestBody" in item.get("post", {})
]


def examples(path: str) -> dict[str, Any]:
    """Return the examples of a body of JSON."""
    content = DOCUMENT["paths"][path].get("post", {}).get("requestBody", {}).get("content", {})
    return dict(content.get("application/json", {}).get("examples", {}))


EXAMPLES = [(path, example) for path in DOCUMENT["paths"] for example in examples(path)]
STRICT = [name for name in TAKING if " /v1/" in name or name == "POST /sdapi/v1/options"]
"""The others read numbers leniently, as pydantic does: `"7"` is one; so does A1111."""


@pytest.fixture(scope="module")
def described() -> Generator[House]:
    with house(config=SimulatorConfig(speed=0, inpainting_files_served=True)) as built:
        yield built


@pytest.fixture(autouse=True)
def open_for_work(described: House, request: pytest.FixtureRequest) -> Generator[None]:
    """Take back what an operator may have switched."""
    yield
    if "/queue/" in request.node.name:
        for action in ("resume", "start", "undrain"):
            httpx2.post(f"{described.url}/queue/{action}", trust_env=False).raise_for_status()


@pytest.fixture(scope="module")
def schema(described: House) -> Any:
    served = httpx2.get(f"{described.url}/openapi.json", trust_env=False).text
    document = json.loads(served, object_hook=shortened)
    loaded: Any = schemathesis.openapi.from_dict(document)
    loaded.config.update(base_url=described.url)
    return loaded


def shortened(part: dict[str, Any]) -> dict[str, Any]:
    """Leave out limits so high that megabytes would be made up to pass them."""
    return {n: v for n, v in part.items() if not (n in LENGTHS and isinstance(v, int) and v > 9999)}


def made_modest(body: Any, *, if_number: bool = False) -> None:
    """Ask the default model, for little: what takes long is tried elsewhere."""
    if isinstance(body, dict):
        wishes = cast("dict[str, Any]", body)
        if not if_number:
            wishes.pop("model", None)
        for name, little in MODEST.items():
            if (wish := wishes.get(name)) and (not if_number or str(wish).isdigit()):
                wishes[name] = little
        several = wishes.get("jobs")
        for one in several if isinstance(several, list) else ():  # pyright: ignore[reportUnknownVariableType]
            made_modest(one, if_number=if_number)


def tried(schema: Any, name: str, mode: GenerationMode, check: Callable[[Any], None]) -> None:
    """Make requests for an operation, and check the answer to each."""
    method, path = name.split(" ")

    @given(case=schema[path][method].as_strategy(generation_mode=mode))
    @settings(
        max_examples=TRIES,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
    )
    def every(case: Any) -> None:
        check(case)

    every()


def unbroken(case: Any, further: list[Any]) -> None:
    """Make a request, and see that its answer is a documented one and no failure of ours."""
    response = case.call(timeout=PATIENCE_S)
    if response.status_code >= 500 and response.json()["error"]["code"] in IN_TIME:
        case.validate_response(response, checks=TRUE)
    else:
        case.validate_response(response, checks=[GENERAL.not_a_server_error, *TRUE, *further])


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_allowed_request_is_answered_as_the_document_says(schema: Any, name: str) -> None:
    def check(case: Any) -> None:
        made_modest(case.body)
        unbroken(case, [])

    tried(schema, name, GenerationMode.POSITIVE, check)


@pytest.mark.parametrize("name", TAKING)
def test_a_forbidden_request_is_refused_as_the_document_says(schema: Any, name: str) -> None:
    def check(case: Any) -> None:
        if name in STRICT:
            unbroken(case, [KNOWN.negative_data_rejection])
        else:  # what is read leniently may be carried out
            made_modest(case.body, if_number=True)
            unbroken(case, [])

    tried(schema, name, GenerationMode.NEGATIVE, check)


@pytest.mark.parametrize(("path", "example"), EXAMPLES)
def test_every_example_of_the_document_works(described: House, path: str, example: str) -> None:
    body = examples(path)[example]["value"]

    answer = httpx2.post(f"{described.url}{path}", json=body, trust_env=False, timeout=PATIENCE_S)

    refers = "job:" in json.dumps(body)  # to a job of somebody else
    assert answer.status_code in ({404} if refers else {200, 202}), answer.text
