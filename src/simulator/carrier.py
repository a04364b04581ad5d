"""An exchange that carries sound: bytes that go out as they are made.

What may come as a stream is never compressed, be it one or not.
"""

from collections.abc import Mapping

from .exchange import Exchange

_NEVER_COMPRESSED = (
    *("/v1/completions", "/completions", "/v1/audio/speech", "/audio/speech", "/tts"),
    *("/v1/audio/transcriptions", "/audio/transcriptions"),
)


class Carrier(Exchange):
    """A request and its answer, be it JSON, events or sound."""

    async def begin_sound(self) -> None:
        """Send the head of a sound of unknown length."""
        await self._start(200, {"Content-Type": "audio/wav"})

    async def sound(self, piece: bytes) -> None:
        """Send a piece of it."""
        await self._body(piece, more=True)

    async def end_sound(self) -> None:
        """End it."""
        await self._body(b"", more=False)

    def _wants_gzip(self, out: Mapping[str, str]) -> bool:
        return self.path not in _NEVER_COMPRESSED and super()._wants_gzip(out)
