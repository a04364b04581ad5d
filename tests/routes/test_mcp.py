import asyncio
import base64
import io
import json
import random
import re
from pathlib import Path
from typing import Any

import httpx2
import PIL.Image
import pytest
from mcp import Client, MCPError
from mcp.server import MCPServer
from mcp.types import (
    BlobResourceContents,
    CallToolResult,
    ImageContent,
    ResourceLink,
    TextResourceContents,
)

from src.app import create_app
from src.models.errors import StorageFailed
from src.models.jobs import Job, Level, Promise
from src.models.modality import Modality
from src.models.requests import REQUESTS, Txt2ImgRequest
from src.models.results import Heard, Image, Result, Segment
from src.routes.mcp_answers import MAX_SEGMENTS, Output, answer, refusal
from src.routes.views import view
from src.settings import Settings
from src.utils.blobs import FileBlobs
from src.utils.stores.database import Database
from src.utils.stores.sqlite import SQLiteStore
from tests.conformance.slow_backend import SlowBackend
from tests.routes.house import CANARY, ERAS, House, Progress, base64_of, facts, house, png, words
from tests.serving import logging_kept

SMALL = {"size": "64x64", "steps": 1}
FIGURES = {"get_queue_status", "list_models", "get_request_metrics", "get_error_metrics"}
MAKES = {"txt2txt", "txt2vec", "txt2img", "img2img", "img2txt", "audio2txt", "txt2audio"}
NAMES = {*MAKES, "get_job", "cancel_job", "list_jobs", *FIGURES}


