import base64
from io import BytesIO

import pytest
from PIL import Image

from src.simulator.client import ControlClient
from src.simulator.pictures import Wish, png
from tests.simulator.raw import Answer, Raw, hang_up, image_body, read_all

FOX = png(Wish("a red fox", width=64, height=64, seed=1))


def picture_in(answer: Answer) -> Image.Image:
    data = base64.b64decode(answer.json["data"][0]["b64_json"])
    return Image.open(BytesIO(data))


def plain(picture: bytes) -> str:
    return base64.b64encode(picture).decode()


def test_an_answer_has_localais_shape(raw: Raw) -> None:
    answer = raw.image("a red fox")

    assert answer.status == 200
    body = answer.json
    assert list(body) == ["created", "id", "data", "usage"]
    assert list(body["data"][0]) == ["embedding", "index", "b64_json"]
    assert body["data"][0]["embedding"] is None
    assert body["usage"]["input_tokens_details"] == {"text_tokens": 0, "image_tokens": 0}
    assert picture_in(answer).size == (64, 64)


def test_an_address_names_the_host_the_client_has_used(raw: Raw) -> None:
    url = raw.image("fox", response_format="url").json["data"][0]["url"]
    forwarded = raw.post(
        "/v1/images/generations",
        image_body("fox", response_format="anything"),
        X_Forwarded_Host="outside.example",
        X_Forwarded_Proto="https",
    )

    path = url.partition("127.0.0.1:")[2].partition("/")[2]
    fetched = raw.get(f"/{path}")
    assert fetched.headers["content-type"] == "image/png"
    assert fetched.body == png(Wish("fox", width=64, height=64, seed=7))
    elsewhere = forwarded.json["data"][0]["url"]
    assert elsewhere.startswith("https://outside.example/generated-images/")
    assert raw.get("/generated-images/b649999.png").status == 404


def test_the_same_request_gives_the_same_bytes_and_another_seed_others(raw: Raw) -> None:
    first, again, other = raw.image("fox"), raw.image("fox"), raw.image("fox", seed=8)

    assert first.json["data"] == again.json["data"]
    assert first.json["data"] != other.json["data"]


def test_what_follows_the_bar_is_the_negative_prompt(raw: Raw) -> None:
    notes = picture_in(raw.image("a fox|blurry|more", negative_prompt="ignored")).info

    assert notes["parameters"].startswith("a fox\nNegative prompt: blurry\n")


@pytest.mark.parametrize(
    ("size", "expected"),
    [("64x32", (64, 32)), ("auto", (512, 512)), ("64X32", (512, 512)), ("333x77", (333, 77))],
)
def test_a_size_without_an_x_is_the_default_one(
    raw: Raw, size: str, expected: tuple[int, int]
) -> None:
    assert picture_in(raw.image("fox", size=size)).size == expected


@pytest.mark.parametrize("size", ["axb", "64x", "x", "1x2x3", "-64x64"])
def test_a_size_that_is_none_is_a_500(raw: Raw, size: str) -> None:
    answer = raw.image("fox", size=size)

    assert answer.status == 500
    assert answer.json["error"]["message"] == "invalid value for 'size'"


def test_a_picture_may_be_too_small_or_too_large_for_the_card(raw: Raw) -> None:
    assert raw.image("fox", size="1x1").status == 500

    too_large = raw.image("fox", size="4096x4096")

    assert too_large.status == 500
    assert "out of memory" in too_large.json["error"]["message"]


@pytest.mark.parametrize(
    ("fields", "steps"),
    [
        ({}, 15),
        ({"step": 4, "quality": "9"}, 4),
        ({"quality": "9"}, 9),
        ({"quality": "hd"}, 15),
    ],
)
def test_steps_are_looked_for_in_step_then_quality(
    raw: Raw, control: ControlClient, fields: dict[str, object], steps: int
) -> None:
    notes = picture_in(raw.image("fox", **fields)).info

    assert f"Steps: {steps}," in notes["parameters"]
    assert control.requests()[-1].done == steps


def test_no_prompt_gives_no_data(raw: Raw) -> None:
    answer = raw.post("/v1/images/generations", {"model": "sim-image"})

    assert answer.status == 200
    assert "data" not in answer.json


def test_several_pictures_come_in_one_answer_and_all_have_index_0(raw: Raw) -> None:
    body = {"model": "sim-image", "prompt": ["fox", "owl"], "n": 2, "size": "32x32"}

    data = raw.post("/v1/images/generations", {**body, "response_format": "b64_json"}).json["data"]

    assert [item["index"] for item in data] == [0, 0, 0, 0]
    assert len({item["b64_json"] for item in data}) == 4


@pytest.mark.parametrize("field", ["file", "files", "ref_images"])
def test_plain_base64_is_the_source_of_the_picture(
    raw: Raw, control: ControlClient, field: str
) -> None:
    source = plain(FOX) if field == "file" else [plain(FOX)]

    changed, drawn = raw.image("snow", **{field: source}), raw.image("snow")

    assert changed.json["data"] != drawn.json["data"]
    assert control.requests()[0].modality == "img2img"


@pytest.mark.parametrize("prefix", ["data:image/png;base64,", "https://host.example/", "%"])
def test_any_other_source_is_dropped_without_a_word(
    raw: Raw, control: ControlClient, prefix: str
) -> None:
    dropped, drawn = raw.image("snow", file=prefix + plain(FOX)), raw.image("snow")

    assert dropped.status == 200
    assert dropped.json["data"] == drawn.json["data"]
    assert control.requests()[0].modality == "txt2img"


def test_base64_that_is_no_picture_is_the_backends_exception(raw: Raw) -> None:
    answer = raw.image("snow", file=plain(b"no picture"))

    assert answer.status == 500
    assert "cannot identify image file" in answer.json["error"]["message"]


def test_work_on_a_picture_goes_on_without_its_client_and_keeps_the_slot(
    raw: Raw, control: ControlClient
) -> None:
    control.hold()
    left = raw.open_image("a red fox")
    control.wait(state="started")
    waiting = raw.open_image("an owl")
    control.wait(state="waiting")

    hang_up(left)

    entry = control.wait(state="ended")[0]
    assert (entry.ending, entry.worked_on, entry.settled) == ("client_left", True, None)
    assert control.state().models["sim-image"].waiting == 1
    control.release()
    first, second = control.wait(state="settled", count=2)
    assert first.done == 15
    assert first.settled is not None
    assert second.started is not None
    assert second.started >= first.settled
    waiting.close()


def test_two_pictures_are_never_drawn_at_once(raw: Raw, control: ControlClient) -> None:
    connections = [raw.open_image(f"fox {number}", size="16x16") for number in range(4)]

    control.wait(state="ended", count=4)

    assert control.summary().most_at_once == {"sim-image": 1}
    for connection in connections:
        connection.close()


def test_pictures_are_compressed_when_the_client_accepts_it(raw: Raw) -> None:
    connection = raw.open(
        "/v1/images/generations",
        image_body("fox", size="128x128"),
        Accept_Encoding="gzip",
        Connection="close",
    )

    head, _, body = read_all(connection).partition(b"\r\n\r\n")

    assert b"content-encoding: gzip" in head
    assert body.startswith(b"\x1f\x8b")
