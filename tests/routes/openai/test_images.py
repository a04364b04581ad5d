"""OpenAI's pictures: what is asked for, what is answered, and what stands in between."""

import asyncio
import base64
import io
import os
import time
import tracemalloc
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import PIL.Image
import pytest
from fastapi import FastAPI
from openai.types import ImagesResponse
from starlette.types import Message

from src.models.metrics import ErrorLog, RequestMetrics
from src.models.requests import InferenceRequest
from src.models.results import Chunk, Finish, Image
from src.routes import errors
from src.routes.doors import Manner
from src.routes.openai import images
from src.routes.openai.images_body import VARIATION
from src.routes.tools import Tools
from src.sharing import Sharing
from src.simulator.config import SimulatorConfig
from src.utils.blobs import FileBlobs
from tests.managing import processor_for
from tests.routes.house import CANARY, House, base64_of, house, png
from tests.routes.test_contents import Caller, Ready

MIB = 2**20
SMALL = {"prompt": "a red fox", "size": "64x64", "steps": 1}
FOX = {"image": ("fox.png", png(), "image/png")}
GENERATIONS, EDITS, VARIATIONS = (
    f"/v1/images/{name}" for name in ("generations", "edits", "variations")
)

Files = Any


async def post(
    house: House,
    path: str,
    body: Mapping[str, Any],
    files: Files = None,
    headers: Mapping[str, str] | None = None,
) -> httpx2.Response:
    """Post a form if there are files, else JSON."""
    async with house.http() as http:
        if files is None:
            return await http.post(path, json=body, headers=headers)
        return await http.post(path, data=body, files=files, headers=headers)


async def inside(
    house: House, path: str, body: Mapping[str, Any], files: Files = None
) -> list[PIL.Image.Image]:
    """Return the pictures that an answer holds."""
    response = await post(house, path, {**body, "response_format": "b64_json"}, files)
    assert response.status_code == 200, response.text
    data = [base64.b64decode(item["b64_json"]) for item in response.json()["data"]]
    return [PIL.Image.open(io.BytesIO(each)) for each in data]


def parameters(picture: PIL.Image.Image) -> str:
    return str(picture.info["parameters"])


def modality(house: House) -> str | None:
    """Return what the backend was asked for last."""
    return house.sim.requests()[-1].modality


