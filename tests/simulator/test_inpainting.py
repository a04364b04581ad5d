from io import BytesIO

import pytest
from PIL import Image

from src.simulator.client import ControlClient
from src.simulator.config import SimulatorConfig
from src.simulator.pictures import Wish, png
from src.simulator.serve import Simulator
from tests.simulator.form import post_form
from tests.simulator.raw import Answer, Raw

PATH = "/v1/images/inpainting"
FIELDS = {"model": "sim-image", "prompt": "snow"}


def plain(colour: str) -> bytes:
    file = BytesIO()
    Image.new("RGB", (512, 512), colour).save(file, "PNG")
    return file.getvalue()


def half() -> bytes:
    mask = Image.new("L", (512, 512))
    mask.paste(255, (256, 0, 512, 512))
    file = BytesIO()
    mask.save(file, "PNG")
    return file.getvalue()


FILES = {"image": plain("red"), "mask": half()}


def inpainted(raw: Raw, **fields: str) -> Answer:
    return post_form(raw, PATH, {**FIELDS, **fields}, FILES)


def test_the_address_in_the_answer_leads_nowhere(raw: Raw, control: ControlClient) -> None:
    answer = inpainted(raw)

    assert answer.status == 200
    body = answer.json
    assert list(body) == ["created", "id", "data"]
    assert list(body["data"][0]) == ["embedding", "index", "url"]
    path = "/" + body["data"][0]["url"].split("/", 3)[3]
    assert path.startswith("/generated-images/")
    assert raw.get(path).status == 404
    entry = control.requests()[-1]
    assert (entry.modality, entry.done) == ("inpaint", 25)


def test_steps_are_a_field_of_the_form(raw: Raw, control: ControlClient) -> None:
    inpainted(raw, steps="3")
    inpainted(raw, steps="many")

    assert [entry.done for entry in control.requests()] == [3, 25]


def test_if_configured_the_picture_is_new_where_the_mask_is_white() -> None:
    with Simulator(SimulatorConfig(speed=0, inpainting_files_served=True)) as simulator:
        raw = Raw(simulator)
        url = inpainted(raw).json["data"][0]["url"]
        served = raw.get("/" + url.split("/", 3)[3])

    picture = Image.open(BytesIO(served.body)).convert("RGB")
    assert picture.size == (512, 512)
    assert picture.getpixel((100, 200)) == (255, 0, 0)
    drawn = Image.open(BytesIO(png(Wish("snow", steps=25)))).convert("RGB")
    assert picture.getpixel((400, 200)) == drawn.getpixel((400, 200))


@pytest.mark.parametrize("missing", ["model", "prompt", "image", "mask"])
def test_a_missing_part_is_a_400_that_names_it(raw: Raw, missing: str) -> None:
    fields = {name: value for name, value in FIELDS.items() if name != missing}
    files = {name: value for name, value in FILES.items() if name != missing}

    answer = post_form(raw, PATH, fields, files)

    assert answer.status == 400
    assert missing in answer.json["error"]["message"]


def test_bytes_that_are_no_picture_are_the_backends_exception(raw: Raw) -> None:
    answer = post_form(raw, PATH, FIELDS, {**FILES, "mask": b"no picture"})

    assert answer.status == 500
    assert "cannot identify image file" in answer.json["error"]["message"]
