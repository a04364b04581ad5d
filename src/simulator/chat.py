"""`/v1/chat/completions`: words at a model's pace, with silence before the first one."""

import asyncio
import base64
import binascii
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from itertools import chain

from . import faults, text, wire
from .config import Kind, ModelConfig
from .descriptions import describe
from .exchange import AT_THE_END, Exchange
from .pictures import NOT_A_PICTURE
from .simulation import Simulation

KINDS: tuple[Kind, ...] = ("chat", "vision")


async def chat(exchange: Exchange, simulation: Simulation) -> None:
    """Answer a chat completion, streamed or in one piece."""
    request = wire.parsed(wire.ChatRequest, exchange.body)
    entry = exchange.record
    entry.stream = bool(request.stream)
    name = simulation.requested(exchange, request.model, KINDS)
    messages, pictures = _read(request)
    facts = simulation.facts(
        exchange,
        modality="img2txt" if pictures else "txt2txt",
        prompt=text.last_question(messages),
    )
    await simulation.befall(exchange, facts)
    model = simulation.installed(name, KINDS)
    crowd = simulation.engine.world.crowd(simulation.config.target(name))
    if model.max_concurrent is not None and crowd >= model.max_concurrent:
        raise wire.rejected(name)
    completion = _Completion(exchange, simulation, model, request, messages, pictures)
    if request.stream and exchange.garbage is None:
        await completion.stream()
    else:
        await completion.reply()


def _read(request: wire.ChatRequest) -> tuple[list[text.Message], list[bytes]]:
    """Split messages into words and pictures; a picture that is no data URI is dropped."""
    messages: list[text.Message] = []
    pictures: list[bytes] = []
    for message in request.messages or ():
        if isinstance(message.content, str) or message.content is None:
            messages.append(text.Message(message.role, message.content or ""))
            continue
        words = [part.text for part in message.content if part.text]
        messages.append(text.Message(message.role, "\n".join(words)))
        for part in message.content:
            url = part.image_url
            picture = _decoded(url.url if isinstance(url, wire.ImageUrl) else url or "")
            if picture is not None:
                pictures.append(picture)
    return messages, pictures


def _decoded(url: str) -> bytes | None:
    head, comma, payload = url.partition(",")
    if not comma or not head.startswith("data:") or not head.endswith(";base64"):
        return None
    try:
        return base64.b64decode(payload, validate=True)
    except binascii.Error:
        return None


def _described(pictures: Sequence[bytes]) -> list[str]:
    descriptions: list[str] = []
    for picture in pictures:
        try:
            descriptions.append(describe(picture))
        except NOT_A_PICTURE:
            continue
    return descriptions


