"""Pictures from pictures, as the web UI's clients ask for them."""

import io
from collections.abc import Generator
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from src.simulator.config import SimulatorConfig
from tests.routes.house import CANARY, House, base64_of, house, png
from tests.routes.sdapi.asking import (
    IMG2IMG,
    SMALL,
    TXT2IMG,
    drawn,
    info,
    parameters,
    post,
)

TEAL = base64_of(png())
SNOW: dict[str, Any] = {"prompt": "make it snow", "steps": 1, "init_images": [TEAL]}


def left_half(colour: str, background: str) -> str:
    """Return a mask as large as the picture, its left half in one colour."""
    mask = PIL.Image.new("L", (64, 64), background)
    mask.paste(PIL.Image.new("L", (32, 64), colour), (0, 0))
    buffer = io.BytesIO()
    mask.save(buffer, "PNG")
    return base64_of(buffer.getvalue())


def halves(picture: PIL.Image.Image) -> tuple[bool, bool]:
    """Say of a picture that was all teal which halves are drawn anew; leave out its captions."""
    plain = picture.convert("RGB")
    boxes = ((60, 60, 200, 400), (312, 60, 452, 400))
    left, right = (plain.crop(box).getcolors(300_000) or [] for box in boxes)
    teal = [(140 * 340, (0, 128, 128))]
    return left != teal, right != teal


@pytest.fixture(scope="module")
def defined(tmp_path_factory: pytest.TempPathFactory) -> Generator[House]:
    """A server whose model draws parts of a picture anew and reads `strength`."""
    folder: Path = tmp_path_factory.mktemp("models")
    definition = "name: sim-image\nmodality: [txt2img, img2img, inpaint]\nstrength: true\n"
    (folder / "sim-image.yaml").write_text(definition, encoding="utf-8")
    kind = SimulatorConfig(speed=0, inpainting_files_served=True)
    with house(config=kind, models_dir=folder) as built:
        yield built


async def test_a_picture_is_changed(shared_house: House) -> None:
    body = {**SNOW, "width": 96, "height": 64, "seed": 7, "negative_prompt": "sun", "n_iter": 2}

    first, second = await drawn(shared_house, IMG2IMG, body)

    assert parameters(first).startswith("make it snow\nNegative prompt: sun\nSeed: 7, Steps: 1")
    assert "Seed: 8" in parameters(second)
    assert first.size == (96, 64)
    assert shared_house.sim.requests()[-1].modality == "img2img"


async def test_without_a_size_it_keeps_its_own(shared_house: House) -> None:
    source = {"init_images": [base64_of(png(96, 128))]}

    [picture] = await drawn(shared_house, IMG2IMG, {**SNOW, **source})

    assert picture.size == (96, 128)


async def test_a_picture_is_written_in_several_ways(shared_house: House) -> None:
    made = await post(shared_house, TXT2IMG, SMALL)
    reference = f"job:{made.headers['x-job-id']}/0"
    large = base64_of(png(1024, 1024))

    for source in (f"data:image/png;base64,{TEAL}", reference, large):
        assert await drawn(shared_house, IMG2IMG, {**SNOW, "init_images": [source]})


async def test_parameters_come_back_without_the_pictures(defined: House) -> None:
    sent = {**SNOW, "mask": left_half("white", "black"), "resize_mode": 1}

    response = await post(defined, IMG2IMG, sent)

    assert response.json()["parameters"] == {"prompt": "make it snow", "steps": 1, "resize_mode": 1}


async def test_the_strength_is_passed_on_only_where_it_is_read(
    shared_house: House, defined: House
) -> None:
    body = {**SNOW, "denoising_strength": 0.25}

    fixed, read = await post(shared_house, IMG2IMG, body), await post(defined, IMG2IMG, body)

    assert info(fixed)["ignored"] == ["denoising_strength"]
    assert info(fixed)["denoising_strength"] is None
    assert info(read)["ignored"] == []
    assert info(read)["denoising_strength"] == 0.25


