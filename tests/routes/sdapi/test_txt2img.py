"""Pictures from words, as the web UI's clients ask for them."""

import json
from typing import Any

import pytest

from src.routes.sdapi.names import WITHOUT_EFFECT
from tests.routes.house import CANARY, House, base64_of
from tests.routes.sdapi.asking import SMALL, TXT2IMG, drawn, get, info, parameters, pictures, post


@pytest.mark.parametrize("count", [1, 3])
async def test_the_answer_is_written_byte_for_byte(shared_house: House, count: int) -> None:
    response = await post(shared_house, TXT2IMG, {**SMALL, "n_iter": count})

    job_id, shown = response.headers["x-job-id"], response.json()
    async with shared_house.http() as http:
        data = [(await http.get(f"/images/{job_id}/{index}")).content for index in range(count)]
    assert list(shown) == ["images", "parameters", "info"]
    assert shown["images"] == [base64_of(each) for each in data]
    assert response.text == json.dumps(shown, separators=(",", ":"))
    assert response.headers["content-type"] == "application/json"
    assert response.headers["content-length"] == str(len(response.content))


async def test_all_that_localai_draws_by_is_handed_on(shared_house: House) -> None:
    body = {"prompt": "a red fox", "width": 96, "height": 64, "steps": 3, "seed": 7}

    [picture] = await drawn(shared_house, TXT2IMG, {**body, "negative_prompt": "birds|cats"})

    assert parameters(picture) == (
        "a red fox\nNegative prompt: birds,cats\nSeed: 7, Steps: 3, Size: 96x64"
    )


async def test_a_bar_in_the_prompt_does_not_begin_what_not_to_show(shared_house: House) -> None:
    [picture] = await drawn(shared_house, TXT2IMG, {**SMALL, "prompt": "a [cat|dog]"})

    assert parameters(picture).startswith("a [cat,dog]\nNegative prompt: \n")


async def test_info_says_what_was_done(shared_house: House) -> None:
    body = {**SMALL, "seed": 7, "negative_prompt": "birds", "batch_size": 2, "n_iter": 2}

    response = await post(shared_house, TXT2IMG, {**body, "cfg_scale": 6.5})

    told = info(response)
    assert told["all_seeds"] == [7, 8, 9, 10]
    assert told["all_prompts"] == ["a red fox"] * 4
    assert told["infotexts"][1] == (
        "a red fox\nNegative prompt: birds\nSteps: 1, Seed: 8, Size: 64x64, Model: sim-image"
    )
    assert (told["seed"], told["steps"], told["batch_size"]) == (7, 1, 2)
    assert (told["sampler_name"], told["cfg_scale"]) == ("Euler a", 6.5)
    assert told["sd_model_name"] == "sim-image"
    assert told["job_timestamp"].isdigit()
    assert response.json()["parameters"] == {**body, "cfg_scale": 6.5}


async def test_without_a_seed_the_one_that_was_taken_is_told(shared_house: House) -> None:
    first, other = [await post(shared_house, TXT2IMG, {**SMALL, "seed": -1}) for _ in range(2)]

    again = await post(shared_house, TXT2IMG, {**SMALL, "seed": info(first)["seed"]})

    assert again.json()["images"] == first.json()["images"] != other.json()["images"]


async def test_an_idempotency_key_finds_the_job_though_no_seed_was_given(
    shared_house: House,
) -> None:
    key = {"Idempotency-Key": "the-same-fox"}
    first, again = [await post(shared_house, TXT2IMG, SMALL, key) for _ in range(2)]

    assert again.headers["x-job-id"] == first.headers["x-job-id"]


async def test_pictures_may_be_left_out_of_the_answer(shared_house: House) -> None:
    response = await post(shared_house, TXT2IMG, {**SMALL, "send_images": False})

    assert response.json()["images"] == []
    async with shared_house.http() as http:
        path = f"/images/{response.headers['x-job-id']}/0"
        assert (await http.get(path)).headers["content-type"] == "image/png"


async def test_whatever_clients_send_besides_is_taken_and_named(shared_house: House) -> None:
    body: dict[str, Any] = {
        **SMALL,
        "sampler_name": "DPM++ 2M",
        "styles": [],
        "hr_scale": 2,
        "tiling": False,
        "script_name": None,
        "cfg_scale": 7,
        "alwayson_scripts": {"ADetailer": {"args": [True]}},
        "of_a_fork": 1,
    }

    told = info(await post(shared_house, TXT2IMG, body))

    assert told["ignored"] == [
        "alwayson_scripts",
        "cfg_scale",
        "hr_scale",
        "of_a_fork",
        "sampler_name",
    ]


@pytest.mark.parametrize("name", ["sampler_name", "sampler_index"])
async def test_the_sampler_that_is_listed_is_not_ignored(shared_house: House, name: str) -> None:
    told = info(await post(shared_house, TXT2IMG, {**SMALL, name: "Euler a"}))

    assert told["ignored"] == []


