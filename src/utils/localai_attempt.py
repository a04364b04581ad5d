"""One attempt at one request: what is asked for, in which order, and what counts as an answer."""

import asyncio
import binascii
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar, assert_never

import httpx2

from ..models.blobs import Blob, Content
from ..models.errors import BackendError
from ..models.modality import Modality
from ..models.ports import Blobs
from ..models.requests import (
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
from ..models.results import Audio, ChoiceEnd, Chunk, Finish, TextDelta, Video, chat_id
from . import localai_answers as answers
from . import localai_requests as requests
from .images import apart
from .localai_chat import ChatAnswer, in_one_piece
from .localai_continuation import Continuation
from .localai_http import Server
from .localai_media import Film, Recording
from .localai_requests import Form
from .sse_reader import SSEReader
from .strict_json import JsonObject

_SMALL = 64 * 1024  # bytes that are cheaper to encode or to parse here than in a thread
_TEXTS_AT_ONCE = 128  # embeddings that are asked for in one go, so that no answer grows too large
_LAST_WORDS_S = 0.25  # for the end of a stream after its [DONE], so that its socket is used again
_SIMULATED = "x-simulated"
_CHAT = "/v1/chat/completions"
_TEXT = "/v1/completions"
_NOT_SERVED = "LocalAI 4.9 keeps inpainted pictures outside the folder that it serves"

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long and how large answers may be.

    Attributes:
        first_byte_s: the longest silence before the first word, or before all of what is made.
        stream_bytes: the longest stream of text.
        answer_bytes: the longest JSON.
        media_bytes: the longest recording or film.

    """

    first_byte_s: Mapping[Modality, float]
    stream_bytes: int
    answer_bytes: int
    media_bytes: int


class Attempt:
    """One attempt at one request; its chunks may be asked for once."""

    def __init__(
        self,
        server: Server,
        blobs: Blobs,
        limits: Limits,
        request: InferenceRequest,
        model: str,
        job_id: str,
    ) -> None:
        self._server = server
        self._blobs = blobs
        self._limits = limits
        self._request = request
        self._model = model
        self._job_id = job_id
        self._name = chat_id(job_id)
        self._scene = server.scene(model, *requests.words_of(request))
        self._silence = limits.first_byte_s[request.modality]
        self._simulated = False
        self._tokens = (0, 0)

    def chunks(self) -> AsyncGenerator[Chunk]:
        """Carry it out; the last chunk is always a `Finish`."""
        match request := self._request:
            case Txt2TxtRequest() | Img2TxtRequest():
                return self._chat(request)
            case CompletionRequest():
                return self._continue(request)
            case ModerationRequest():
                return self._judge(request)
            case Txt2ImgRequest() | Img2ImgRequest():
                return self._draw(request)
            case InpaintRequest():
                return self._inpaint(request)
            case Txt2VecRequest():
                return self._embed(request)
            case RerankRequest():
                return self._rerank(request)
            case Txt2AudioRequest():
                return self._speak(request)
            case Txt2SoundRequest():
                return self._sound(request)
            case Audio2TxtRequest():
                return self._transcribe(request)
            case Txt2VideoRequest():
                return self._film(request)
            case _:
                assert_never(request)

    async def _chat(self, request: Txt2TxtRequest | Img2TxtRequest) -> AsyncGenerator[Chunk]:
        pictures = await self._sources()
        ends: list[ChoiceEnd] = []
        for number in range(request.n):
            body = await self._encoded(
                partial(requests.chat, request, self._model, pictures, number)
            )
            if request.logprobs:
                answer = await self._asked(_CHAT, body, again=number > 0)
                for chunk in in_one_piece(answer, self._scene, number):
                    if isinstance(chunk, ChoiceEnd):
                        ends.append(chunk)
                    yield chunk
                continue
            told = ChatAnswer(self._scene, choice=number, name=self._name)
            async with aclosing(self._told(_CHAT, body, told, again=number > 0)) as deltas:
                async for delta in deltas:
                    yield delta
            ends.append(told.end())
            if request.n > 1:
                yield ends[-1]
        yield self._finish(ends[0].reason)

    async def _continue(self, request: CompletionRequest) -> AsyncGenerator[Chunk]:
        ends: list[ChoiceEnd] = []
        for number in range(len(request.prompts) * request.n):
            prompt = request.prompts[number // request.n]
            body = await self._encoded(
                partial(requests.completion, request, self._model, prompt, number % request.n)
            )
            told = Continuation(self._scene, choice=number, longest=request.max_tokens)
            async with aclosing(
                self._told(_TEXT, body, told, again=number % request.n > 0)
            ) as deltas:
                async for delta in deltas:
                    yield delta
            ends.append(told.end())
            yield ends[-1]
        yield self._finish(ends[0].reason)

    async def _told(
        self, path: str, body: bytes, told: ChatAnswer | Continuation, *, again: bool
    ) -> AsyncGenerator[TextDelta]:
        """Yield the pieces of one streamed answer; `told` then knows how it ended."""
        reader = SSEReader()

        def silence() -> float:
            """Before the first word a model may be loading, whatever was sent ahead of it."""
            return self._server.idle_s if told.begun else self._silence

        limit = self._limits.stream_bytes
        async with (
            self._post(path, body) as answer,
            aclosing(self._server.pieces(answer, limit, silence)) as pieces,
        ):
            self._simulated = _SIMULATED in answer.headers
            await self._server.expect(answer, self._scene, _is_stream, "a stream of events")
            async for piece in pieces:
                for delta in told.read_all(reader.feed(piece)):
                    yield delta
                if told.done:
                    await _drain(pieces)
                    break
            else:
                told.last(reader.close())
        self._count(told.tokens, again=again)

    async def _judge(self, request: ModerationRequest) -> AsyncGenerator[Chunk]:
        self._scene = replace(self._scene, service="moderations")
        body = await self._encoded(lambda: requests.moderation(request, self._model))
        answer = await self._asked("/v1/moderations", body)
        yield answers.verdict(answer, self._scene, len(request.input))
        yield self._finish()

    async def _draw(self, request: Txt2ImgRequest | Img2ImgRequest) -> AsyncGenerator[Chunk]:
        source = b"".join(await self._sources())
        for number in range(request.n):
            body = await self._encoded(
                partial(requests.drawing, request, self._model, number, source)
            )
            yield await self._picture(
                await self._asked("/v1/images/generations", body),
                seed=requests.seed_of(request, number),
                size=requests.size_of(request),
                source=source,
            )
        yield self._finish()

    async def _inpaint(self, request: InpaintRequest) -> AsyncGenerator[Chunk]:
        image, mask = await self._sources()
        form = requests.inpainting(request, self._model, image, mask)
        yield await self._picture(await self._asked("/v1/images/inpainting", form))
        yield self._finish()

    async def _embed(self, request: Txt2VecRequest) -> AsyncGenerator[Chunk]:
        length = 0
        for at in range(0, len(request.input), _TEXTS_AT_ONCE):
            texts = request.input[at : at + _TEXTS_AT_ONCE]
            body = await self._encoded(partial(requests.embedding, request, texts, self._model))
            answer = await self._asked("/v1/embeddings", body)
            vectors = await asyncio.to_thread(
                answers.vectors, answer, self._scene, len(texts), length
            )
            length = len(vectors[0].values)
            for vector in vectors:
                yield vector
        yield self._finish()

    async def _rerank(self, request: RerankRequest) -> AsyncGenerator[Chunk]:
        body = await self._encoded(lambda: requests.reranking(request, self._model))
        answer = await self._asked("/v1/rerank", body)
        documents = len(request.documents)
        for rank in answers.ranking(answer, self._scene, documents, request.top_n):
            yield rank
        yield self._finish()

    async def _speak(self, request: Txt2AudioRequest) -> AsyncGenerator[Chunk]:
        body = await self._encoded(lambda: requests.speech(request, self._model))
        recording = Recording(self._server.name, raw=request.format == "pcm")
        yield await self._recorded(self._post("/v1/audio/speech", body), recording)
        yield self._finish()

    async def _sound(self, request: Txt2SoundRequest) -> AsyncGenerator[Chunk]:
        body = await self._encoded(lambda: requests.sound(request, self._model))
        recording = Recording(self._server.name)
        yield await self._recorded(self._post("/v1/sound-generation", body), recording)
        yield self._finish()

    async def _transcribe(self, request: Audio2TxtRequest) -> AsyncGenerator[Chunk]:
        [recording] = await self._sources()
        form = requests.transcription(request, self._model, recording)
        answer = await self._asked("/v1/audio/transcriptions", form)
        text, heard = answers.transcript(answer, self._scene)
        if text:
            yield TextDelta(text)
        yield heard
        yield self._finish()

    async def _film(self, request: Txt2VideoRequest) -> AsyncGenerator[Chunk]:
        first = b"".join(await self._sources())
        body = await self._encoded(lambda: requests.film(request, self._model, first))
        made = await self._made(await self._asked("/video", body), "film")
        film = Film(self._server.name)
        if isinstance(made, str):
            file = self._server.file(made, self._job_id, self._scene)
            content = await self._received(file, film)
        else:
            film.feed(made)
            film.complete()
            content = await self._blobs.keep(made)
        yield Video(content, film.media_type)
        yield self._finish()

    # What all of them need

    async def _sources(self) -> list[bytes]:
        """Fetch the pictures and recordings of the request, just before they are sent."""
        return [await self._source(text) for text in requests.sources_of(self._request)]

    async def _source(self, text: str) -> bytes:
        blob = Blob.referred_to(text)
        if blob is not None:
            return await self._blobs.read(blob)
        return await self._aside(len(text), partial(binascii.a2b_base64, text.rpartition(",")[2]))

    async def _encoded(self, build: Callable[[], JsonObject]) -> bytes:
        return await self._aside(self._request.size_bytes, lambda: requests.encode(build()))

    async def _aside(self, size: int, work: Callable[[], T]) -> T:
        """Work here if there is little of it, in a thread if there is much."""
        return work() if size <= _SMALL else await asyncio.to_thread(work)

    def _post(self, path: str, body: bytes | Form) -> AbstractAsyncContextManager[httpx2.Response]:
        name = self._name if path == _CHAT else self._job_id
        return self._server.post(path, body, name, self._silence, self._scene)

    async def _asked(self, path: str, body: bytes | Form, *, again: bool = False) -> JsonObject:
        """Ask for JSON, and add to the count what it counted."""
        async with self._post(path, body) as response:
            self._simulated = _SIMULATED in response.headers
            content = await self._server.body(response, self._limits.answer_bytes)
        answer = await self._aside(len(content), partial(answers.answer_in, content, self._scene))
        self._count(answers.tokens_in(answer), again=again)
        return answer

    def _count(self, tokens: tuple[int, int], *, again: bool = False) -> None:
        """Add what was counted; a prompt that is answered `again` counts once."""
        prompt, completion = tokens
        self._tokens = (self._tokens[0] + (0 if again else prompt), self._tokens[1] + completion)

    async def _made(self, answer: JsonObject, what: str) -> bytes | str:
        return await asyncio.to_thread(answers.made, answer, self._scene, what)

    async def _picture(
        self,
        answer: JsonObject,
        *,
        seed: int | None = None,
        size: tuple[int, int] | None = None,
        source: bytes = b"",
    ) -> Chunk:
        """Take the picture out of an answer, or fetch it; check and keep it."""
        made = await self._made(answer, "picture")
        if isinstance(made, str):
            async with self._server.file(made, self._job_id, self._scene, _NOT_SERVED) as file:
                made = await self._server.body(file, self._limits.answer_bytes)
        picture = await apart(
            partial(answers.picture, made, self._scene, seed=seed, size=size, source=source)
        )
        return replace(picture, data=await self._blobs.keep(made))

    async def _recorded(
        self, post: AbstractAsyncContextManager[httpx2.Response], recording: Recording
    ) -> Chunk:
        content = await self._received(post, recording)
        return Audio(content, recording.media_type, recording.seconds)

    async def _received(
        self,
        asked: AbstractAsyncContextManager[httpx2.Response],
        check: Recording | Film,
    ) -> Content:
        """Keep what comes, piece by piece; nothing is left of it if it turns out to be no good."""
        writer = self._blobs.open()
        try:
            async with asked as answer:
                self._simulated = _SIMULATED in answer.headers
                await self._server.expect(answer, self._scene, _is_binary, "what it should make")
                limit = self._limits.media_bytes
                async with aclosing(self._server.pieces(answer, limit)) as pieces:
                    async for piece in pieces:
                        check.feed(piece)
                        await writer.write(piece)
            check.complete()
            return await writer.finish()
        except BaseException:
            await writer.discard()
            raise

    def _finish(self, reason: str = "stop") -> Finish:
        return Finish(reason, *self._tokens, self._simulated)


def _is_stream(media_type: str) -> bool:
    return media_type == "text/event-stream"


def _is_binary(media_type: str) -> bool:
    return media_type != "application/json" and not media_type.startswith("text/")


async def _drain(pieces: AsyncGenerator[bytes]) -> None:
    """Wait a moment for the end of a stream that is done; if it does not come, so be it."""
    try:
        async with asyncio.timeout(_LAST_WORDS_S):
            async for _ in pieces:
                pass
    except (TimeoutError, BackendError):
        pass
