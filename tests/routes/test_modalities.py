"""Every modality through both doors, in front of the simulator."""

import base64
import io
import json
import struct
import wave
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp.types import AudioContent, BlobResourceContents, ResourceLink

from src.models.modality import Modality
from src.models.requests import MEDIA, REQUESTS
from src.routes.calls import TWINS
from src.routes.mcp_answers import MAX_INLINE_BYTES, MAX_NUMBERS
from src.simulator.config import SimulatorConfig
from tests.routes.house import CANARY, House, base64_of, facts, house, png, words


def speech(seconds: float = 0.5) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(struct.pack("<h", 9000) * int(8000 * seconds))
    return buffer.getvalue()


BODIES: dict[Modality, dict[str, Any]] = {
    Modality.TXT2TXT: {"prompt": "repeat: hello"},
    Modality.TXT2IMG: {"prompt": "x", "size": "64x64", "steps": 1},
    Modality.IMG2IMG: {"prompt": "x", "image": base64_of(png()), "steps": 1},
    Modality.IMG2TXT: {"image": base64_of(png())},
    Modality.TXT2VEC: {"input": ["a red fox", "a gold moon"]},
    Modality.RERANK: {"query": "red animal", "documents": ["a gold moon", "a red fox"]},
    Modality.TXT2AUDIO: {"input": "A red fox sleeps."},
    Modality.TXT2SOUND: {"prompt": "rain", "seconds": 1},
    Modality.INPAINT: {"prompt": "x", "image": base64_of(png()), "mask": base64_of(png())},
    Modality.AUDIO2TXT: {"audio": base64_of(speech())},
    Modality.TXT2VIDEO: {"prompt": "rain", "num_frames": 2},
}
MAKES: dict[Modality, str] = {
    Modality.TXT2IMG: "images",
    Modality.IMG2IMG: "images",
    Modality.TXT2AUDIO: "audio",
    Modality.TXT2SOUND: "audio",
    Modality.TXT2VIDEO: "videos",
}


async def _post(house: House, tool: str, body: dict[str, Any]) -> httpx2.Response:
    async with house.http() as http:
        return await http.post(f"/mcp/{tool}", json=body)


async def _job(house: House, tool: str, body: dict[str, Any]) -> dict[str, Any]:
    response = await _post(house, tool, body)
    assert response.status_code == 200, response.text
    job: dict[str, Any] = response.json()
    return job


def test_every_modality_has_a_twin() -> None:
    assert TWINS.keys() == REQUESTS.keys() == set(Modality)


@pytest.mark.parametrize(("modality", "kind"), MAKES.items())
async def test_what_is_made_is_an_address_with_its_type(
    shared_house: House, modality: Modality, kind: str
) -> None:
    job = await _job(shared_house, modality, BODIES[modality])

    [made] = job[kind]
    assert job["simulated"] is True
    assert not {"images", "audio", "videos", "text", "vectors", "ranking"} - {kind} & job.keys()
    assert made["url"] == f"{shared_house.url}/{kind}/{job['job_id']}/0"
    async with shared_house.http() as http:
        fetched = await http.get(made["url"])
    assert fetched.headers["content-type"] == made["media_type"]
    assert fetched.headers["x-content-type-options"] == "nosniff"
    assert fetched.headers["content-disposition"].startswith(f'inline; filename="{job["job_id"]}-0')
    assert len(fetched.content) == made["size_bytes"] == int(fetched.headers["content-length"])


@pytest.mark.parametrize("modality", [Modality.TXT2AUDIO, Modality.TXT2SOUND])
async def test_a_recording_is_put_into_the_answer_if_asked_for(
    shared_house: House, modality: Modality
) -> None:
    body = {**BODIES[modality], "response_format": "b64_json"}

    [recording] = (await _job(shared_house, modality, body))["audio"]

    data = base64.b64decode(recording["b64_json"])
    with wave.open(io.BytesIO(data)) as file:
        assert file.getnframes() / file.getframerate() == pytest.approx(recording["seconds"])


async def test_a_recording_is_written_down_under_each_of_its_names(shared_house: House) -> None:
    [made] = (await _job(shared_house, "txt2audio", BODIES[Modality.TXT2AUDIO]))["audio"]

    for name in (made["reference"], made["uri"], made["url"], base64_of(speech())):
        job = await _job(shared_house, "audio2txt", {"audio": name})
        assert "seconds of sound" in job["text"]
        segments = job["transcript"]["segments"]
        assert segments[0]["start"] == 0
        assert " ".join(segment["text"] for segment in segments) == job["text"]


async def test_a_part_of_a_picture_is_drawn_anew_where_a_definition_says_who_can(
    tmp_path: Path,
) -> None:
    definition = "name: sim-image\nmodality: [txt2img, inpaint]\n"
    (tmp_path / "sim-image.yaml").write_text(definition, encoding="utf-8")
    kind = SimulatorConfig(speed=0, inpainting_files_served=True)
    with house(config=kind, models_dir=tmp_path) as defined:
        [old] = (await _job(defined, "txt2img", BODIES[Modality.TXT2IMG]))["images"]
        mask = base64_of(png(color="white"))
        body = {"image": old["url"], "mask": mask, "prompt": "y", "response_format": "b64_json"}

        [new] = (await _job(defined, "inpaint", body))["images"]

    assert base64.b64decode(new["b64_json"]).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("modality", "field"),
    [(m, field) for m, kind in REQUESTS.items() for field in kind.model_fields if field in MEDIA],
)
async def test_no_picture_or_recording_goes_unchecked(
    shared_house: House, modality: Modality, field: str
) -> None:
    several = "tuple" in str(REQUESTS[modality].model_fields[field].annotation)
    short = {} if several else BODIES[modality]
    wrong = base64_of(CANARY.encode())

    response = await _post(shared_house, modality, {**short, field: [wrong] if several else wrong})

    assert response.status_code == 422
    assert response.json()["error"]["param"] in (field, field.removesuffix("s"))
    assert CANARY not in response.text