@pytest.fixture(params=ERAS)
def era(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_text_comes_first_and_the_facts_with_it(shared_house: House, era: str) -> None:
    async with shared_house.client(era) as client:
        result = await client.call_tool("txt2txt", {"prompt": "repeat: hello"})

    told = facts(result)
    assert words(result) == "hello"
    assert (told["text"], told["state"], told["model"]) == ("hello", "completed", "sim-chat")
    assert told["simulated"] is True
    assert "simulated: true" in result.content[-1].model_dump_json()


async def test_a_prompt_that_looks_like_json_stays_text(shared_house: House) -> None:
    async with shared_house.client() as client:
        for prompt in ('repeat: {"a": 1}', '{"a": 1}', "[1, 2]", "null", "true"):
            assert facts(await client.call_tool("txt2txt", {"prompt": prompt}))["text"]


async def test_a_conversation_and_a_system_prompt(shared_house: House) -> None:
    turns = [{"content": "hi"}, {"role": "assistant", "content": "yes?"}, {"content": "repeat: x"}]

    async with shared_house.client() as client:
        result = await client.call_tool("txt2txt", {"messages": turns, "system": "be brief"})

    assert words(result) == "x"


async def test_null_counts_as_left_out(shared_house: House) -> None:
    arguments = {"prompt": "repeat: x", "model": None, "seed": None, "wait_seconds": None}

    async with shared_house.client() as client:
        assert words(await client.call_tool("txt2txt", arguments)) == "x"


async def test_an_answer_that_was_cut_says_so(shared_house: House) -> None:
    async with shared_house.client() as client:
        result = await client.call_tool("txt2txt", {"prompt": "tell a story", "max_tokens": 3})

    assert facts(result)["finish_reason"] == "length"
    assert "max_tokens" in result.content[1].model_dump_json()


async def test_a_picture_is_told_linked_and_shown(shared_house: House, era: str) -> None:
    async with shared_house.client(era) as client:
        result = await client.call_tool("txt2img", {"prompt": "a fox", "seed": 7, **SMALL})
        told = facts(result)
        picture = told["images"][0]
        read = await client.read_resource(picture["uri"])

    assert [type(block).__name__ for block in result.content] == [
        "TextContent",
        "ResourceLink",
        "ImageContent",
    ]
    assert json.loads(words(result)) == told
    link, shown = result.content[1:]
    assert isinstance(link, ResourceLink)
    assert isinstance(shown, ImageContent)
    assert (link.uri, link.size) == (picture["uri"], picture["size_bytes"])
    assert (picture["width"], picture["height"], picture["media_type"]) == (64, 64, "image/png")
    contents = read.contents[0]
    assert isinstance(contents, BlobResourceContents)
    assert contents.mime_type == "image/png"
    assert len(base64.b64decode(contents.blob)) == picture["size_bytes"]
    async with shared_house.http() as http:
        fetched = await http.get(picture["url"])
    assert base64.b64decode(contents.blob) == fetched.content
    assert contents.blob not in json.dumps(told)


async def test_output_chooses_how_pictures_are_shown(shared_house: House) -> None:
    big = {"prompt": "x", "size": "1280x64", "steps": 1}

    async with shared_house.client() as client:
        link = await client.call_tool("txt2img", {**big, "output": "link"})
        preview = await client.call_tool("txt2img", {**big, "output": "preview"})
        full = await client.call_tool("txt2img", {**big, "output": "full", "n": 2})

    assert not [block for block in link.content if isinstance(block, ImageContent)]
    [small] = [block for block in preview.content if isinstance(block, ImageContent)]
    assert small.mime_type == "image/webp"
    whole = [block for block in full.content if isinstance(block, ImageContent)]
    sizes = [picture["size_bytes"] for picture in facts(full)["images"]]
    assert [len(base64.b64decode(block.data)) for block in whole] == sizes


@pytest.mark.parametrize(("output", "count"), [("preview", 2), ("full", 3)])
async def test_many_large_pictures_stay_well_below_what_hosts_refuse(
    output: Output, count: int
) -> None:
    side = 600
    picture = Image(_noise(side), "image/png", side, side, 1)

    result = await _answered(Result(images=(picture,) * count), output)

    assert len(result.model_dump_json()) < 1_000_000
    assert sum(isinstance(block, ImageContent) for block in result.content) == count


async def test_a_long_transcript_keeps_its_text_and_the_times_of_its_beginning() -> None:
    segments = tuple(Segment(n, n + 1, f"part {n}") for n in range(MAX_SEGMENTS + 5))
    text = " ".join(segment.text for segment in segments)

    result = await _answered(Result(text=text, heard=Heard("en", 205.0, segments)))

    assert words(result) == facts(result)["text"] == text
    assert len(facts(result)["transcript"]["segments"]) == MAX_SEGMENTS
    assert facts(result)["transcript"]["language"] == "en"
    assert "last 5 segments are left out" in result.content[1].model_dump_json()


@pytest.mark.parametrize(
    ("promise", "text"),
    [
        (None, "interrupted: the server stopped before the job had ended.* .job j.\\.$"),
        (Promise(), "worker_lost: the server stopped once .* .job j.\\. Send it again "),
    ],
)
def test_a_job_that_died_with_the_server_says_so(promise: Promise | None, text: str) -> None:
    lost = _job(promise=promise).started("b", 1).recovered(attempts=1, now=2)
    assert lost.error is not None

    told = refusal(lost.error, lost.id)

    assert told.is_error
    assert _matches(text, words(told))


async def _answered(result: Result, output: Output = "preview") -> CallToolResult:
    """Make the answer for a job that ended with a result."""
    ended = _job().started("b", 1).completed(result, 2)
    shown = view(ended, position=None, now=2, base_url="http://h")
    return await answer(ended, shown, output, FileBlobs())


def _job(promise: Promise | None = None) -> Job:
    return Job(
        id="j",
        request=Txt2ImgRequest(prompt="x"),
        model="m",
        caller="c",
        level=Level.NORMAL,
        sequence=1,
        submitted_at=0,
        deadline=9,
        promise=promise,
    )


async def test_a_picture_goes_on_under_each_of_its_names(shared_house: House) -> None:
    async with shared_house.client() as client:
        made = facts(await client.call_tool("txt2img", {"prompt": "a fox", **SMALL}))["images"][0]
        for name in (made["reference"], made["uri"], made["url"]):
            changed = await client.call_tool(
                "img2img", {"image": name, "prompt": "in snow", "steps": 1}
            )
            told = await client.call_tool("img2txt", {"image": name})
            assert facts(changed)["images"][0]["width"] == 64
            assert "64x64" in words(told)


async def test_a_strength_is_taken_where_the_definition_has_it(tmp_path: Path) -> None:
    definition = "name: sim-image\nmodality: [img2img]\nstrength: true\n"
    (tmp_path / "sim-image.yaml").write_text(definition, encoding="utf-8")

    with house(models_dir=tmp_path) as defined:
        async with defined.client() as client:
            change = {"image": base64_of(png()), "prompt": "x", "steps": 1, "strength": 0.5}
            result = await client.call_tool("img2img", change)

    assert facts(result)["state"] == "completed"


async def test_pictures_come_as_base64_and_as_data_uris(shared_house: House) -> None:
    data = base64_of(png(48, 32))

    async with shared_house.client() as client:
        both = {"images": [data, f"data:image/png;base64,{data}"], "question": "What is it?"}
        told = words(await client.call_tool("img2txt", both))

    assert told.count("48x32") == 2


async def test_progress_is_told_from_the_queue_on_and_grows(own_house: House, era: str) -> None:
    own_house.sim.hold()
    first, second = Progress(), Progress()

    async with own_house.client(era) as client, asyncio.TaskGroup() as calls:
        draw = {"prompt": "x", **SMALL}
        calls.create_task(client.call_tool("txt2img", draw, progress_callback=first))
        await first.until("running on sim-image")
        calls.create_task(client.call_tool("txt2img", draw, progress_callback=second))
        await second.until("next in line")
        own_house.sim.release()

    assert "running on sim-image, attempt 1" in second.messages
    assert second.values == sorted(set(second.values))


async def test_when_the_wait_runs_out_the_model_is_told_what_to_call(
    own_house: House, era: str
) -> None:
    own_house.sim.hold()
    async with own_house.client(era) as client:
        await client.call_tool("txt2img", {"prompt": "x", "wait_seconds": 0, **SMALL})
        await own_house.running("txt2img")

        late = await client.call_tool("txt2img", {"prompt": "x", "wait_seconds": 0, **SMALL})
        still = await client.call_tool(
            "get_job", {"job_id": facts(late)["job_id"], "wait_seconds": 0}
        )
        own_house.sim.release()
        done = await client.call_tool("get_job", {"job_id": facts(late)["job_id"]})

    assert (facts(late)["state"], facts(late)["position"]) == ("queued", 0)
    assert "get_job" in facts(late)["next"]
    assert "get_job" in words(late)
    assert facts(late)["job_id"] in words(late)
    assert facts(still)["state"] == "queued"
    assert facts(done)["state"] == "completed"
    assert any(isinstance(block, ImageContent) for block in done.content)


async def test_a_caller_that_cancels_takes_its_running_job_along(
    own_house: House, era: str
) -> None:
    own_house.sim.hold()
    async with own_house.client(era) as client:
        call = asyncio.create_task(client.call_tool("txt2txt", {"prompt": "x"}))
        job_id = await own_house.running("txt2txt")

        call.cancel()

        with pytest.raises(asyncio.CancelledError):
            await call
        job = await own_house.until(f"/mcp/get_job?job_id={job_id}&wait_seconds=5", _ended)
    assert job["state"] == "cancelled"


async def test_a_caller_that_cancels_takes_its_waiting_job_along(
    own_house: House, era: str
) -> None:
    own_house.sim.hold()
    draw, progress = {"prompt": "x", **SMALL}, Progress()
    async with own_house.client(era) as client:
        await client.call_tool("txt2img", {**draw, "wait_seconds": 0})
        await own_house.running("txt2img")
        call = asyncio.create_task(client.call_tool("txt2img", draw, progress_callback=progress))
        await progress.until("next in line")

        call.cancel()

        await own_house.until("/queue-status", lambda s: s["waiting"] == 0)
        own_house.sim.release()
        await own_house.until("/queue-status", lambda s: s["running"] == 0)
    figures = await own_house.until("/mcp/get_request_metrics", lambda f: f["window"] == 2)
    assert (figures["overall"]["completed"], figures["overall"]["cancelled"]) == (1, 1)


async def test_a_caller_that_vanishes_takes_its_job_along(own_house: House, era: str) -> None:
    own_house.sim.hold()
    async with own_house.http() as http:
        if era == "legacy":
            request = await _in_a_session(http, "txt2txt", {"prompt": "x"})
        else:
            request = _modern("txt2txt", '{"prompt": "x"}')
        call = asyncio.create_task(http.post("/mcp", **request))
        await own_house.running("txt2txt")
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    async with asyncio.timeout(2):
        figures = await own_house.until("/mcp/get_request_metrics", lambda f: f["total_requests"])
    assert figures["overall"]["cancelled"] == 1


async def test_a_caller_of_get_job_that_vanishes_cancels_nothing(own_house: House) -> None:
    own_house.sim.hold()
    async with own_house.client() as client, own_house.http() as http:
        draw = {"prompt": "x", "wait_seconds": 0, **SMALL}
        job_id = facts(await client.call_tool("txt2img", draw))["job_id"]
        await own_house.running("txt2img")
        request = await _in_a_session(http, "get_job", {"job_id": job_id})
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await http.post("/mcp", **request)

        still = await client.call_tool("get_job", {"job_id": job_id, "wait_seconds": 1})
        own_house.sim.release()
        done = await client.call_tool("get_job", {"job_id": job_id})

    assert facts(still)["state"] == "processing"
    assert facts(done)["state"] == "completed"


async def test_once_the_job_id_is_given_nothing_but_cancel_job_cancels(
    own_house: House, era: str
) -> None:
    own_house.sim.hold()
    progress = Progress()
    async with own_house.client(era) as client:
        given = facts(await client.call_tool("txt2txt", {"prompt": "x", "wait_seconds": 0}))
        await own_house.running("txt2txt")
        look = asyncio.create_task(
            client.call_tool("get_job", {"job_id": given["job_id"]}, progress_callback=progress)
        )
        await progress.until("running")
        look.cancel()
        with pytest.raises(asyncio.CancelledError):
            await look

        after = await client.call_tool("get_job", {"job_id": given["job_id"], "wait_seconds": 0})
        cancelled = await client.call_tool("cancel_job", {"job_id": given["job_id"]})
        gone = await client.call_tool("get_job", {"job_id": given["job_id"]})

    assert facts(after)["state"] == "processing"
    assert facts(cancelled)["state"] == "cancelled"
    assert None not in facts(cancelled).values()
    assert json.loads(words(cancelled)) == facts(cancelled)
    assert gone.is_error
    assert "cancelled" in words(gone)


@pytest.mark.parametrize(("era", "callers"), [("legacy", 50), ("auto", 200)])
async def test_callers_that_leave_at_random_leave_nothing_behind(
    own_house: House, era: str, callers: int
) -> None:
    chance = random.Random(4)

    async def call(client: Client, number: int) -> None:
        if number % 10:
            arguments = {"prompt": "tell a story", "max_tokens": 5}
            await client.call_tool("txt2txt", arguments)
        else:
            await client.call_tool("txt2img", {"prompt": "x", **SMALL})

    async with own_house.client(era) as client:
        calls = [asyncio.create_task(call(client, number)) for number in range(callers)]
        while not all(task.done() for task in calls):
            done, _ = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
            calls = [task for task in calls if task not in done]
            for task in chance.sample(calls, min(8, len(calls))):
                task.cancel()
            if not calls:
                break
        await own_house.until("/queue-status", lambda s: s["waiting"] + s["running"] == 0)

        assert words(await client.call_tool("txt2txt", {"prompt": "repeat: fine"})) == "fine"
        assert facts(await client.call_tool("txt2img", {"prompt": "x", **SMALL}))["images"]


async def test_a_call_that_is_repeated_with_its_key_gets_the_same_job(own_house: House) -> None:
    draw = {"prompt": "x", **SMALL, "idempotency_key": "once"}

    async with own_house.client() as client:
        first, *others = await asyncio.gather(
            *(client.call_tool("txt2img", draw) for _ in range(20))
        )
        later = await client.call_tool("txt2img", draw)
        other = await client.call_tool("txt2img", {**draw, "prompt": CANARY})

    assert all(result == first for result in (*others, later))
    assert not first.is_error
    assert len([r for r in own_house.sim.requests() if r.path == "/v1/images/generations"]) == 1
    assert words(other).startswith("idempotency_conflict: ")
    assert CANARY not in words(other)


async def test_a_caller_with_a_key_that_leaves_finds_its_job_again(
    own_house: House, era: str
) -> None:
    own_house.sim.hold()
    ask = {"prompt": "repeat: fine", "idempotency_key": "k"}
    async with own_house.client(era) as client:
        call = asyncio.create_task(client.call_tool("txt2txt", ask))
        job_id = await own_house.running("txt2txt")
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    async with own_house.client(era) as client:
        own_house.sim.release()
        again = await client.call_tool("txt2txt", ask)

    assert words(again) == "fine"
    assert facts(again)["job_id"] == job_id


class Full(SQLiteStore):
    """A store that cannot promise anything."""

    async def save(self, *jobs: Job) -> None:
        if any(job.promise is not None for job in jobs):
            raise StorageFailed("the disk is full")
        await super().save(*jobs)


async def test_a_job_that_cannot_be_promised_is_not_handed_out() -> None:
    servers: list[MCPServer] = []
    app = create_app(
        Settings(log_file=None, log_level="error"),
        backends=[SlowBackend()],
        store=Full(Database(":memory:")),
        extend_mcp=servers.append,
    )

    with logging_kept():
        async with app.router.lifespan_context(app), Client(servers[0]) as client:
            ask = {"prompt": "take 60 and say x", "wait_seconds": 0}
            refused = await client.call_tool("txt2txt", ask)
            [job] = facts(await client.call_tool("list_jobs"))["jobs"]

    assert refused.is_error
    assert words(refused) == "storage_failed: the disk is full."
    assert job["state"] == "cancelled"


async def test_a_job_is_a_resource(own_house: House) -> None:
    own_house.sim.hold()
    async with own_house.client() as client:
        begun = facts(await client.call_tool("txt2vec", {"input": ["a"], "wait_seconds": 0}))
        await own_house.running("txt2vec")
        address = f"inference://jobs/{begun['job_id']}"
        running = await _read_json(client, address)
        own_house.sim.release()
        done = await client.call_tool("get_job", {"job_id": begun["job_id"]})
        ended = await _read_json(client, address)
        with pytest.raises(MCPError, match="job_not_found"):
            await client.read_resource("inference://jobs/none")

    assert running["state"] == "processing"
    assert ended == facts(done)
    assert ended["vectors"]


async def _read_json(client: Client, address: str) -> Any:
    [contents] = (await client.read_resource(address)).contents
    assert isinstance(contents, TextResourceContents)
    assert contents.mime_type == "application/json"
    return json.loads(contents.text)


async def test_the_list_of_jobs_has_the_latest_first(own_house: House) -> None:
    async with own_house.client() as client:
        await client.call_tool("txt2txt", {"prompt": "repeat: x"})
        await client.call_tool("txt2img", {"prompt": "x", **SMALL})
        await client.call_tool("txt2txt", {"prompt": "repeat: y"})
        whole = await client.call_tool("list_jobs")
        texts = facts(await client.call_tool("list_jobs", {"modality": "txt2txt", "limit": 1}))
        cursor = {"modality": "txt2txt", "cursor": texts["next"]}
        older = facts(await client.call_tool("list_jobs", cursor))
        waiting = facts(await client.call_tool("list_jobs", {"state": ["queued", "retrying"]}))
        wrong = await client.call_tool("list_jobs", {"cursor": CANARY})

    jobs = facts(whole)["jobs"]
    assert json.loads(words(whole)) == facts(whole)
    assert [job["modality"] for job in jobs] == ["txt2txt", "txt2img", "txt2txt"]
    assert {job["state"] for job in jobs} == {"completed"}
    assert (texts["jobs"], older) == (jobs[:1], {"jobs": jobs[2:]})
    assert waiting == {"jobs": []}
    assert words(wrong).startswith("invalid_request: cursor ")


async def test_low_priority_lets_others_go_first(own_house: House) -> None:
    own_house.sim.hold()
    draw = {"prompt": "x", "wait_seconds": 0, **SMALL}
    async with own_house.client() as client:
        await client.call_tool("txt2img", draw)
        await own_house.running("txt2img")
        low = facts(await client.call_tool("txt2img", {**draw, "priority": "low"}))
        facts(await client.call_tool("txt2img", draw))

        again = await client.call_tool("get_job", {"job_id": low["job_id"], "wait_seconds": 0})

    assert (low["position"], facts(again)["position"]) == (0, 1)


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("txt2txt", {}, "prompt"),
    ("txt2txt", {"prompt": " "}, "prompt"),
    ("txt2txt", {"prompt": CANARY, "messages": [{"content": CANARY}]}, "prompt"),
    ("txt2txt", {"prompt": [CANARY]}, "prompt"),
    ("txt2txt", {"prompt": CANARY, "temperature": 9}, "temperature: .*less than or equal to 2"),
    ("txt2txt", {"prompt": CANARY, "temperature": "hot" + CANARY}, "temperature"),
    ("txt2txt", {"prompt": CANARY, "max_tokens": 10**300}, "max_tokens: .*1000000"),
    ("txt2txt", {"prompt": CANARY, "seed": -1}, "seed: .*greater than or equal to 0"),
    ("txt2txt", {"prompt": CANARY, "stop": [CANARY] * 9}, "stop: .*8"),
    ("txt2txt", {"prompt": CANARY, "wait_seconds": 3601}, "wait_seconds: .*3600"),
    ("txt2txt", {"prompt": CANARY, "priority": CANARY}, "priority: .*normal"),
    ("txt2txt", {"prompt": CANARY, "idempotency_key": "ключ"}, "idempotency_key: "),
    ("txt2txt", {"prompt": CANARY, "idempotency_key": "k" * 256}, "idempotency_key: "),
    ("list_jobs", {"state": [CANARY]}, "state.0: .*queued"),
    ("list_jobs", {"limit": 201}, "limit: .*200"),
    ("txt2txt", {"prompt": CANARY, "temperatur": 1}, "temperatur: .*did you mean temperature"),
    ("txt2txt", {"prompt": "x", "messages": [{"role": CANARY, "content": ""}]}, "messages.0.role"),
    ("txt2txt", {"prompt": CANARY, "model": CANARY}, "model_not_found: .*sim-chat"),
    ("txt2txt", {"prompt": CANARY, "model": "sim-image"}, "not for txt2txt.*sim-chat"),
    ("txt2txt", {"prompt": CANARY, "model": "../../etc/passwd" + CANARY}, "model_not_found"),
    ("txt2txt", {"prompt": CANARY, "model": CANARY * 100}, "model: .*256"),
    ("txt2txt", {"prompt": "x" * 1_000_001}, "messages.0.content: .*1000000"),
    ("txt2img", {}, "prompt"),
    ("txt2img", {"prompt": ""}, "prompt"),
    ("txt2img", {"prompt": CANARY, "size": "huge"}, "size must be WIDTHxHEIGHT"),
    ("txt2img", {"prompt": CANARY, "size": "9x9"}, "width: .*16"),
    ("txt2img", {"prompt": CANARY, "size": "64x64", "width": 64}, "together with width and height"),
    ("txt2img", {"prompt": CANARY, "width": 4097}, "width: .*4096"),
    ("txt2img", {"prompt": CANARY, "width": 4096, "height": 4096}, "16,000,000"),
    ("txt2img", {"prompt": CANARY, "steps": 0}, "steps: .*1"),
    ("txt2img", {"prompt": CANARY, "n": 10**9}, "n: .*10"),
    ("txt2img", {"prompt": CANARY, "negative_prompt": f"a|{CANARY}"}, "negative_prompt"),
    ("img2img", {"prompt": CANARY}, "image"),
    ("img2img", {"prompt": CANARY, "image": ""}, "image"),
    ("img2img", {"prompt": "x", "image": CANARY * 100_000 + "!"}, "image is not valid base64"),
    ("img2img", {"prompt": "x", "image": base64_of(CANARY.encode())}, "image is not a PNG"),
    ("img2img", {"prompt": "x", "image": base64_of(png(1, 1))}, "1x1 pixels.* 16 to 4096"),
    ("img2img", {"prompt": "x", "image": base64_of(b"<svg>CANARY-4711</svg>")}, "image is not"),
    ("img2img", {"prompt": "x", "image": f"http://{CANARY}/a.png"}, "image must not be an address"),
    ("img2img", {"prompt": "x", "image": "job:nosuchjob"}, "job_not_found"),
    ("img2img", {"prompt": "x", "image": CANARY, "strength": 0}, "strength: .*greater than 0"),
    ("img2img", {"prompt": "x", "image": CANARY, "strength": 2}, "strength: .*or equal to 1"),
    ("img2img", {"prompt": "x", "image": base64_of(png()), "strength": 0.5}, "fixed strength"),
    ("img2txt", {}, "image"),
    ("img2txt", {"image": "x", "images": ["x"]}, "image"),
    ("img2txt", {"images": [base64_of(png())] * 9}, "images: .*8"),
    ("get_job", {"job_id": CANARY}, "job_not_found"),
    ("get_job", {}, "job_id"),
    ("cancel_job", {"job_id": CANARY}, "job_not_found"),
    ("draw_me" + CANARY, {}, "unknown_tool: .*txt2img"),
]


