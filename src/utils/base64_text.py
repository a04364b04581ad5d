"""Bytes that callers write as text: base64 in any of its spellings, or a base64 ``data:`` URI."""

import binascii
import re
from urllib.parse import unquote_to_bytes

from ..models.errors import InvalidInput

_DATA_URI = re.compile(r"\s*data:([^,]{0,200}),", re.IGNORECASE)
_ADDRESS = re.compile(r"\s*(https?|ftp|file):", re.IGNORECASE)
_WHITESPACE = b" \t\r\n\v\f"
_URL_SAFE = bytes.maketrans(b"-_", b"+/")


def decoded(text: str, field: str, *, allowed: str) -> bytes:
    """Take the bytes out of a text. Slow where it is long: call it in a thread.

    Raises:
        InvalidInput: there are none; `allowed` says what would have been right.

    """
    if _ADDRESS.match(text):
        raise InvalidInput(f"{field} must not be an address", param=field, hint=allowed)
    if match := _DATA_URI.match(text):
        if not match[1].rstrip().lower().endswith(";base64"):
            raise InvalidInput(f"{field} must be a base64 data: URI", param=field, hint=allowed)
        text = text[match.end() :]
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        pass  # it may still be another spelling; those cost a copy or two
    try:
        raw = text.encode("ascii")
        if b"%" in raw:
            raw = unquote_to_bytes(raw)
        raw = raw.translate(_URL_SAFE, _WHITESPACE).rstrip(b"=")
        return binascii.a2b_base64(raw + b"=" * (-len(raw) % 4), strict_mode=True)
    except ValueError:
        raise InvalidInput(f"{field} is not valid base64", param=field, hint=allowed) from None
