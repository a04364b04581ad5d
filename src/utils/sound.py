"""The guard for recordings: what a recording must be before it goes to a backend.

Nothing is decoded. The first bytes say what it is; where a format tells its own length, all of it
has to be there.
"""

from ..models.errors import BackendProtocolError, EmptyResult, InvalidInput
from .localai_media import Film, Recording, audio_type

MAX_SENT_BYTES = 14_000_000  # LocalAI takes 15 MB
ALLOWED = (
    "give base64 of a WAV, MP3, FLAC, OGG, OPUS, M4A or WEBM recording, a data: URI of one, "
    "or job:<id>"
)
_KINDS = frozenset(
    {"audio/wav", "audio/mpeg", "audio/flac", "audio/ogg", "audio/mp4", "audio/webm"}
)
_SHORTEST = 44  # bytes: no format has a shorter header with sound behind it
_PIECE = 256 * 1024


def recording_type(data: bytes, field: str) -> str:
    """Check a caller's recording and return its media type. Slow where it is long.

    Raises:
        InvalidInput: it is none, or not one that is allowed; `param` names the field.

    """
    if not data:
        raise InvalidInput(f"{field} is empty", param=field, hint=ALLOWED)
    if len(data) > MAX_SENT_BYTES:
        raise InvalidInput(
            f"{field} has {len(data):,} bytes; at most {MAX_SENT_BYTES:,} are allowed",
            param=field,
            hint="send it in parts, or compressed as MP3 or OPUS",
        )
    kind = audio_type(data[:64])
    if kind not in _KINDS or (kind == "audio/mpeg" and not _is_mp3(data)):
        raise InvalidInput(
            f"{field} is not a WAV, MP3, FLAC, OGG, OPUS, M4A or WEBM recording",
            param=field,
            hint=ALLOWED,
        )
    try:
        _walk(data, kind)
    except EmptyResult:
        raise InvalidInput(f"{field} has no sound in it", param=field) from None
    except BackendProtocolError:
        raise InvalidInput(
            f"{field} is damaged or cut short", param=field, hint="send the whole file"
        ) from None
    return kind


def _is_mp3(data: bytes) -> bool:
    """Tell a frame header (ISO 11172-3, 2.4.1.3) of layer III, or a tag, from any other bytes."""
    _, second, third = data[:3].ljust(3, b"\0")
    layer_3, rate, frequency = second & 0x06 == 0x02, third >> 4, third >> 2 & 3
    return data.startswith(b"ID3") or (layer_3 and rate not in (0, 15) and frequency != 3)


def _walk(data: bytes, kind: str) -> None:
    if len(data) < _SHORTEST:
        raise BackendProtocolError("a header that is cut short")
    walker = Film("") if kind == "audio/mp4" else Recording("")
    walker.feed(data)
    walker.complete()
