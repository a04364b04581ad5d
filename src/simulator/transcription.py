"""`/v1/audio/transcriptions`: what is heard in a recording, whole, timed or as a stream.

With `stream` the head goes out at once, before anything is loaded, and failures come as an event.
"""

import asyncio
import math
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from functools import partial

from . import faults, text, wire
from .config import Kind, ModelConfig
from .exchange import AT_THE_END, Exchange
from .forms import Form, read_form
from .hearing import Heard, NotAudio, heard, seconds_in
from .labour import Piece, carry_through, paced
from .simulation import Simulation
from .subtitles import FORMATS, Segment, spread

KINDS: tuple[Kind, ...] = ("voice",)


async def transcription(exchange: Exchange, simulation: Simulation) -> None:
    """Answer with what is heard in the file."""
    form = await read_form(exchange)
    exchange.record.stream = form.first("stream") == "true"
    name = simulation.requested(exchange, form.first("model"), KINDS)
    facts = simulation.facts(exchange, modality="audio2txt", prompt=form.first("prompt") or "")
    await simulation.befall(exchange, facts)
    model = simulation.installed(name, KINDS)
    if "file" not in form.files:
        raise wire.Refusal(500, "http: no such file")
    data = form.files["file"]
    if exchange.record.stream and exchange.garbage is None:
        await _stream(exchange, simulation, model, data)
        return
    with simulation.clock.held():
        seconds = await asyncio.to_thread(seconds_in, data)
    steps = max(1, math.ceil(seconds))
    piece = Piece(partial(_transcript, data), steps, seconds / steps / model.times_real_time)
    [transcript] = await carry_through(exchange, simulation, [piece])
    await simulation.suffer(exchange, AT_THE_END)
    await _reply(exchange, form, transcript)


async def _reply(exchange: Exchange, form: Form, transcript: Heard) -> None:
    segments = spread(transcript.sentences, transcript.seconds)
    wanted = form.first("response_format") or "verbose_json"
    if wanted == "verbose_json" or exchange.garbage is not None:
        by_word = "word" in form.fields.get("timestamp_granularities[]", ())
        await exchange.answer(_verbose(transcript, segments, form.first("language"), by_word))
    elif wanted == "json":
        await exchange.answer({"text": " ".join(transcript.sentences)})
    elif wanted in FORMATS:
        content_type, written = FORMATS[wanted]
        body = written(segments).encode()
        await exchange.reply(200, body, headers={"Content-Type": content_type})
    else:
        raise wire.Refusal(500, f"invalid response_format: {wanted}")


async def _stream(
    exchange: Exchange, simulation: Simulation, model: ModelConfig, data: bytes
) -> None:
    exchange.record.first_byte = simulation.clock.now()
    simulation.journal.changed()
    await exchange.begin_stream()
    try:
        with simulation.clock.held():
            transcript = await asyncio.to_thread(_transcript, data)
        said = text.tokens_of(" ".join(transcript.sentences))
        each = transcript.seconds / model.times_real_time / len(said)
        tokens = paced(exchange, simulation, said, first=0.0, each=each)
        async with aclosing(tokens):
            async for token in tokens:
                await exchange.event({"type": "transcript.text.delta", "delta": token})
        await simulation.suffer(exchange, AT_THE_END)
    except wire.Refusal as refusal:
        exchange.refused = True
        error = {"message": refusal.message, "type": "server_error"}
        await exchange.event({"type": "error", "error": error})
        await exchange.end_stream()
        return
    whole = " ".join(transcript.sentences)
    await exchange.event(
        {"type": "transcript.text.done", "text": whole, "duration": transcript.seconds}
    )
    fault = exchange.fault
    await exchange.end_stream(done=fault is None or not isinstance(fault.action, faults.NoDone))


def _transcript(data: bytes) -> Heard:
    """Listen.

    Raises:
        Refusal: there is nothing to listen to.

    """
    try:
        found = heard(data)
    except NotAudio as error:
        raise wire.Refusal(500, f"rpc error: code = Unknown desc = {error}") from error
    first, *rest = found.sentences
    return Heard([f"{text.OPENING} {first}", *rest], found.seconds)


def _verbose(
    transcript: Heard, segments: Sequence[Segment], language: str | None, by_word: bool
) -> Mapping[str, object]:
    body: dict[str, object] = {"text": " ".join(transcript.sentences)}
    if language is not None:
        body["language"] = language
    body["duration"] = round(transcript.seconds, 3)
    body["segments"] = [
        {
            "id": number,
            "start": segment.start,
            "end": segment.end,
            "text": segment.text,
            "tokens": list(range(len(text.tokens_of(segment.text)))),
        }
        for number, segment in enumerate(segments)
    ]
    if by_word:
        body["words"] = [
            {"word": word.text, "start": word.start, "end": word.end}
            for segment in segments
            for word in _words(segment)
        ]
    return body


def _words(segment: Segment) -> list[Segment]:
    within = spread(segment.text.split(), segment.end - segment.start)
    return [
        Segment(round(segment.start + it.start, 3), round(segment.start + it.end, 3), it.text)
        for it in within
    ]