@pytest.mark.parametrize(("tool", "arguments", "says"), BAD)
async def test_bad_input_is_answered_with_what_to_change(
    shared_house: House, tool: str, arguments: dict[str, Any], says: str
) -> None:
    async with shared_house.client() as client:
        result = await client.call_tool(tool, arguments)

    assert result.is_error
    assert len(result.content) == 1
    assert _matches(says, words(result))
    assert CANARY not in words(result)
    assert len(words(result)) < 400


def _bomb() -> bytes:
    """Claim 13000x13000 pixels in a few bytes."""
    return png(64, 64)[:16] + (13_000).to_bytes(4, "big") * 2 + png(64, 64)[24:]


async def test_a_picture_that_would_unpack_to_gigabytes_is_refused(shared_house: House) -> None:
    async with shared_house.client() as client:
        result = await client.call_tool("img2txt", {"image": base64_of(_bomb())})

    assert result.is_error


@pytest.mark.parametrize(
    "arguments",
    [
        '{"prompt": "CANARY-4711", "temperature": NaN}',
        '{"prompt": "CANARY-4711", "temperature": Infinity}',
        '{"prompt": "CANARY-4711", "temperature": 1e999}',
        '{"prompt": "CANARY-4711", "wait_seconds": NaN}',
        '{"prompt": "CANARY-4711", "seed": %s}' % ("9" * 5000),
        '{"prompt": "CANARY-4711 \\ud800"}',
        '{"prompt": "CANARY-4711"',
        '{"prompt": %s}' % ("[" * 100_000),
    ],
)
async def test_json_that_no_client_would_send_is_refused(
    shared_house: House, arguments: str
) -> None:
    async with shared_house.http() as http:
        response = await http.post("/mcp", **_modern("txt2txt", arguments))

    assert response.status_code in (200, 400)
    assert "error" in response.text.lower()
    assert CANARY not in response.text


