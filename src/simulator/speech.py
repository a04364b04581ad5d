"""`/v1/audio/speech`, `/v1/text-to-speech/VOICE` and `/v1/sound-generation`: sound from words.

WAV and raw samples (`pcm`) only: LocalAI has ffmpeg make the other formats, and this answers as
LocalAI does on a machine without ffmpeg. With `stream`, a WAV of unknown length comes bit by bit.
"""

import asyncio
import math
from collections.abc import Callable, Iterator
from contextlib import aclosing
from urllib.parse import unquote

from . import wire
from .config import Kind
from .exchange import AT_THE_END, Exchange, HungUp
from .labour import Piece, carry_through, paced
from .simulation import Simulation
from .sound import LONGEST, RATE, seconds_of, sounding, spoken, wav, wav_head

KINDS: tuple[Kind, ...] = ("voice",)
SLOWEST, FASTEST = 0.25, 4.0
RATES = range(8_000, 48_001)
SOME_SECONDS = 5.0
VOICES = "/v1/text-to-speech/"


class SpeechRequest(wire.ModelRequest):
    """The body of a request for speech."""

    input: str | None = None
    voice: str | None = None
    response_format: str | None = None
    speed: float | None = None
    sample_rate: int | None = None
    stream: bool | None = None
    params: dict[str, str] | None = None


class VoiceRequest(wire.ModelRequest):
    """The body of a request for speech in the manner of ElevenLabs."""

    text: str | None = None
    model_id: str | None = None


class SoundRequest(VoiceRequest):
    """The body of a request for sound."""

    duration_seconds: float | None = None


async def speech(exchange: Exchange, simulation: Simulation) -> None:
    """Answer with a text that is read out."""
    request = wire.parsed(SpeechRequest, exchange.body)
    exchange.record.stream = bool(request.stream)
    text, speed = request.input or "", 1.0 if request.speed is None else request.speed
    await _admit(exchange, simulation, request.model, "txt2audio", text)
    if not SLOWEST <= speed <= FASTEST:
        raise wire.framework_error(400, f"speed must be between {SLOWEST} and {FASTEST}")
    rate = request.sample_rate or RATE
    if rate not in RATES:
        raise _failed(f"sample rates go from {RATES[0]} to {RATES[-1]} Hz")
    seconds = seconds_of(text, speed)

    def said() -> Iterator[bytes]:
        return spoken(text, voice=request.voice or "", speed=speed, rate=rate)

    if request.stream and exchange.garbage is None:
        await _stream(
            exchange, simulation, seconds, said, wav_head(None, note=_note(text), rate=rate)
        )
        return
    samples = await _made(exchange, simulation, seconds, said)
    await _hand_out(exchange, samples, text, rate, request.response_format or "wav")


async def text_to_speech(exchange: Exchange, simulation: Simulation) -> None:
    """Answer with a text that is read out by the voice in the path."""
    request = wire.parsed(VoiceRequest, exchange.body)
    text, voice = request.text or "", unquote(exchange.path.removeprefix(VOICES))
    await _admit(exchange, simulation, request.model_id or request.model, "txt2audio", text)
    samples = await _made(exchange, simulation, seconds_of(text), lambda: spoken(text, voice=voice))
    await _hand_out(exchange, samples, text, RATE, "wav")


async def sound_generation(exchange: Exchange, simulation: Simulation) -> None:
    """Answer with a tune of the length that is asked for."""
    request = wire.parsed(SoundRequest, exchange.body)
    text, seconds = request.text or "", request.duration_seconds or SOME_SECONDS
    await _admit(exchange, simulation, request.model_id or request.model, "txt2sound", text)
    samples = await _made(exchange, simulation, seconds, lambda: sounding(text, seconds))
    await _hand_out(exchange, samples, text, RATE, "wav")


async def _admit(
    exchange: Exchange, simulation: Simulation, given: str | None, modality: str, text: str
) -> None:
    name = simulation.requested(exchange, given, KINDS)
    await simulation.befall(exchange, simulation.facts(exchange, modality=modality, prompt=text))
    simulation.installed(name, KINDS)


async def _made(
    exchange: Exchange,
    simulation: Simulation,
    seconds: float,
    samples: Callable[[], Iterator[bytes]],
) -> bytes:
    _check_length(seconds)
    model = simulation.model(exchange.record.model or "")
    steps = max(1, math.ceil(seconds))
    piece = Piece(lambda: b"".join(samples()), steps, seconds / steps / model.times_real_time)
    [made] = await carry_through(exchange, simulation, [piece])
    await simulation.suffer(exchange, AT_THE_END)
    return made


async def _stream(
    exchange: Exchange,
    simulation: Simulation,
    seconds: float,
    samples: Callable[[], Iterator[bytes]],
    head: bytes,
) -> None:
    """Send a tenth of a second at a time, each when it has been said."""
    _check_length(seconds)
    with simulation.clock.held():
        made = await asyncio.to_thread(lambda: b"".join(samples()))
    size = max(2, 2 * round(len(made) / 2 / max(1.0, 10 * seconds)))
    pieces = [made[start : start + size] for start in range(0, len(made), size)]
    model = simulation.model(exchange.record.model or "")
    each = seconds / max(1, len(pieces)) / model.times_real_time
    try:
        async with aclosing(paced(exchange, simulation, pieces, first=0.0, each=each)) as said:
            async for piece in said:
                await _begin(exchange, simulation, head)
                await exchange.sound(piece)
        await simulation.suffer(exchange, AT_THE_END)
    except wire.Refusal as refusal:
        if exchange.begun:  # too late to say why
            raise HungUp(reset=False) from refusal
        raise
    await _begin(exchange, simulation, head)
    await exchange.end_sound()


async def _begin(exchange: Exchange, simulation: Simulation, head: bytes) -> None:
    if not exchange.begun:
        exchange.record.first_byte = simulation.clock.now()
        simulation.journal.changed()
        await exchange.begin_sound()
        await exchange.sound(head)


async def _hand_out(
    exchange: Exchange, samples: bytes, text: str, rate: int, response_format: str
) -> None:
    if exchange.garbage is not None:
        await exchange.answer(None)
        return
    if response_format not in ("wav", "pcm"):
        raise wire.Refusal(
            500,
            f"failed converting audio to {response_format}: "
            'exec: "ffmpeg": executable file not found in $PATH',
        )
    data = wav(samples, note=_note(text), rate=rate) if response_format == "wav" else samples
    headers = {
        "Content-Type": f"audio/{response_format}",
        "Content-Disposition": f'attachment; filename="tts.{response_format}"',
    }
    await exchange.reply(200, data, headers=headers)


def _check_length(seconds: float) -> None:
    if not 0 <= seconds <= LONGEST:
        raise _failed(f"sound lasts from 0 to {LONGEST:g} seconds")


def _note(text: str) -> str:
    return f"[simulated] {text}"


def _failed(reason: str) -> wire.Refusal:
    return wire.Refusal(500, f"rpc error: code = Unknown desc = {reason}")
