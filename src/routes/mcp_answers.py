"""A job as an MCP result: what the model reads, what it sees or hears, and what a program reads.

Hosts differ in what they pass on to their model: some only the text, some only the structured
content, few the links. So the facts stand in both, and media data in neither.
"""

import base64
import json
from dataclasses import replace
from itertools import chain
from typing import Any, Literal

from mcp.types import (
    AudioContent,
    CallToolResult,
    ContentBlock,
    ImageContent,
    ResourceLink,
    TextContent,
)

from ..handles import result_of
from ..models.blobs import Content, size_of
from ..models.errors import InferenceManagerError
from ..models.jobs import Job
from ..models.ports import Blobs
from ..models.results import Result
from ..utils.images import preview
from .errors import in_words
from .views import ImageView, JobView, file_name

Output = Literal["preview", "full", "link"]

MAX_INLINE_BYTES = 700_000  # of media in one result: hosts refuse results of more than 1 MiB
MAX_PREVIEW_BYTES = 450_000
MAX_NUMBERS = 2_048  # of vectors in one result: a model can do nothing with more of them
MAX_SEGMENTS = 200


async def answer(job: Job, view: JobView, output: Output, blobs: Blobs) -> CallToolResult:
    """Make the result of a tool that is about one job.

    Raises:
        InferenceManagerError: the job ended without success, or its media are gone.

    """
    if not job.state.terminal:
        text = _text(_come_back(view))
        return CallToolResult(content=[text], structured_content=facts(job, view))
    result = result_of(job)
    content: list[ContentBlock]
    if view.text is not None:
        content = [_text(view.text), *map(_text, _notes(view))]
    else:
        content = [_text(view.model_dump_json(exclude_none=True)), *_links(view)]
        content += await _inline(result, output, blobs)
    return CallToolResult(content=content, structured_content=facts(job, view))


def facts(job: Job, view: JobView) -> dict[str, Any]:
    """Say all about a job that a program may want to know, but for large parts of its result."""
    shown = view.model_copy()
    if (heard := view.transcript) is not None:
        shown.transcript = heard.model_copy(update={"segments": heard.segments[:MAX_SEGMENTS]})
    vectors = () if job.result is None else job.result.vectors
    if sum(len(vector.values) for vector in vectors) <= MAX_NUMBERS:
        shown.vectors = [vector.values.tolist() for vector in vectors] or None
    return shown.model_dump(mode="json", exclude_none=True)


def plainly(told: dict[str, Any]) -> CallToolResult:
    """Make the result of a tool that tells facts, in words and for programs."""
    return CallToolResult(content=[_text(json.dumps(told))], structured_content=told)


def refusal(error: InferenceManagerError, job_id: str) -> CallToolResult:
    """Make the result of a tool whose job has none."""
    return CallToolResult(content=[_text(in_words(error, job_id=job_id))], is_error=True)


def _come_back(view: JobView) -> str:
    place = "" if view.position is None else f", {view.position} jobs go first"
    return (
        f"Not finished yet: job {view.job_id} is {view.state}{place}. It goes on by itself. "
        f'Call get_job with job_id "{view.job_id}" to wait for it and collect the result, '
        f"or cancel_job to give it up."
    )


def _notes(view: JobView) -> list[str]:
    notes: list[str] = []
    if view.finish_reason == "length":
        notes.append("(The answer was cut at its longest; a larger max_tokens gives more.)")
    if view.transcript is not None and len(view.transcript.segments) > MAX_SEGMENTS:
        left = len(view.transcript.segments) - MAX_SEGMENTS
        notes.append(f"(The times of the last {left} segments are left out.)")
    if view.simulated:
        notes.append("(simulated: true. A simulator wrote this, not a model.)")
    return notes


def _links(view: JobView) -> list[ContentBlock]:
    media = chain(view.images or (), view.audio or (), view.videos or ())
    links: list[ContentBlock] = [
        ResourceLink(
            type="resource_link",
            name=file_name(view.job_id, index, medium.media_type),
            title=f"{medium.width}x{medium.height}" if isinstance(medium, ImageView) else None,
            uri=medium.uri,
            mime_type=medium.media_type,
            size=medium.size_bytes,
        )
        for index, medium in enumerate(media)
    ]
    if view.vectors_url is not None:
        links.append(
            ResourceLink(
                type="resource_link",
                name=f"{view.job_id}.json",
                title="All vectors, by HTTP",
                uri=view.vectors_url,
                mime_type="application/json",
            )
        )
    return links


async def _inline(result: Result, output: Output, blobs: Blobs) -> list[ContentBlock]:
    """Show the pictures of a result, small enough for a message, or play its recordings."""
    if output == "link":
        return []
    small = sum(size_of(medium.data) for medium in result.media) <= MAX_INLINE_BYTES
    blocks: list[ContentBlock] = []
    for image in result.images:
        shown = replace(image, data=await blobs.read(image.data))
        if output != "full" or not small:
            share = min(MAX_PREVIEW_BYTES, MAX_INLINE_BYTES // len(result.images))
            shown = await preview(shown, max_bytes=share)
        data = await _base64(shown.data, blobs)
        blocks.append(ImageContent(type="image", data=data, mime_type=shown.media_type))
    for audio in result.audio if small else ():
        data = await _base64(audio.data, blobs)
        blocks.append(AudioContent(type="audio", data=data, mime_type=audio.media_type))
    return blocks


async def _base64(content: Content, blobs: Blobs) -> str:
    return base64.b64encode(await blobs.read(content)).decode("ascii")


def _text(text: str) -> TextContent:
    return TextContent(type="text", text=text)