async def test_a_body_that_is_too_large_is_refused_readably(shared_house: House) -> None:
    async with shared_house.http() as http:
        response = await http.post("/mcp", **_modern("txt2txt", " " * (33 * 2**20)))

    assert response.status_code == 413
    assert response.json()["error"]["message"] == "the body must be at most 33,554,432 bytes"


async def test_foreign_hosts_and_pages_stay_outside(shared_house: House) -> None:
    async with shared_house.http() as http:
        for header, status in (({"host": "evil.example"}, 421), ({"origin": "http://evil"}, 403)):
            request = _modern("get_queue_status")
            request["headers"] |= header
            assert (await http.post("/mcp", **request)).status_code == status


async def test_a_failure_of_the_backend_names_the_job(own_house: House, era: str) -> None:
    own_house.sim.add_fault("status", status=400, message=f"bad {CANARY}")

    async with own_house.client(era) as client:
        result = await client.call_tool("txt2txt", {"prompt": "x"})
        figures = facts(await client.call_tool("get_error_metrics"))

    assert result.is_error
    assert words(result).startswith("backend_rejected: ")
    assert f"(job {figures['recent_errors'][0]['job_id']})" in words(result)
    assert "Error executing tool" not in words(result)


async def test_a_full_queue_says_when_to_try_again() -> None:
    with house(max_waiting=1) as small:
        small.sim.hold()
        draw = {"prompt": "x", "wait_seconds": 0, **SMALL}
        async with small.client() as client:
            await client.call_tool("txt2img", draw)
            await small.running("txt2img")
            await client.call_tool("txt2img", draw)

            result = await client.call_tool("txt2img", draw)
        small.sim.release()

    assert result.is_error
    assert _matches("queue_full: .*Try again in", words(result))