class _Completion:
    """One completion, from the prompt to the last chunk."""

    def __init__(
        self,
        exchange: Exchange,
        simulation: Simulation,
        model: ModelConfig,
        request: wire.ChatRequest,
        messages: Sequence[text.Message],
        pictures: Sequence[bytes],
    ) -> None:
        self._exchange = exchange
        self._simulation = simulation
        self._model = model
        self._request = request
        self._messages = messages
        self._pictures = pictures if model.kind == "vision" else ()
        self._prompt_tokens = text.count_prompt(messages)
        self._created = int(time.time())

    async def reply(self) -> None:
        """Answer when everything has been said."""
        answers = await self._answers()
        async with aclosing(self._spoken(answers)) as spoken:
            async for _ in spoken:
                pass
        await self._simulation.suffer(self._exchange, AT_THE_END)
        choices: list[object] = []
        for index, answer in enumerate(answers):
            message: dict[str, object] = {"role": "assistant", "content": answer.text}
            if answer.reasoning:
                message["reasoning"] = "".join(answer.reasoning)
            choices.append(
                {"index": index, "finish_reason": answer.finish_reason, "message": message}
            )
        await self._exchange.answer(
            {
                "created": self._created,
                "object": "chat.completion",
                "id": self._exchange.correlation_id,
                "model": self._exchange.record.model,
                "choices": choices,
                "usage": self._usage(answers),
            },
            event_stream=bool(self._request.stream),
        )

    async def stream(self) -> None:
        """Send each token when it is due; failures come as an event, since 200 was promised."""
        exchange = self._exchange
        try:
            answers = await self._answers()
            async with aclosing(self._spoken(answers)) as spoken:
                async for kind, token in spoken:
                    await self._begin()
                    await exchange.event(self._chunk({"content": None, kind: token}))
            await self._begin()
            await self._simulation.suffer(exchange, AT_THE_END)
        except wire.Refusal as refusal:
            await exchange.refuse_in_stream(refusal)
            return
        await exchange.event(self._chunk({"content": None}, answers[-1].finish_reason))
        options = self._request.stream_options
        if options is not None and options.include_usage:
            await exchange.event(
                {
                    "id": exchange.correlation_id,
                    "created": self._created,
                    "model": exchange.record.model,
                    "object": "chat.completion.chunk",
                    "choices": [],
                    "usage": self._usage(answers),
                }
            )
        fault = exchange.fault
        no_done = fault is not None and isinstance(fault.action, faults.NoDone)
        await exchange.end_stream(done=not no_done)

    async def _begin(self) -> None:
        if not self._exchange.begun:
            entry = self._exchange.record
            entry.first_byte = self._simulation.clock.now()
            self._simulation.journal.changed()
            await self._exchange.begin_stream()
            await self._exchange.event(self._chunk({"role": "assistant", "content": None}))

    async def _answers(self) -> list[text.Answer]:
        """Know what will be said before anything is.

        Raises:
            Refusal: the prompt does not fit into the context.

        """
        if self._prompt_tokens > self._model.context:
            raise wire.Refusal(
                500,
                f"rpc error: code = Internal desc = the request of {self._prompt_tokens} tokens "
                f"exceeds the available context size of {self._model.context} tokens",
            )
        request, simulation = self._request, self._simulation
        seen = await asyncio.to_thread(_described, self._pictures) if self._pictures else []
        seed = request.seed
        if seed is None or seed < 0:
            seed = simulation.config.seed * 1_000_003 + self._exchange.record.number
        return [
            text.answer(
                simulation.config.target(self._exchange.record.model or ""),
                self._messages,
                seed=seed + index,
                seen=seen,
                max_tokens=request.max_completion_tokens or request.max_tokens or None,
                stop=[request.stop] if isinstance(request.stop, str) else request.stop or (),
                think=(request.reasoning_effort or "none") != "none",
            )
            for index in range(max(1, request.n or 1))
        ]

    async def _spoken(self, answers: Sequence[text.Answer]) -> AsyncGenerator[tuple[str, str]]:
        """Yield each token when it is due, from a slot of the model."""
        exchange, simulation, model = self._exchange, self._simulation, self._model
        entry, clock = exchange.record, simulation.clock
        async with simulation.slot(exchange):
            await simulation.gate.go_through(entry.number)
            prefill = self._prompt_tokens / model.prefill_per_s
            due = clock.now() + prefill + len(self._pictures) * model.s_per_picture
            tokens = chain.from_iterable(
                chain(
                    (("reasoning", token) for token in answer.reasoning),
                    (("content", token) for token in answer.tokens),
                )
                for answer in answers
            )
            for kind, token in tokens:
                await simulation.suffer(exchange, entry.done)
                due += 1 / model.tokens_per_s
                await clock.sleep_until(due)
                entry.done += 1
                yield kind, token

    def _chunk(self, delta: object, finish_reason: str | None = None) -> object:
        return {
            "created": self._created,
            "object": "chat.completion.chunk",
            "id": self._exchange.correlation_id,
            "model": self._exchange.record.model,
            "choices": [{"index": 0, "finish_reason": finish_reason, "delta": delta}],
        }

    def _usage(self, answers: Sequence[text.Answer]) -> object:
        said = sum(len(answer.tokens) + len(answer.reasoning) for answer in answers)
        return {
            "prompt_tokens": self._prompt_tokens,
            "completion_tokens": said,
            "total_tokens": self._prompt_tokens + said,
        }
