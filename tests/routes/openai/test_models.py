"""What may be asked for: OpenAI's list, and the one by texts and pictures."""

import time
from typing import Any

import httpx2
import pytest

from src.app import create_app
from src.settings import Settings
from src.simulator.config import ModelConfig, SimulatorConfig
from tests.routes.house import House, house
from tests.serving import serving


async def get(house: House, path: str) -> httpx2.Response:
    async with house.http() as http:
        return await http.get(path)


@pytest.mark.parametrize("path", ["/v1/models", "/models"])
async def test_the_models_are_listed_as_openai_lists_them(shared_house: House, path: str) -> None:
    response = await get(shared_house, path)

    body = response.json()
    models: dict[str, Any] = {model["id"]: model for model in body["data"]}
    assert (response.status_code, body["object"]) == (200, "list")
    assert {"sim-chat", "sim-vision", "sim-image", "sim-embed"} <= models.keys()
    assert 0 <= time.time() - models["sim-chat"].pop("created") < 3600
    assert models["sim-chat"] == {
        "id": "sim-chat",
        "object": "model",
        "owned_by": "localai",
        "modalities": ["txt2txt"],
    }


async def test_models_for_texts_and_for_pictures_are_told_apart(own_house: House) -> None:
    async with own_house.http() as http:
        await http.post("/v1/completions", json={"prompt": "a", "model": "sim-chat"})

    loaded = await own_house.until("/models", lambda body: body["text_models"][0]["loaded"])

    assert loaded["text_models"] == [
        {"name": "sim-chat", "type": "text", "loaded": True},
        {"name": "sim-vision", "type": "text", "loaded": False},
    ]
    assert loaded["image_models"] == [{"name": "sim-image", "type": "image", "loaded": False}]


async def test_a_model_is_found_by_its_name(shared_house: House) -> None:
    [listed] = [
        model
        for model in (await get(shared_house, "/v1/models")).json()["data"]
        if model["id"] == "sim-chat"
    ]

    for path in ("/v1/models/sim-chat", "/models/sim-chat"):
        assert (await get(shared_house, path)).json() == listed


async def test_a_name_may_have_slashes_in_it() -> None:
    models = {"vendor/model": ModelConfig(kind="chat", load_s=0, weights_gb=1)}
    with house(config=SimulatorConfig(speed=0, models=models)) as built:
        found = await get(built, "/v1/models/vendor/model")

    assert found.json()["id"] == "vendor/model"


@pytest.mark.parametrize(
    ("name", "shown", "hint"),
    [
        ("sim-chta", "sim-chta", "nearest names: sim-chat"),
        ("nothing/like/it", "nothing/like/it", "nearest names: loose-file, sim-chat, "),
        ("a%20b%22c", "there is no model", "nearest names: loose-file, sim-chat, "),
        ("x" * 300, "there is no model", "nearest names: loose-file, sim-chat, "),
    ],
)
async def test_a_model_that_is_not_there_is_not_found(
    shared_house: House, name: str, shown: str, hint: str
) -> None:
    response = await get(shared_house, f"/v1/models/{name}")

    error = response.json()["error"]
    assert response.status_code == 404
    assert (error["code"], error["param"]) == ("model_not_found", "model")
    assert error["message"].endswith(shown)
    assert error["hint"].startswith(hint)


@pytest.mark.parametrize(
    "path", ["/v1/models", "/v1/models/sim-chat", "/models", "/models/sim-chat"]
)
def test_before_a_backend_was_reached_nobody_knows(path: str) -> None:
    app = create_app(Settings(localai_url="http://127.0.0.1:9", log_file=None, log_level="error"))
    with serving(app) as url:
        response = httpx2.get(f"{url}{path}", trust_env=False)

    assert response.status_code == 503
    assert response.json()["error"]["code"] == "backend_unseen"
    assert int(response.headers["retry-after"]) >= 1