async def test_pictures_that_do_not_exist_are_not_found(shared_house: House, era: str) -> None:
    async with shared_house.client(era) as client:
        made = facts(await client.call_tool("txt2txt", {"prompt": "repeat: x"}))["job_id"]
        for address in ("nosuchjob/0", f"{made}/0", f"{made}/x", f"{made}/-1"):
            with pytest.raises(MCPError) as caught:
                await client.read_resource(f"inference://images/{address}")
            assert caught.value.code == -32602


async def test_a_picture_cannot_be_read_before_it_is_there(own_house: House) -> None:
    own_house.sim.hold()
    async with own_house.client() as client:
        draw = {"prompt": "x", "wait_seconds": 0, **SMALL}
        address = f"inference://images/{facts(await client.call_tool('txt2img', draw))['job_id']}/0"

        with pytest.raises(MCPError, match="has not ended yet"):
            await client.read_resource(address)


async def test_the_tools_are_few_and_say_what_they_take(shared_house: House, era: str) -> None:
    async with shared_house.client(era) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        templates = (await client.list_resource_templates()).resource_templates
        assert client.instructions is not None
        assert "get_job" in client.instructions

    assert tools.keys() == NAMES
    assert [t.uri_template for t in templates] == [
        *(f"inference://{kind}/{{job_id}}/{{index}}" for kind in ("images", "audio", "videos")),
        "inference://jobs/{job_id}",
    ]
    for name, tool in tools.items():
        assert tool.description
        assert tool.title
        assert (tool.output_schema is not None) == (name in FIGURES)
        assert tool.annotations is not None
        for argument, schema in tool.input_schema["properties"].items():
            assert schema.get("description"), f"{name}.{argument}"
        assert len(json.dumps(tool.input_schema)) < 3000
    assert sum(len(tool.model_dump_json(exclude_none=True)) for tool in tools.values()) < 28_000


