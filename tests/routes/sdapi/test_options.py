"""The choice of a model, and what there is to choose from."""

from typing import Any, cast

import httpx2
import pytest

from src.app import create_app
from src.models.catalog import Catalog
from src.models.modality import Modality
from src.models.ports import OfferedModel
from src.processor import Processor
from src.routes.sdapi.checkpoints import Checkpoints
from src.routes.sdapi.listings import EMPTY
from src.settings import Settings
from tests.routes.house import House, house
from tests.routes.sdapi.asking import SMALL, TXT2IMG, get, info, post
from tests.routes.sdapi.test_progress import ANN, BOB, KEYS
from tests.serving import serving

OPTIONS, MODELS, SAMPLERS = (f"/sdapi/v1/{name}" for name in ("options", "sd-models", "samplers"))


async def test_the_default_model_draws_until_another_is_chosen(shared_house: House) -> None:
    assert (await get(shared_house, OPTIONS))["sd_model_checkpoint"] == "sim-image"


async def test_a_choice_is_that_of_its_caller_alone(tmp_path: Any) -> None:
    (tmp_path / "chat.yaml").write_text("name: sim-vision\nmodality: [img2txt, txt2img]\n")
    with house(api_keys=KEYS, models_dir=tmp_path) as locked:
        chosen = {"sd_model_checkpoint": "sim-vision", "samples_format": "jpg", "eta": None}
        assert (await post(locked, OPTIONS, chosen, ANN)).json() == {}

        current = [(await get(locked, OPTIONS, who))["sd_model_checkpoint"] for who in (ANN, BOB)]
        named = {"override_settings": {"sd_model_checkpoint": "sim-image"}}
        by_name = await post(locked, TXT2IMG, {**SMALL, **named}, ANN)
        of_bob = await post(locked, TXT2IMG, SMALL, BOB)
        by_choice = await post(locked, TXT2IMG, SMALL, {**ANN, "Prefer": "respond-async"})

    assert current == ["sim-vision", "sim-image"]
    assert info(by_name)["sd_model_name"] == info(of_bob)["sd_model_name"] == "sim-image"
    assert by_choice.headers["x-model"] == "sim-vision"


@pytest.mark.parametrize("body", [{}, {"sd_model_checkpoint": None}, {"sd_model_checkpoint": " "}])
async def test_what_names_no_model_chooses_none(shared_house: House, body: dict[str, Any]) -> None:
    assert (await post(shared_house, OPTIONS, body)).json() == {}
    assert (await get(shared_house, OPTIONS))["sd_model_checkpoint"] == "sim-image"


@pytest.mark.parametrize("name", ["sim-imgae", "sim-chat"])
async def test_a_model_that_does_not_draw_is_refused(shared_house: House, name: str) -> None:
    response = await post(shared_house, OPTIONS, {"sd_model_checkpoint": name})

    assert response.status_code == 404
    assert "sim-image" in response.json()["error"]["hint"]
    assert (await get(shared_house, OPTIONS))["sd_model_checkpoint"] == "sim-image"


async def test_bad_options_are_refused_by_name(shared_house: House) -> None:
    response = await post(shared_house, OPTIONS, {"sd_model_checkpoint": 1})

    assert response.status_code == 400
    assert response.json()["error"]["param"] == "sd_model_checkpoint"


def test_only_so_many_choices_are_remembered() -> None:
    class Fake:
        catalog = Catalog([OfferedModel("fox", frozenset({Modality.TXT2IMG}))])

    checkpoints = Checkpoints(cast("Processor", Fake()))
    for number in range(1500):
        checkpoints.choose(str(number), "fox")

    remembered = [number for number in range(1500) if checkpoints.chosen(str(number))]
    assert remembered == list(range(500, 1500))


async def test_models_are_those_that_draw(shared_house: House) -> None:
    [model] = await get(shared_house, MODELS)

    assert model["title"] == model["model_name"] == model["filename"] == "sim-image"
    assert model["hash"] is model["sha256"] is model["config"] is None


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [("GET", MODELS, None), ("POST", OPTIONS, {"sd_model_checkpoint": "sim-image"})],
)
def test_before_a_backend_was_reached_nobody_knows(
    method: str, path: str, body: dict[str, str] | None
) -> None:
    app = create_app(Settings(localai_url="http://127.0.0.1:9", log_file=None, log_level="error"))
    with serving(app) as url:
        response = httpx2.request(method, f"{url}{path}", json=body, trust_env=False)

    assert response.status_code == 503
    assert response.json()["error"]["code"] == "backend_unseen"
    assert int(response.headers["retry-after"]) >= 1


async def test_one_sampler_is_named(shared_house: House) -> None:
    assert await get(shared_house, SAMPLERS) == [{"name": "Euler a", "aliases": [], "options": {}}]


async def test_of_the_rest_there_is_nothing(shared_house: House) -> None:
    for name, nothing in EMPTY.items():
        assert await get(shared_house, f"/sdapi/v1/{name}") == nothing
    assert (await post(shared_house, "/sdapi/v1/refresh-checkpoints")).json() == {}