async def test_a_picture_is_no_recording(shared_house: House) -> None:
    [made] = (await _job(shared_house, "txt2img", BODIES[Modality.TXT2IMG]))["images"]

    response = await _post(shared_house, "audio2txt", {"audio": made["reference"]})

    assert response.status_code == 422
    assert response.json()["error"]["param"] == "audio"


async def test_each_text_has_its_vector_in_the_answer_and_at_its_address(
    shared_house: House,
) -> None:
    job = await _job(shared_house, "txt2vec", BODIES[Modality.TXT2VEC])
    single = await _job(shared_house, "txt2vec", {"input": "a gold moon"})

    assert len(job["vectors"]) == 2
    assert job["vectors"][1] == single["vectors"][0] != job["vectors"][0]
    async with shared_house.http() as http:
        assert (await http.get(job["vectors_url"])).json()["vectors"] == job["vectors"]


async def test_documents_are_ranked_best_first(shared_house: House) -> None:
    ranking = (await _job(shared_house, "rerank", BODIES[Modality.RERANK]))["ranking"]

    assert [rank["index"] for rank in ranking] == [1, 0]
    assert ranking[0]["score"] > ranking[1]["score"]


async def test_tokens_are_told_as_far_as_the_backend_counted_them(shared_house: House) -> None:
    text, ranking, heard = [
        await _job(shared_house, modality, BODIES[modality])
        for modality in (Modality.TXT2TXT, Modality.RERANK, Modality.AUDIO2TXT)
    ]

    assert text["usage"].keys() == {"prompt_tokens", "completion_tokens"}
    assert ranking["usage"].keys() == {"prompt_tokens"}
    assert "usage" not in heard


async def test_a_recording_or_film_that_is_not_there(shared_house: House) -> None:
    job = await _job(shared_house, "txt2audio", BODIES[Modality.TXT2AUDIO])

    async with shared_house.http() as http:
        for path in (f"/audio/{job['job_id']}/1", f"/videos/{job['job_id']}/0", "/audio/none/0"):
            response = await http.get(path)
            assert response.status_code == 404, path
            assert response.json()["error"]["code"] == "job_not_found"


async def test_speech_is_told_linked_and_played(shared_house: House) -> None:
    async with shared_house.client() as client:
        result = await client.call_tool("txt2audio", {"input": "A red fox sleeps."})
        recording = facts(result)["audio"][0]
        read = await client.read_resource(recording["uri"])

    text, link, played = result.content
    assert json.loads(words(result)) == facts(result)
    assert isinstance(link, ResourceLink)
    assert isinstance(played, AudioContent)
    assert (link.uri, link.mime_type) == (recording["uri"], "audio/wav")
    assert len(base64.b64decode(played.data)) == recording["size_bytes"]
    assert played.data not in text.model_dump_json()
    [contents] = read.contents
    assert isinstance(contents, BlobResourceContents)
    assert (contents.mime_type, contents.blob) == ("audio/wav", played.data)


async def test_long_speech_is_only_linked(shared_house: House) -> None:
    async with shared_house.client() as client:
        result = await client.call_tool("txt2audio", {"input": "A red fox sleeps. " * 60})

    assert facts(result)["audio"][0]["size_bytes"] > MAX_INLINE_BYTES
    assert [block.type for block in result.content] == ["text", "resource_link"]


async def test_a_recording_is_written_down_for_a_model(shared_house: House) -> None:
    async with shared_house.client() as client:
        made = facts(await client.call_tool("txt2audio", {"input": "hello"}))["audio"][0]
        result = await client.call_tool("audio2txt", {"audio": made["reference"]})

    assert words(result) == facts(result)["text"]
    assert facts(result)["transcript"]["segments"]


async def test_a_film_is_read_with_the_type_that_it_has(shared_house: House) -> None:
    [film] = (await _job(shared_house, "txt2video", BODIES[Modality.TXT2VIDEO]))["videos"]

    async with shared_house.client() as client:
        [contents] = (await client.read_resource(film["uri"])).contents

    assert contents.mime_type == film["media_type"]


async def test_few_vectors_are_told_and_many_linked(shared_house: House) -> None:
    async with shared_house.client() as client:
        few = await client.call_tool("txt2vec", {"input": ["a", "b"]})
        size = len(facts(few)["vectors"][0])
        many = await client.call_tool("txt2vec", {"input": ["a"] * (MAX_NUMBERS // size + 1)})

    assert len(facts(few)["vectors"]) == 2
    assert "vectors" not in facts(many)
    assert "vectors" not in json.loads(words(few))
    for result in (few, many):
        link = result.content[1]
        assert isinstance(link, ResourceLink)
        assert link.uri == facts(result)["vectors_url"]
    async with shared_house.http() as http:
        whole = (await http.get(facts(many)["vectors_url"])).json()
    assert len(whole["vectors"]) == MAX_NUMBERS // size + 1


async def test_a_job_of_any_modality_is_collected_through_the_other_door(
    shared_house: House,
) -> None:
    async with shared_house.client() as client:
        for modality in (Modality.RERANK, Modality.TXT2VIDEO, Modality.TXT2SOUND):
            job = await _job(shared_house, modality, BODIES[modality])
            collected = await client.call_tool("get_job", {"job_id": job["job_id"]})
            assert facts(collected) == job
            assert json.loads(words(collected)) == job