@pytest.mark.parametrize("kind", [REQUESTS[Modality(name)] for name in sorted(MAKES)])
async def test_the_tools_tell_the_ranges_that_the_core_enforces(
    shared_house: House, kind: Any
) -> None:
    async with shared_house.client() as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}

    told = tools[str(kind.modality)].input_schema["properties"]
    enforced = kind.model_json_schema()["properties"]
    for name in told.keys() & enforced.keys() - {"model", "messages", "prompt", "image", "images"}:
        assert _ranges(told[name]) == _ranges(enforced[name]) or name == "question", name


async def test_the_figures_are_structured(shared_house: House, era: str) -> None:
    async with shared_house.client(era) as client:
        await client.call_tool("txt2txt", {"prompt": "repeat: x"})
        status = facts(await client.call_tool("get_queue_status"))
        models = facts(await client.call_tool("list_models"))
        requests = facts(await client.call_tool("get_request_metrics", {"dummy": "x"}))
        errors = facts(await client.call_tool("get_error_metrics"))

    assert status["queues"]["txt2txt"]["priority"] == 1
    assert {"sim-chat", "sim-image"} <= {model["name"] for model in models["models"]}
    assert requests["by_modality"]["txt2txt"]["completed"] >= 1
    assert "recent_errors" in errors


