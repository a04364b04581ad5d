"""A job as an MCP result: what the model reads, what it sees, and what a program reads.

Hosts differ in what they pass on to their model: some only the text, some only the structured
content, few the links. So the facts stand in both, and picture data in neither.
"""

import base64
from collections.abc import Sequence
from typing import Any, Literal

from mcp.types import CallToolResult, ContentBlock, ImageContent, ResourceLink, TextContent

from ..handles import result_of
from ..models.jobs import Job
from ..models.results import Image
from ..utils.images import preview
from .views import JobView

Output = Literal["preview", "full", "link"]

MAX_INLINE_BYTES = 700_000  # of pictures in one result: hosts refuse results of more than 1 MiB
MAX_PREVIEW_BYTES = 450_000

_EXTENSIONS = {"image/png": "png", "image/jpeg": "jpg", "image/webp": "webp"}


async def answer(job: Job, view: JobView, output: Output) -> CallToolResult:
    """Make the result of a tool that is about one job.

    Raises:
        InferenceManagerError: the job ended without success.

    """
    content: list[ContentBlock]
    if not job.state.terminal:
        content = [_text(_come_back(view))]
    elif images := result_of(job).images:
        content = [_text(view.model_dump_json(exclude_none=True)), *_links(view)]
        content += [_inline(image) for image in await _shown(images, output)]
    else:
        content = [_text(view.text or "")]
        content += [_text(note) for note in _notes(view)]
    return CallToolResult(content=content, structured_content=_facts(view))


def plainly(view: JobView) -> CallToolResult:
    """Make the result of a tool that tells how a job is, not what came of it."""
    text = _text(view.model_dump_json(exclude_none=True))
    return CallToolResult(content=[text], structured_content=_facts(view))


def file_name(job_id: str, index: int, media_type: str) -> str:
    """Name a picture as a file."""
    return f"{job_id}-{index}.{_EXTENSIONS.get(media_type, 'bin')}"


def _facts(view: JobView) -> dict[str, Any]:
    return view.model_dump(mode="json", exclude_none=True)


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
    if view.simulated:
        notes.append("(simulated: true. A simulator wrote this, not a model.)")
    return notes


def _links(view: JobView) -> list[ContentBlock]:
    return [
        ResourceLink(
            type="resource_link",
            name=file_name(view.job_id, index, image.media_type),
            title=f"{image.width}x{image.height}",
            uri=image.uri,
            mime_type=image.media_type,
            size=image.size_bytes,
        )
        for index, image in enumerate(view.images)
    ]


async def _shown(images: Sequence[Image], output: Output) -> Sequence[Image]:
    if output == "link":
        return ()
    if output == "full" and sum(len(image.data) for image in images) <= MAX_INLINE_BYTES:
        return images
    share = min(MAX_PREVIEW_BYTES, MAX_INLINE_BYTES // len(images))
    return [await preview(image, max_bytes=share) for image in images]


def _inline(image: Image) -> ImageContent:
    data = base64.b64encode(image.data).decode("ascii")
    return ImageContent(type="image", data=data, mime_type=image.media_type)


def _text(text: str) -> TextContent:
    return TextContent(type="text", text=text)
