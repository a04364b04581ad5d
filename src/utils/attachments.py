"""What requests bring along: their pictures and recordings, checked and kept as blobs."""

import binascii
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from typing import assert_never, cast

from ..models.blobs import Blob
from ..models.errors import InvalidInput
from ..models.ports import Blobs
from ..models.requests import (
    MEDIA,
    Audio2TxtRequest,
    CompletionRequest,
    Img2ImgRequest,
    Img2TxtRequest,
    InferenceRequest,
    InpaintRequest,
    ModerationRequest,
    RerankRequest,
    Txt2AudioRequest,
    Txt2ImgRequest,
    Txt2SoundRequest,
    Txt2TxtRequest,
    Txt2VecRequest,
    Txt2VideoRequest,
)
from ..models.results import Audio, Image
from . import images, sound
from .base64_text import decoded
from .images import MAX_SENT_BYTES, Canonical, apart
from .spool import Spool

Lookup = Callable[[str, int], Awaitable[Image | Audio]]
"""Finds the n-th picture or recording (from 0) that a job made."""

_LONGEST_JOB = _LONGEST_WORD = 200
_JOB = re.compile(r"\s*job:([\w-]{1,128})(?:/(\d{1,3}))?\s*", re.ASCII)


async def prepare(
    request: InferenceRequest,
    lookup: Lookup,
    blobs: Blobs,
    uploads: Mapping[str, bytes] | None = None,
) -> InferenceRequest:
    """Check each picture and recording of a request; write in its place where it is kept.

    A small one stays in the request, as a ``data:`` URI. A picture is encoded anew; an img2img
    request that says nothing of its size is given the picture's, where possible. What was set
    aside in a `Spool` is taken from there. A text that is the name of one of the `uploads` stands
    for it, and errors name it so.

    Raises:
        InvalidInput: one is none, or not one that is allowed; `param` names the field.
        StorageFailed: one cannot be kept.

    """
    guard = _Guard(lookup, blobs, uploads or {})
    try:
        async with guard.turn(request):
            changes = await guard.changes(request)
    except BaseException:
        await blobs.drop(guard.kept)
        raise
    return request.model_copy(update=changes) if changes else request


class _Guard:
    """Checks and keeps what one request brings along."""

    def __init__(self, lookup: Lookup, blobs: Blobs, uploads: Mapping[str, bytes]) -> None:
        self.kept: list[Blob] = []
        self._lookup = lookup
        self._blobs = blobs
        self._uploads = uploads
        self._spool = blobs if isinstance(blobs, Spool) else None

    def turn(self, request: InferenceRequest) -> AbstractAsyncContextManager[object]:
        """Return what to hold meanwhile: what was set aside is read by few at once."""
        if self._spool is not None and any(map(self._spool.stands, _short_texts(request))):
            return self._spool.turns
        return nullcontext()

    async def changes(self, request: InferenceRequest) -> Mapping[str, object]:
        match request:
            case Img2ImgRequest():
                return await self._img2img(request)
            case Img2TxtRequest():
                return await self._img2txt(request)
            case InpaintRequest():
                return await self._inpaint(request)
            case Txt2VideoRequest():
                return await self._txt2video(request)
            case Audio2TxtRequest():
                return {"audio": await self._recording(request.audio, "audio")}
            case (
                Txt2TxtRequest()
                | CompletionRequest()
                | ModerationRequest()
                | Txt2ImgRequest()
                | Txt2VecRequest()
                | RerankRequest()
                | Txt2AudioRequest()
                | Txt2SoundRequest()
            ):
                return {}
            case _:
                assert_never(request)

    async def _img2img(self, request: Img2ImgRequest) -> Mapping[str, object]:
        source = await self._picture(request.image, "image")
        changes: dict[str, object] = {"image": await self._keep(source.data, source.media_type)}
        if request.width is None and request.height is None:
            changes["width"], changes["height"] = images.drawable(*source.size)
        return changes

    async def _img2txt(self, request: Img2TxtRequest) -> Mapping[str, object]:
        share, alone = MAX_SENT_BYTES // len(request.images), len(request.images) == 1
        kept: list[str] = []
        for number, text in enumerate(request.images):
            field = "messages" if request.messages else "image" if alone else f"images.{number}"
            picture = await self._picture(text, field, share)
            kept.append(await self._keep(picture.data, picture.media_type))
        return {"images": tuple(kept)}

    async def _inpaint(self, request: InpaintRequest) -> Mapping[str, object]:
        picture = await self._picture(request.image, "image")
        read = await self._reader(request.mask, "mask", Image, images.ALLOWED)
        mask = await apart(lambda: images.mask(read(), "mask", picture))
        return {
            "image": await self._keep(picture.data, picture.media_type),
            "mask": await self._keep(mask.data, mask.media_type),
        }

    async def _txt2video(self, request: Txt2VideoRequest) -> Mapping[str, object]:
        if request.image is None:
            return {}
        first = await self._picture(request.image, "image")
        return {"image": await self._keep(first.data, first.media_type)}

    async def _picture(self, text: str, field: str, limit: int = MAX_SENT_BYTES) -> Canonical:
        field = text if self._is_upload(text) else field
        read = await self._reader(text, field, Image, images.ALLOWED)
        return await apart(lambda: images.canonical(read(), field, limit))

    async def _recording(self, text: str, field: str) -> str:
        field = text if self._is_upload(text) else field
        read = await self._reader(text, field, Audio, sound.ALLOWED)

        def checked() -> tuple[bytes, str]:
            data = read()
            return data, sound.recording_type(data, field)

        return await self._keep(*await apart(checked))

    async def _reader(
        self, text: str, field: str, kind: type[Image | Audio], allowed: str
    ) -> Callable[[], bytes]:
        """Return what takes the bytes out of a text, to be called in a thread."""
        if self._is_upload(text):
            return lambda: self._uploads[text]
        match = _JOB.fullmatch(text) if len(text) <= _LONGEST_JOB else None
        if match is None:
            if self._spool is not None and len(text) <= _LONGEST_WORD:
                aside = await self._spool.take(text)
                text = text if aside is None else aside.decode("ascii")
            return partial(decoded, text, field, allowed=allowed)
        made = await self._lookup(match[1], int(match[2] or 0))
        if not isinstance(made, kind):
            raise InvalidInput(f"{field}: that job made something else", param=field, hint=allowed)
        data = await self._blobs.read(made.data)
        return lambda: data

    def _is_upload(self, text: str) -> bool:
        return len(text) <= _LONGEST_WORD and text in self._uploads

    async def _keep(self, data: bytes, media_type: str) -> str:
        content = await self._blobs.keep(data)
        if isinstance(content, Blob):
            self.kept.append(content)
            return content.reference
        base64 = binascii.b2a_base64(content, newline=False).decode("ascii")
        return f"data:{media_type};base64,{base64}"


def _short_texts(request: InferenceRequest) -> Iterator[str]:
    for name in MEDIA & request.model_fields_set:
        value: object = getattr(request, name)
        texts = cast("tuple[object, ...]", value) if isinstance(value, tuple) else (value,)
        yield from (text for text in texts if isinstance(text, str) and len(text) <= _LONGEST_WORD)