async def test_without_http_the_addresses_are_those_of_home() -> None:
    servers: list[MCPServer] = []
    app = create_app(
        Settings(log_file=None, log_level="error"), backends=[], extend_mcp=servers.append
    )

    with logging_kept():
        async with app.router.lifespan_context(app), Client(servers[0]) as client:
            given = facts(await client.call_tool("txt2txt", {"prompt": "x", "wait_seconds": 0}))
            again = facts(await client.call_tool("cancel_job", {"job_id": given["job_id"]}))

    assert (given["state"], again["state"]) == ("queued", "cancelled")


async def test_a_mistake_of_ours_is_logged_and_not_shown(
    caplog: pytest.LogCaptureFixture,
) -> None:
    servers: list[MCPServer] = []
    create_app(Settings(log_file=None), backends=[], extend_mcp=servers.append)

    @servers[0].tool()
    async def mistaken() -> str:
        raise RuntimeError(CANARY)

    async with Client(servers[0]) as client:
        result = await client.call_tool("mistaken")

    assert result.is_error
    assert words(result) == "internal_error: the server made a mistake; its log says more."
    assert "the tool mistaken failed unexpectedly" in caplog.text


def _modern(tool: str, arguments: str = "{}") -> dict[str, Any]:
    """Make a tool call in the protocol of 2026, which needs no session; arguments are raw JSON."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    params = {"name": tool, "_meta": meta, "arguments": "ARGUMENTS"}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    return {
        "content": json.dumps(body).replace('"ARGUMENTS"', arguments),
        "headers": {
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
            "mcp-protocol-version": "2026-07-28",
            "mcp-method": "tools/call",
            "mcp-name": tool,
        },
    }


async def _in_a_session(
    http: httpx2.AsyncClient, tool: str, arguments: dict[str, Any]
) -> dict[str, Any]:
    """Shake hands in the protocol until 2025, and make a tool call."""
    headers = {"accept": "application/json, text/event-stream"}
    hello = {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    }
    for message in (
        {"id": 1, "method": "initialize", "params": hello},
        {"method": "notifications/initialized"},
    ):
        answered = await http.post("/mcp", headers=headers, json={"jsonrpc": "2.0", **message})
        assert answered.is_success
        headers["mcp-protocol-version"] = "2025-11-25"
        headers.setdefault("mcp-session-id", answered.headers.get("mcp-session-id", ""))
    call = {"id": 2, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}
    return {"headers": headers, "json": {"jsonrpc": "2.0", **call}}


def _ended(job: Any) -> bool:
    return job["state"] not in ("queued", "processing", "retrying")


def _matches(pattern: str, text: str) -> bool:
    return re.search(pattern, text, re.DOTALL) is not None


def _ranges(schema: dict[str, Any]) -> dict[str, Any]:
    """Take the limits out of a schema, wherever an optional field keeps them."""
    kept: dict[str, Any] = {}
    for part in (schema, *schema.get("anyOf", [])):
        for key in ("minimum", "maximum", "exclusiveMinimum", "maxItems"):
            if key in part:
                kept[key] = part[key]
    return kept


def _noise(side: int) -> bytes:
    buffer = io.BytesIO()
    pixels = random.Random(1).randbytes(side * side * 3)
    PIL.Image.frombytes("RGB", (side, side), pixels).save(buffer, "PNG", compress_level=0)
    return buffer.getvalue()