@pytest.mark.parametrize(
    ("mask", "more"),
    [
        (left_half("white", "black"), {}),
        (left_half("white", "black"), {"inpainting_mask_invert": 0}),
        (left_half("black", "white"), {"inpainting_mask_invert": 1}),
    ],
)
async def test_with_a_mask_only_what_it_shows_is_drawn_anew(
    defined: House, mask: str, more: dict[str, Any]
) -> None:
    [picture] = await drawn(defined, IMG2IMG, {**SNOW, "mask": mask, "mask_blur": 4, **more})

    assert halves(picture) == (True, False)
    assert defined.sim.requests()[-1].modality == "inpaint"


async def test_what_has_no_effect_with_a_mask_is_named(defined: House) -> None:
    body = {**SNOW, "mask": left_half("white", "black"), "seed": 7, "width": 64}

    told = info(await post(defined, IMG2IMG, body))

    assert told["ignored"] == ["seed", "width"]
    assert told["seed"] == -1
    assert (told["width"], told["height"]) == (512, 512)  # LocalAI knows no other size


async def test_where_no_model_draws_parts_anew_another_way_is_named(shared_house: House) -> None:
    response = await post(shared_house, IMG2IMG, {**SNOW, "mask": left_half("white", "black")})

    assert response.status_code == 404
    assert "without a mask" in response.json()["error"]["hint"]


@pytest.mark.parametrize("mask", ["", None])
async def test_an_empty_mask_is_none(shared_house: House, mask: str | None) -> None:
    await drawn(shared_house, IMG2IMG, {**SNOW, "mask": mask})

    assert shared_house.sim.requests()[-1].modality != "inpaint"


async def test_who_says_nothing_gets_a_variation(defined: House) -> None:
    for mask in (None, left_half("white", "black")):
        body = {"steps": 1, "init_images": [TEAL], "mask": mask}
        told = info(await post(defined, IMG2IMG, body))
        assert told["prompt"] == "a variation of this picture"


async def test_no_strength_at_all_is_as_little_as_can_be(
    shared_house: House, defined: House
) -> None:
    body = {**SNOW, "denoising_strength": 0}

    fixed, read = await post(shared_house, IMG2IMG, body), await post(defined, IMG2IMG, body)

    assert info(fixed)["denoising_strength"] is None
    assert info(read)["denoising_strength"] == 0.01


WRONG = base64_of(CANARY.encode() * 100)

BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"init_images": []}, "init_images", "must not be empty"),
    ({"init_images": [TEAL, TEAL]}, "init_images", "at most 1"),
    ({"init_images": TEAL}, "init_images", "list"),
    ({"init_images": [WRONG]}, "init_images", "not a PNG"),
    ({"init_images": ["*" * 1000]}, "init_images", "not valid base64"),
    ({"init_images": ["https://example.com/" + "x" * 1000]}, "init_images", "an address"),
    ({"denoising_strength": 1.5}, "denoising_strength", "less than or equal to 1"),
    ({"inpainting_mask_invert": 2}, "inpainting_mask_invert", "less than or equal to 1"),
    ({"mask": WRONG}, "mask", "not a PNG"),
    ({"mask": WRONG, "inpainting_mask_invert": 1}, "mask", "not a PNG"),
    ({"mask": base64_of(png()[:80]), "inpainting_mask_invert": 1}, "mask", "damaged"),
    ({"mask": base64_of(png(32, 32, "white"))}, "mask", "32x32 pixels"),
    ({"mask": base64_of(png(64, 64, "black"))}, "mask", "nothing white"),
    ({"mask": base64_of(png(64, 64, "white")), "n_iter": 2}, "batch_size", "must be 1"),
]


@pytest.mark.parametrize(("more", "param", "words"), BAD)
async def test_bad_input_is_refused_by_name(
    defined: House, more: dict[str, Any], param: str, words: str
) -> None:
    response = await post(defined, IMG2IMG, {**SNOW, "prompt": CANARY, **more})

    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, param), error
    assert words in error["message"]
    assert CANARY not in response.text