def encoded(picture: PIL.Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def clear_left(colour: Any = (0, 0, 0), opaque: int = 255) -> bytes:
    """Return a mask whose left half is transparent."""
    picture = PIL.Image.new("RGBA", (64, 64), (*colour, opaque))
    picture.paste((*colour, 0), (0, 0, 32, 64))
    return encoded(picture)


def white_left(mode: str = "RGB") -> bytes:
    """Return a mask whose left half is white, as LocalAI wants it."""
    picture = PIL.Image.new(mode, (64, 64), "black")
    picture.paste("white", (0, 0, 32, 64))
    return encoded(picture)


@pytest.fixture(scope="module")
def inpainting(tmp_path_factory: pytest.TempPathFactory) -> Generator[House]:
    """A server that knows who can draw a part of a picture anew."""
    folder: Path = tmp_path_factory.mktemp("models")
    definition = "name: sim-image\nmodality: [txt2img, img2img, inpaint]\n"
    (folder / "sim-image.yaml").write_text(definition, encoding="utf-8")
    kind = SimulatorConfig(speed=0, inpainting_files_served=True)
    with house(config=kind, models_dir=folder) as built:
        yield built


# The answer


async def test_a_picture_is_an_address_that_needs_no_key() -> None:
    key = "a-key-of-some-length-0123456789"
    with house(api_keys={"me": key}) as locked:
        mine = {"Authorization": f"Bearer {key}"}
        response = await post(locked, GENERATIONS, SMALL, headers=mine)
        [item] = response.json()["data"]
        async with locked.http() as http:
            fetched = await http.get(item["url"])
            bare = await http.get(item["url"].partition("?")[0])

    assert item.keys() == {"url"}
    assert item["url"].startswith(f"{locked.url}/images/{response.headers['x-job-id']}/0?until=")
    assert PIL.Image.open(io.BytesIO(fetched.content)).size == (64, 64)
    assert bare.status_code == 401


async def test_the_answer_is_what_openai_s_client_reads(shared_house: House) -> None:
    before = int(time.time())
    response = await post(shared_house, GENERATIONS, {**SMALL, "n": 2})

    body = ImagesResponse.model_validate(response.json(), strict=True)
    assert response.json().keys() == {"created", "data"}
    assert before <= body.created <= time.time()
    assert len(body.data or []) == 2
    assert response.headers["x-model"] == "sim-image"


@pytest.mark.parametrize("count", [1, 3])
async def test_the_pictures_themselves_are_written_byte_for_byte(
    shared_house: House, count: int
) -> None:
    body = {**SMALL, "n": count, "response_format": "b64_json"}
    response = await post(shared_house, GENERATIONS, body)

    shown, job_id = response.json(), response.headers["x-job-id"]
    async with shared_house.http() as http:
        data = [(await http.get(f"/images/{job_id}/{index}")).content for index in range(count)]
    items = ",".join(f'{{"b64_json":"{base64_of(each)}"}}' for each in data)
    assert response.text == f'{{"created":{shown["created"]},"data":[{items}]}}'
    assert response.headers["content-type"] == "application/json"
    assert response.headers["content-length"] == str(len(response.content))
    assert float(response.headers["x-queue-wait"]) >= 0


async def test_the_paths_without_v1_are_the_same(shared_house: House) -> None:
    drawn = await post(shared_house, "/images/generations", SMALL)
    edited = await post(shared_house, "/images/edits", {"prompt": "snow"}, FOX)
    varied = await post(shared_house, "/images/variations", {"size": "64x64"}, FOX)

    assert [drawn.status_code, edited.status_code, varied.status_code] == [200] * 3


@asynccontextmanager
async def serving(
    backend: Ready, blobs: FileBlobs | None = None, *, send_s: float = 60.0
) -> AsyncGenerator[FastAPI]:
    """Serve the doors in front of a backend."""
    blobs = blobs or FileBlobs()
    processor = processor_for([backend], blobs=blobs)
    sharing = Sharing(processor, blobs, merge=False, cache_bytes=0)
    tools = Tools(processor, sharing, RequestMetrics(), ErrorLog(), clock=time.time, blobs=blobs)
    app = FastAPI()
    errors.install(app)
    app.router.routes.extend(images.build(tools, Manner(send_s=send_s)))
    async with processor.running():
        yield app
    await blobs.close()


@asynccontextmanager
async def ready(data: int, *, send_s: float = 60.0) -> AsyncGenerator[FastAPI]:
    """Serve the doors in front of a backend that makes a picture of so many bytes."""
    blobs = FileBlobs()
    picture = Image(await blobs.keep(bytes(data)), "image/png", 16, 16)
    async with serving(Ready([picture]), blobs, send_s=send_s) as app:
        yield app


async def test_no_more_than_a_piece_of_a_picture_is_ever_held() -> None:
    async with ready(20 * MIB) as app:
        caller = Caller({"prompt": "x", "response_format": "b64_json"}, keeps=False)
        tracemalloc.start()
        try:
            await caller(app, GENERATIONS)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

    assert caller.complete
    assert int(caller.headers[b"content-length"]) > 26 * MIB
    assert b"x-job-id" in caller.headers
    assert caller.longest < MIB
    assert peak < 4 * MIB


async def test_a_caller_that_stops_taking_a_picture_is_cut_off() -> None:
    async with ready(5 * MIB, send_s=0.05) as app:
        caller = Caller({"prompt": "x", "response_format": "b64_json"}, takes=3)
        await caller(app, GENERATIONS)

    assert caller.messages == 3
    assert not caller.complete


# Drawing


async def test_all_that_localai_draws_by_is_handed_on(shared_house: House) -> None:
    body = {"prompt": "a red fox", "size": "96x64", "steps": 3, "seed": 7}

    [picture] = await inside(shared_house, GENERATIONS, {**body, "negative_prompt": "birds"})

    assert parameters(picture) == (
        "a red fox\nNegative prompt: birds\nSeed: 7, Steps: 3, Size: 96x64"
    )


@pytest.mark.parametrize("steps", [{"step": 3}, {"quality": "3"}, {"quality": 3}])
async def test_the_steps_may_be_written_as_localai_has_them(
    shared_house: House, steps: dict[str, Any]
) -> None:
    [picture] = await inside(shared_house, GENERATIONS, {"prompt": "x", "size": "64x64", **steps})

    assert "Steps: 3" in parameters(picture)


@pytest.mark.parametrize(
    ("prompt", "more", "drawn"),
    [
        ("a fox|birds", {}, "a fox\nNegative prompt: birds\n"),
        ("a fox|birds|cats", {}, "a fox\nNegative prompt: birds,cats\n"),
        ("a fox|birds", {"negative_prompt": "cats"}, "a fox,birds\nNegative prompt: cats\n"),
        ("a fox|", {}, "a fox,\nNegative prompt: \n"),
        ("|birds", {}, ",birds\nNegative prompt: \n"),
    ],
)
async def test_what_not_to_show_may_stand_behind_a_bar_as_localai_has_it(
    shared_house: House, prompt: str, more: dict[str, str], drawn: str
) -> None:
    body = {**SMALL, "prompt": prompt, **more}

    [picture] = await inside(shared_house, GENERATIONS, body)

    assert parameters(picture).startswith(drawn)


@pytest.mark.parametrize("seed", [-1, None])
async def test_a_seed_that_is_none_leaves_the_choice_to_the_backend(
    shared_house: House, seed: int | None
) -> None:
    pictures = [
        (await inside(shared_house, GENERATIONS, {**SMALL, "seed": seed}))[0] for _ in range(2)
    ]

    assert parameters(pictures[0]) != parameters(pictures[1])


async def test_without_a_size_a_picture_has_the_usual_one(shared_house: House) -> None:
    sizes = [
        (await inside(shared_house, GENERATIONS, {"prompt": "x", "steps": 1, **more}))[0].size
        for more in ({}, {"size": "auto"}, {"size": None})
    ]

    assert sizes == [(512, 512)] * 3


async def test_what_only_openai_s_models_know_is_accepted(shared_house: House) -> None:
    theirs = {
        "quality": "high",
        "style": "vivid",
        "background": "auto",
        "output_format": "png",
        "output_compression": 100,
        "moderation": "low",
        "user": "u",
        "stream": False,
        "partial_images": 0,
        "strict": True,
    }

    assert (await post(shared_house, GENERATIONS, {**SMALL, **theirs})).status_code == 200


@pytest.mark.parametrize("name", ["file", "files"])
async def test_a_picture_in_the_body_is_changed_as_by_localai(own_house: House, name: str) -> None:
    source = base64_of(png(color="teal"))
    body = {**SMALL, name: [source] if name == "files" else source}

    assert (await post(own_house, GENERATIONS, body)).status_code == 200
    assert modality(own_house) == "img2img"


BAD: list[tuple[dict[str, Any], str, str]] = [
    ({}, "prompt", "required"),
    ({"prompt": "  "}, "prompt", "must not be empty"),
    ({"prompt": [CANARY]}, "prompt", "string"),
    ({"prompt": CANARY, "n": 11}, "n", "1 to 10"),
    ({"prompt": CANARY, "n": "1"}, "n", "integer"),
    ({"prompt": CANARY, "size": CANARY}, "size", "WIDTHxHEIGHT"),
    ({"prompt": CANARY, "size": "8x64"}, "size", "16 to 4,096"),
    ({"prompt": CANARY, "size": "64x99999"}, "size", "16 to 4,096"),
    ({"prompt": CANARY, "size": "4096x4096"}, "size", "16,000,000"),
    ({"prompt": CANARY, "size": "512\u00d7512"}, "size", "WIDTHxHEIGHT"),
    ({"prompt": CANARY, "steps": 0}, "steps", "1 to 150"),
    ({"prompt": CANARY, "quality": "151"}, "quality", "1 to 150"),
    ({"prompt": CANARY, "response_format": CANARY}, "response_format", "'url' or 'b64_json'"),
    ({"prompt": CANARY, "stream": True}, "stream", "not streamed"),
    ({"prompt": CANARY, "partial_images": 2}, "partial_images", "0"),
    ({"prompt": CANARY, "negative_prompt": "a|b"}, "negative_prompt", "|"),
    ({"prompt": CANARY, "seed": 1.5}, "seed", "integer"),
    ({"prompt": CANARY, "ref_images": ["x"]}, "ref_images", "at most 0"),
    ({"prompt": CANARY, "files": ["x", "y"]}, "files", "at most 1"),
    ({"prompt": CANARY, "file": CANARY}, "image", "not a PNG"),
    ({"prompt": CANARY, "colour": "x", "strict": True}, "colour", "understood by nobody"),
]


@pytest.mark.parametrize(("body", "param", "words"), BAD)
async def test_bad_input_is_refused_by_name(
    shared_house: House, body: dict[str, Any], param: str, words: str
) -> None:
    response = await post(shared_house, GENERATIONS, body)

    error = response.json()["error"]
    assert response.status_code == 400
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert words in error["message"]
    assert CANARY not in response.text


# Editing


async def test_without_a_mask_the_whole_picture_is_changed(own_house: House) -> None:
    body = {"prompt": "make it snow", "steps": "2", "seed": "7", "n": "2"}

    first, second = await inside(own_house, EDITS, body, FOX)

    assert modality(own_house) == "img2img"
    assert first.size == (64, 64)  # as the picture is
    assert parameters(first).startswith("make it snow\n")
    assert "Seed: 7, Steps: 2" in parameters(first)
    assert "Seed: 8, Steps: 2" in parameters(second)


@pytest.mark.parametrize("name", ["image", "image[]"])
async def test_a_picture_comes_under_either_name(shared_house: House, name: str) -> None:
    files = {name: ("fox.png", png(), "image/png")}

    assert len(await inside(shared_house, EDITS, {"prompt": "snow"}, files)) == 1


async def test_a_picture_may_come_in_json(shared_house: House) -> None:
    made = await post(shared_house, GENERATIONS, SMALL)
    uri = f"data:image/png;base64,{base64_of(png(96, 64))}"

    for url, size in ((uri, (96, 64)), (made.json()["data"][0]["url"], (64, 64))):
        body = {"prompt": "snow", "images": [{"image_url": url}]}
        assert [picture.size for picture in await inside(shared_house, EDITS, body)] == [size]


def halves(picture: PIL.Image.Image) -> tuple[bool, bool]:
    """Say of a picture that was all teal which halves are drawn anew; leave out its captions."""
    plain = picture.convert("RGB")
    boxes = ((60, 60, 200, 400), (312, 60, 452, 400))
    left, right = (plain.crop(box).getcolors(300_000) or [] for box in boxes)
    teal = [(140 * 340, (0, 128, 128))]
    return left != teal, right != teal


MASKS = {
    "transparent": clear_left(),
    "transparent in white": clear_left((255, 255, 255)),
    "not quite opaque elsewhere": clear_left(opaque=200),
    "as LocalAI's": white_left(),
    "as LocalAI's, opaque": white_left("RGBA"),
}


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
async def test_with_a_mask_only_what_it_shows_is_drawn_anew(inpainting: House, mask: bytes) -> None:
    files = {**FOX, "mask": ("mask.png", mask, "image/png")}
    uri = f"data:image/png;base64,{base64_of(mask)}"
    body = {
        "prompt": "a red fox",
        "images": [{"image_url": base64_of(png())}],
        "mask": {"image_url": uri},
    }

    [by_form] = await inside(inpainting, EDITS, {"prompt": "a red fox", "steps": "2"}, files)
    [by_json] = await inside(inpainting, EDITS, body)

    assert halves(by_form) == halves(by_json) == (True, False)
    assert "Steps: 2" in parameters(by_form)
    assert modality(inpainting) == "inpaint"


async def test_where_no_model_draws_parts_anew_another_way_is_named(shared_house: House) -> None:
    files = {**FOX, "mask": ("mask.png", clear_left(), "image/png")}

    for model in ({}, {"model": "sim-image"}):
        response = await post(shared_house, EDITS, {"prompt": "x", **model}, files)
        assert response.status_code == 404
        assert "without a mask" in response.json()["error"]["hint"]
        assert "img2img" in response.json()["error"]["hint"]


def form(**files: bytes) -> dict[str, Any]:
    return {name: (f"{name}.png", data, "image/png") for name, data in files.items()}


TWO = [("image[]", ("1.png", png(), "image/png")), ("image[]", ("2.png", png(), "image/png"))]
WRONG = CANARY.encode()

BAD_FORMS: list[tuple[dict[str, str], Any, str, str]] = [
    ({}, FOX, "prompt", "required"),
    ({"prompt": " "}, FOX, "prompt", "must not be empty"),
    ({"prompt": ""}, FOX, "prompt", "required"),
    ({"prompt": CANARY, "n": "11"}, FOX, "n", "1 to 10"),
    ({"prompt": CANARY, "n": "two"}, FOX, "n", "integer"),
    ({"prompt": CANARY, "stream": "true"}, FOX, "stream", "not streamed"),
    ({"prompt": CANARY, "strength": "0.5"}, FOX, "strength", "fixed strength"),
    ({"prompt": CANARY}, form(other=png()), "image", "as a file"),
    ({"prompt": CANARY}, TWO, "image", "join them into one first"),
    ({"prompt": CANARY}, form(image=b""), "image", "not a PNG"),
    ({"prompt": CANARY}, form(image=WRONG), "image", "not a PNG"),
    ({"prompt": CANARY}, form(image=png(8, 8)), "image", "16 to 4096"),
    ({"prompt": CANARY}, form(image=bytes(21 * MIB)), "image", "20 MiB"),
    ({"prompt": CANARY}, form(image=png(), mask=WRONG), "mask", "not a PNG"),
    ({"prompt": CANARY}, form(image=png(), mask=png(32, 32)), "mask", "32x32"),
    ({"prompt": CANARY}, form(image=png(), mask=png(color="black")), "mask", "nothing white"),
    ({"prompt": CANARY, "n": "2"}, form(image=png(), mask=png(color="white")), "n", "must be 1"),
    ({"prompt": CANARY, "colour": "x", "strict": "true"}, FOX, "colour", "by nobody"),
]


@pytest.mark.parametrize(("body", "files", "param", "words"), BAD_FORMS)
async def test_a_bad_form_is_refused_by_name(
    inpainting: House, body: dict[str, str], files: Any, param: str, words: str
) -> None:
    response = await post(inpainting, EDITS, body, files)

    error = response.json()["error"]
    assert response.status_code == 400
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert words in error["message"]
    assert CANARY not in response.text


BAD_JSON: list[tuple[dict[str, Any], str]] = [
    ({}, "images"),
    ({"images": []}, "images"),
    ({"images": [{"image_url": "x"}, {"image_url": "x"}]}, "images"),
    ({"images": [{"file_id": "x"}]}, "images.0.image_url"),
    ({"images": [{"image_url": "https://example.com/fox.png"}]}, "image"),
    ({"images": [{"image_url": base64_of(png())}], "mask": {"image_url": "job:x"}}, "mask"),
]


@pytest.mark.parametrize(("body", "param"), BAD_JSON)
async def test_bad_json_is_refused_by_name(
    shared_house: House, body: dict[str, Any], param: str
) -> None:
    response = await post(shared_house, EDITS, {"prompt": "x", **body})

    assert response.status_code == 400
    assert response.json()["error"]["param"] == param


async def test_who_shows_several_pictures_is_told_why_not_and_what_to_do(
    shared_house: House,
) -> None:
    body = {"prompt": "x", "images": [{"image_url": base64_of(png())}] * 2}

    response = await post(shared_house, EDITS, body)

    assert response.json()["error"]["message"] == (
        "images must hold one picture "
        "(the backend takes one picture: send one, or join them into one first)"
    )


async def test_a_broken_form_is_refused(shared_house: House) -> None:
    kinds = {"multipart/form-data": 400, "multipart/form-data; boundary=x": 400, "text/plain": 415}
    async with shared_house.http() as http:
        for path in (EDITS, VARIATIONS):
            for kind, status in kinds.items():
                response = await http.post(path, content=b"x", headers={"Content-Type": kind})
                assert response.status_code == status, (path, kind)


class Held(Ready):
    """A backend that never answers, and says when it was asked."""

    def __init__(self) -> None:
        super().__init__([])
        self.asked = asyncio.Event()

    async def run(
        self, request: InferenceRequest, model: str, job_id: str
    ) -> AsyncGenerator[Chunk]:
        del request, model, job_id
        self.asked.set()
        await asyncio.Event().wait()
        yield Finish()


async def test_a_job_that_waits_holds_nothing_of_its_form() -> None:
    noise = PIL.Image.frombytes("RGB", (1000, 1000), os.urandom(3_000_000))
    sent = httpx2.Request(
        "POST", "http://localhost", data={"prompt": "x"}, files=form(image=encoded(noise))
    )
    body = sent.read()
    pieces = [body[at : at + 65_536] for at in range(0, len(body), 65_536)]
    scope: dict[str, Any] = {
        "type": "http",
        "method": "POST",
        "path": EDITS,
        "query_string": b"",
        "headers": [
            (b"host", b"localhost"),
            (b"content-type", sent.headers["content-type"].encode()),
        ],
    }

    async def receive() -> Message:
        if not pieces:
            await asyncio.Future()
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    async def send(_: Message) -> None:
        pass

    backend = Held()
    async with serving(backend) as app, asyncio.timeout(30):
        tracemalloc.start()
        call = asyncio.create_task(app(scope, receive, send))
        try:
            await backend.asked.wait()
            held, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
            call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    assert peak > len(body) > 3_000_000
    assert held < MIB


async def test_a_form_may_become_a_job(own_house: House) -> None:
    own_house.sim.hold()

    response = await post(
        own_house, EDITS, {"prompt": "x"}, FOX, headers={"Prefer": "respond-async"}
    )

    assert response.status_code == 202
    assert response.headers["location"] == f"/jobs/{response.json()['job_id']}"
    assert response.json()["modality"] == "img2img"


# Varying


async def test_a_variation_is_drawn_from_the_picture(own_house: House) -> None:
    first, second = await inside(own_house, VARIATIONS, {"n": "2", "size": "96x64"}, FOX)

    assert modality(own_house) == "img2img"
    assert (first.size, second.size) == ((96, 64), (96, 64))
    assert parameters(first).startswith(f"{VARIATION}\n")
    assert parameters(first) != parameters(second)


async def test_a_variation_needs_a_picture(shared_house: House) -> None:
    response = await post(shared_house, VARIATIONS, {"n": "1"}, form(other=png()))

    assert (response.status_code, response.json()["error"]["param"]) == (400, "image")