async def test_long_things_are_not_sent_back(shared_house: House) -> None:
    unit = {"ControlNet": {"args": [{"image": "A" * 100_000}]}}
    body = {**SMALL, "prompt": "fox " * 10_000, "alwayson_scripts": unit}

    response = await post(shared_house, TXT2IMG, body)

    body.pop("alwayson_scripts")
    assert response.json()["parameters"] == body


async def test_the_strict_are_told_what_nobody_knows(shared_house: House) -> None:
    known = {**SMALL, **dict.fromkeys(WITHOUT_EFFECT, None)}
    strict = {"X-Strict": "1"}

    assert (await post(shared_house, TXT2IMG, known, strict)).status_code == 200
    response = await post(shared_house, TXT2IMG, {**SMALL, "cfg_scal": 7}, strict)

    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, "cfg_scal")
    assert error["hint"] == "did you mean cfg_scale?"


async def test_the_model_may_be_named_in_override_settings(shared_house: House) -> None:
    for name, status in (("sim-image", 200), (" ", 200), ("sim-imgae", 404)):
        settings = {"sd_model_checkpoint": name, "CLIP_stop_at_last_layers": 2}
        response = await post(shared_house, TXT2IMG, {**SMALL, "override_settings": settings})
        assert response.status_code == status
    assert "sim-image" in response.json()["error"]["hint"]


async def test_nobody_has_to_wait_for_the_pictures(own_house: House) -> None:
    own_house.sim.hold()
    response = await post(own_house, TXT2IMG, SMALL, {"Prefer": "respond-async"})
    job_id = response.json()["job_id"]

    assert response.status_code == 202
    assert (await get(own_house, "/sdapi/v1/progress"))["state"]["job"] == job_id
    own_house.sim.release()
    job = await get(own_house, f"/mcp/get_job?job_id={job_id}&wait_seconds=10")
    assert job["state"] == "completed"


@pytest.mark.parametrize("said", [{}, {"prompt": ""}, {"prompt": " "}, {"prompt": None}])
async def test_who_says_nothing_gets_a_picture_of_anything(
    shared_house: House, said: dict[str, Any]
) -> None:
    response = await post(shared_house, TXT2IMG, {"width": 64, "height": 64, "steps": 1, **said})

    assert response.status_code == 200, response.text
    assert info(response)["prompt"] == "a picture"
    assert response.json()["parameters"].get("prompt") == said.get("prompt")


@pytest.mark.parametrize("width", [96, 96.0, "96", "96.0"])
async def test_numbers_may_be_written_in_any_way(shared_house: House, width: object) -> None:
    body = {**SMALL, "width": width, "seed": 7.0, "n_iter": "2", "send_images": "false"}

    told = info(await post(shared_house, TXT2IMG, body))

    assert (told["width"], told["all_seeds"]) == (96, [7, 8])


async def test_as_many_pictures_as_openai_allows_are_drawn(shared_house: House) -> None:
    assert len(await drawn(shared_house, TXT2IMG, {**SMALL, "batch_size": 2, "n_iter": 5})) == 10


BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"prompt": [CANARY]}, "prompt", "string"),
    ({"prompt": CANARY, "negative_prompt": 1}, "negative_prompt", "string"),
    ({"prompt": CANARY, "width": 8}, "width", "16 to 4,096"),
    ({"prompt": CANARY, "width": 4096, "height": 4096}, "size", "16,000,000"),
    ({"prompt": CANARY, "steps": 151}, "steps", "1 to 150"),
    ({"prompt": CANARY, "steps": "many"}, "steps", "integer"),
    ({"prompt": CANARY, "seed": 1.5}, "seed", "integer"),
    ({"prompt": CANARY, "batch_size": 0}, "batch_size", "greater than or equal to 1"),
    ({"prompt": CANARY, "batch_size": 4, "n_iter": 3}, "batch_size", "at most 10"),
    ({"prompt": CANARY, "override_settings": CANARY}, "override_settings", "dictionary"),
    ({"prompt": CANARY, "strict": True, CANARY: 1}, "body", "understood by nobody"),
]


@pytest.mark.parametrize(("body", "param", "words"), BAD)
async def test_bad_input_is_refused_by_name(
    shared_house: House, body: dict[str, Any], param: str, words: str
) -> None:
    response = await post(shared_house, TXT2IMG, body)

    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, param)
    assert words in error["message"]
    assert CANARY not in response.text


async def test_a_failure_of_the_backend_is_an_error(own_house: House) -> None:
    own_house.sim.add_fault("status", status=400, message=CANARY)

    response = await post(own_house, TXT2IMG, {**SMALL, "prompt": CANARY})

    assert response.status_code == 400
    assert response.json()["error"]["job_id"] == response.headers["x-job-id"]
    assert CANARY not in response.text


async def test_pictures_are_drawn_as_they_are(shared_house: House) -> None:
    response = await post(shared_house, TXT2IMG, {**SMALL, "width": 96})

    [picture] = pictures(response)
    assert (picture.format, picture.size) == ("PNG", (96, 64))
    assert (info(response)["width"], info(response)["height"]) == (96, 64)
