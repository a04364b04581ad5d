"""Runs a job again that has ended, as a new one."""

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

from .handles import JobHandle
from .models.blobs import Blob
from .models.errors import InvalidTransition
from .models.jobs import Job, Promise
from .models.ports import Blobs
from .models.requests import MEDIA, InferenceRequest
from .processor import Processor


async def run_again(
    processor: Processor, blobs: Blobs, job: Job, promise: Promise | None = None
) -> JobHandle:
    """Submit what a job asked for once more, with as much time, as its caller's new job.

    Args:
        processor: what runs it.
        blobs: where its pictures and recordings are.
        job: the one that has ended.
        promise: what is promised of the new one besides.

    Raises:
        InvalidTransition: the job has not ended.
        UnknownJob: its pictures or recordings are not kept any more.
        InferenceManagerError: as `Processor.submit`.

    """
    if not job.state.terminal:
        raise InvalidTransition(
            f"a job that is {job.state} cannot be run again",
            hint="wait until it has ended, or cancel it first",
        )
    request = await _copied(job.request, blobs)
    try:
        return await processor.submit(
            request,
            caller=job.caller,
            level=job.level,
            deadline_s=job.deadline - job.submitted_at,
            promise=replace(
                promise or Promise(),
                retry_of=job.id,
                webhook="" if job.promise is None else job.promise.webhook,
            ),
        )
    except Exception:
        await blobs.drop(request.blobs)
        raise


async def _copied(request: InferenceRequest, blobs: Blobs) -> InferenceRequest:
    """Return the request with blobs of its own: those of a job go when it is forgotten."""
    copies: dict[str, str] = {}
    try:
        for blob in request.blobs:
            copies[blob.reference] = (await blobs.copy(blob)).reference
    except BaseException:
        await blobs.drop(b for text in copies.values() if (b := Blob.referred_to(text)))
        raise
    if not copies:
        return request
    given = {name: getattr(request, name) for name in MEDIA & request.model_fields_set}
    return request.model_copy(update={name: _in(value, copies) for name, value in given.items()})


def _in(value: object, copies: Mapping[str, str]) -> object:
    match value:
        case str():
            return copies.get(value, value)
        case tuple():
            return tuple(_in(one, copies) for one in cast("tuple[object, ...]", value))
        case _:
            return value
