"""`/v1/completions`: text that goes on from a prompt, without the manners of a chat.

The reason for the end is always `stop`. In one piece, usage is all zeros. In a stream a failure is
a chunk of text like any other, after which nothing follows, not even `[DONE]`.
"""

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from . import faults, text, wire
from .chat import check_context
from .config import Kind, ModelConfig
from .exchange import AT_THE_END, Exchange
from .labour import paced
from .simulation import Simulation

KINDS: tuple[Kind, ...] = ("chat",)


class CompletionRequest(wire.ModelRequest):
    """The body of a completion."""

    prompt: str | list[str] | None = None
    stream: bool | None = None
    stream_options: wire.StreamOptions | None = None
    n: int | None = None
    max_tokens: int | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    response_format: dict[str, object] | None = None

    @property
    def prompts(self) -> list[str]:
        """The prompts, however many."""
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt or []


async def completions(exchange: Exchange, simulation: Simulation) -> None:
    """Answer a completion, streamed or in one piece."""
    request = wire.parsed(CompletionRequest, exchange.body)
    entry = exchange.record
    entry.stream = bool(request.stream)
    name = simulation.requested(exchange, request.model, KINDS)
    prompts = request.prompts
    facts = simulation.facts(exchange, modality="txt2txt", prompt="\n".join(prompts))
    await simulation.befall(exchange, facts)
    model = simulation.installed(name, KINDS)
    if request.stream and len(prompts) != 1:
        raise wire.framework_error(400, "cannot handle more than 1 `PromptStrings` when Streaming")
    completion = _Completion(exchange, simulation, model, request)
    if request.stream and exchange.garbage is None:
        await completion.stream()
    else:
        await completion.reply()


class _Completion:
    """One completion, from the prompts to the last chunk."""

    def __init__(
        self,
        exchange: Exchange,
        simulation: Simulation,
        model: ModelConfig,
        request: CompletionRequest,
    ) -> None:
        self._exchange = exchange
        self._simulation = simulation
        self._model = model
        self._request = request
        self._prompts = [[text.Message("user", prompt)] for prompt in request.prompts]
        self._prompt_tokens = sum(map(text.count_prompt, self._prompts))
        self._created = simulation.unix_time()

    async def reply(self) -> None:
        """Answer when everything has been said."""
        answers = self._answers()
        async with aclosing(self._spoken(answers)) as spoken:
            async for _ in spoken:
                pass
        await self._simulation.suffer(self._exchange, AT_THE_END)
        body = self._body(
            [
                {"index": index, "finish_reason": "stop", "text": answer.text}
                for index, answer in answers
            ]
        )
        usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
        await self._exchange.answer(
            {**body, "usage": usage}, event_stream=bool(self._request.stream)
        )

    async def stream(self) -> None:
        """Send each token when it is due; a failure comes as text."""
        exchange = self._exchange
        try:
            answers = self._answers()
            async with aclosing(self._spoken(answers)) as spoken:
                async for token in spoken:
                    await self._send(token, None)
            await self._simulation.suffer(exchange, AT_THE_END)
        except wire.Refusal as refusal:
            exchange.refused = True
            await self._send(f"Internal error: {refusal.message}", "stop")
            await exchange.end_stream(done=False)
            return
        await self._send("", "stop")
        options = self._request.stream_options
        if options is not None and options.include_usage:
            said = sum(len(answer.tokens) for _, answer in answers)
            usage = {
                "prompt_tokens": self._prompt_tokens,
                "completion_tokens": said,
                "total_tokens": self._prompt_tokens + said,
            }
            trailer = {"object": "chat.completion.chunk", "usage": usage}
            await exchange.event({**self._body([]), **trailer})
        await exchange.end_stream(done=not isinstance(exchange.action, faults.NoDone))

    def _answers(self) -> list[tuple[int, text.Answer]]:
        """Know what will be said, each with the number of its prompt.

        Raises:
            Refusal: a prompt does not fit into the context.

        """
        request, simulation = self._request, self._simulation
        seed = request.seed
        if seed is None or seed < 0:
            seed = simulation.config.seed * 1_000_003 + self._exchange.record.number
        as_json = (request.response_format or {}).get("type") == "json_object"
        answers: list[tuple[int, text.Answer]] = []
        for index, prompt in enumerate(self._prompts):
            check_context(text.count_prompt(prompt), self._model)
            for number in range(max(1, request.n or 1)):
                answer = text.answer(
                    simulation.config.target(self._exchange.record.model or ""),
                    prompt,
                    seed=seed + number,
                    max_tokens=request.max_tokens or None,
                    stop=[request.stop] if isinstance(request.stop, str) else request.stop or (),
                    dictated=json.dumps(text.facts(prompt)) if as_json else None,
                )
                answers.append((index, answer))
        return answers

    def _spoken(self, answers: Sequence[tuple[int, text.Answer]]) -> AsyncGenerator[str]:
        """Yield each token when it is due."""
        return paced(
            self._exchange,
            self._simulation,
            [token for _, answer in answers for token in answer.tokens],
            first=self._prompt_tokens / self._model.prefill_per_s,
            each=1 / self._model.tokens_per_s,
        )

    async def _send(self, said: str, finish_reason: str | None) -> None:
        exchange = self._exchange
        if not exchange.begun:
            exchange.record.first_byte = self._simulation.clock.now()
            self._simulation.journal.changed()
            await exchange.begin_stream()
        choice = {"index": 0, "finish_reason": finish_reason, "text": said}
        await exchange.event(self._body([choice]))

    def _body(self, choices: Sequence[object]) -> dict[str, object]:
        return {
            "created": self._created,
            "object": "text_completion",
            "id": self._exchange.correlation_id,
            "model": self._exchange.record.model,
            "choices": choices,
        }
