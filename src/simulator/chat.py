"""`/v1/chat/completions`: words at a model's pace, with silence before the first one."""

import asyncio
import base64
import binascii
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from itertools import chain
from typing import cast
from uuid import UUID

from . import faults, text, wire
from .config import Kind, ModelConfig
from .descriptions import describe
from .exchange import AT_THE_END, Exchange
from .labour import paced
from .logprobs import logprobs
from .pictures import NOT_A_PICTURE
from .seeds import rng_for
from .simulation import Simulation
from .structures import Unbuildable, instance
from .tools import Tool, calls

KINDS: tuple[Kind, ...] = ("chat", "vision")


class ChatRequest(wire.ChatRequest):
    """The body of a chat completion, with all that decides the form of the answer."""

    tools: list[Tool] | None = None
    tool_choice: object = None
    response_format: dict[str, object] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None


async def chat(exchange: Exchange, simulation: Simulation) -> None:
    """Answer a chat completion, streamed or in one piece."""
    request = wire.parsed(ChatRequest, exchange.body)
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


def _read(request: ChatRequest) -> tuple[list[text.Message], list[bytes]]:
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


def check_context(prompt_tokens: int, model: ModelConfig) -> None:
    """See that a prompt fits into the context.

    Raises:
        Refusal: it does not.

    """
    if prompt_tokens > model.context:
        raise wire.Refusal(
            500,
            f"rpc error: code = Internal desc = the request of {prompt_tokens} tokens "
            f"exceeds the available context size of {model.context} tokens",
        )


def _dictated(form: Mapping[str, object], messages: Sequence[text.Message]) -> str | None:
    """Return the JSON that is asked for; a schema that is not understood is ignored, as there."""
    if form.get("type") == "json_object":
        return json.dumps(text.facts(messages), ensure_ascii=False)
    schema = form.get("json_schema")
    if form.get("type") != "json_schema" or not isinstance(schema, dict):
        return None
    try:
        made = instance(cast("Mapping[str, object]", schema).get("schema"))
    except Unbuildable:
        return None
    return json.dumps(made, ensure_ascii=False)


class _Completion:
    """One completion, from the prompt to the last chunk."""

    def __init__(
        self,
        exchange: Exchange,
        simulation: Simulation,
        model: ModelConfig,
        request: ChatRequest,
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
        self._created = simulation.unix_time()

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
            if answer.calls:
                message["tool_calls"] = [
                    self._called(place, {"name": call.name, "arguments": call.arguments})
                    for place, call in enumerate(answer.calls)
                ]
            choice: dict[str, object] = {
                "index": index,
                "finish_reason": answer.finish_reason,
                "message": message,
            }
            if self._request.logprobs:
                choice["logprobs"] = logprobs(answer.tokens, self._request.top_logprobs or 0)
            choices.append(choice)
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
                    if kind != "call":
                        await exchange.event(self._chunk({"content": None, kind: token}))
            await self._begin()
            for place, call in enumerate(call for answer in answers for call in answer.calls):
                await self._call({"name": call.name, "arguments": ""}, place)
                await self._call({"arguments": call.arguments}, place)
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

    async def _call(self, function: Mapping[str, str], place: int) -> None:
        """Send a piece of a call."""
        delta = {"content": None, "tool_calls": [self._called(place, function)]}
        await self._exchange.event(self._chunk(delta))

    def _called(self, place: int, function: Mapping[str, str]) -> object:
        """Return a call, or a piece of one; some backends give all calls the same id."""
        own = self._exchange.correlation_id
        if not isinstance(self._exchange.action, faults.DuplicateIds):
            own = str(UUID(int=rng_for("call", own, place).getrandbits(128)))
        return {"index": place, "id": own, "type": "function", "function": function}

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
        check_context(self._prompt_tokens, self._model)
        request, simulation = self._request, self._simulation
        with simulation.clock.held():
            seen = await asyncio.to_thread(_described, self._pictures) if self._pictures else []
        seed = request.seed
        if seed is None or seed < 0:
            seed = simulation.config.seed * 1_000_003 + self._exchange.record.number
        thinks = self._model.kind == "chat"
        return [
            text.answer(
                simulation.config.target(self._exchange.record.model or ""),
                self._messages,
                seed=seed + index,
                seen=seen,
                max_tokens=request.max_completion_tokens or request.max_tokens or None,
                stop=[request.stop] if isinstance(request.stop, str) else request.stop or (),
                think=thinks and (request.reasoning_effort or "none") != "none",
                calls=calls(request.tools or (), request.tool_choice, self._messages),
                dictated=_dictated(request.response_format or {}, self._messages),
            )
            for index in range(max(1, request.n or 1))
        ]

    def _spoken(self, answers: Sequence[text.Answer]) -> AsyncGenerator[tuple[str, str]]:
        """Yield each token when it is due."""
        model = self._model
        prefill = self._prompt_tokens / model.prefill_per_s
        tokens = chain.from_iterable(
            chain(
                (("reasoning", token) for token in answer.reasoning),
                (("call" if answer.calls else "content", token) for token in answer.tokens),
            )
            for answer in answers
        )
        return paced(
            self._exchange,
            self._simulation,
            tokens,
            first=prefill + len(self._pictures) * model.s_per_picture,
            each=1 / model.tokens_per_s,
        )

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
