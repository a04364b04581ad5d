"""The client of the Stable Diffusion web UI, whose `sdapi` the manager speaks."""

from collections.abc import Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import PIL.Image
import pytest
from webuiapi import WebUIApi  # type: ignore[import-untyped]

from tests.routes.house import House


@pytest.fixture
def api(house: House) -> Generator[Any]:
    made: Any = WebUIApi(baseurl=f"{house.url}/sdapi/v1", sampler="Euler a", steps=3)
    yield made
    made.session.close()


def parameters(picture: PIL.Image.Image) -> str:
    return str(picture.info["parameters"])


def test_txt2img(api: Any) -> None:
    result = api.txt2img(
        prompt="a red fox", negative_prompt="birds", seed=7, width=128, height=96, cfg_scale=7
    )

    assert result.image.size == (128, 96)
    assert "a red fox" in parameters(result.image)
    assert result.info["seed"] == 7
    assert result.info["prompt"] == "a red fox"
    assert result.info["negative_prompt"] == "birds"
    assert (result.info["width"], result.info["height"]) == (128, 96)
    assert result.parameters["prompt"] == "a red fox"


def test_txt2img_without_a_prompt_draws_anything(api: Any) -> None:
    assert api.txt2img(width=64, height=64).image.size == (64, 64)


def test_txt2img_without_a_seed_tells_which_was_taken(api: Any) -> None:
    result = api.txt2img(prompt="a red fox", width=128, height=128)
    again = api.txt2img(prompt="a red fox", width=128, height=128, seed=result.info["seed"])

    assert result.info["seed"] >= 0
    assert again.image.tobytes() == result.image.tobytes()


def test_txt2img_draws_batches(api: Any) -> None:
    result = api.txt2img(prompt="a red fox", width=128, height=128, batch_size=2, n_iter=2, seed=7)

    assert len(result.images) == 4
    assert result.info["all_seeds"] == [7, 8, 9, 10]
    assert len({picture.tobytes() for picture in result.images}) == 4


def test_img2img(api: Any) -> None:
    result = api.img2img(
        images=[PIL.Image.new("RGB", (128, 128), "teal")],
        prompt="make it snow",
        width=128,
        height=128,
        denoising_strength=0.5,
    )

    assert result.image.size == (128, 128)
    assert "make it snow" in parameters(result.image)


def test_img2img_with_a_mask(api: Any) -> None:
    mask = PIL.Image.new("L", (512, 512), "black")
    mask.paste(255, (0, 0, 256, 512))

    result = api.img2img(
        images=[PIL.Image.new("RGB", (512, 512), "teal")], mask_image=mask, prompt="a red fox"
    )

    picture = result.image.convert("RGB")
    kept = picture.crop((300, 50, 500, 400)).getcolors()
    assert [colour for _, colour in kept] == [(0, 128, 128)]
    assert len(picture.crop((50, 50, 200, 400)).getcolors(200_000)) > 1


def test_options_name_the_model_and_choose_it(api: Any) -> None:
    assert api.util_get_current_model() == "sim-image"

    api.set_options({"sd_model_checkpoint": "sim-image"})

    assert api.get_options()["sd_model_checkpoint"] == "sim-image"


def test_models_and_samplers_are_listed(api: Any) -> None:
    [model] = api.get_sd_models()

    assert model["title"] == model["model_name"] == "sim-image"
    assert api.util_get_model_names() == ["sim-image"]
    assert all(isinstance(it["name"], str) and "aliases" in it for it in api.get_samplers())
    assert "Euler a" in api.util_get_sampler_names()


def test_progress_tells_of_nothing_when_nothing_is_drawn(api: Any) -> None:
    progress = api.get_progress()

    assert progress["progress"] == 0
    assert progress["eta_relative"] == 0
    assert progress["state"]["job_count"] == 0


async def test_interrupt_ends_what_is_drawn(api: Any, house: House) -> None:
    house.sim.hold()
    with ThreadPoolExecutor() as threads:
        drawing = threads.submit(api.txt2img, prompt="a red fox", width=128, height=128)
        await house.running("txt2img")
        progress = api.get_progress()
        api.interrupt()
        outcome = drawing.exception(timeout=10)

    assert progress["state"]["job_count"] == 1
    assert 0 <= progress["progress"] < 1
    assert isinstance(outcome, RuntimeError)


def test_an_unknown_model_is_an_error_that_names_the_nearest(api: Any) -> None:
    with pytest.raises(RuntimeError, match="sim-image") as caught:
        api.txt2img(
            prompt="a red fox",
            width=128,
            height=128,
            override_settings={"sd_model_checkpoint": "sim-imgae"},
        )

    assert caught.value.args[0] == 404


def test_scripts_are_none(api: Any) -> None:
    """The client asks for them first of all, and leaves out extensions that are not there."""
    scripts: Mapping[str, Any] = {
        name: getattr(api, name) for name in ("has_controlnet", "has_adetailer", "has_animatediff")
    }

    assert not any(scripts.values())
