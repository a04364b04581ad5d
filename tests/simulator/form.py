"""Multipart bodies, as a browser or curl would send them."""

from collections.abc import Mapping, Sequence

from tests.simulator.raw import Answer, Raw

BOUNDARY = "------boundary7"


def post_form(
    raw: Raw, path: str, fields: Mapping[str, str | Sequence[str]], files: Mapping[str, bytes]
) -> Answer:
    body, content_type = multipart(fields, files)
    return raw.send("POST", path, body, Content_Type=content_type)


def multipart(
    fields: Mapping[str, str | Sequence[str]], files: Mapping[str, bytes]
) -> tuple[bytes, str]:
    """Return a body and its content type."""
    parts: list[bytes] = []
    for name, values in fields.items():
        parts += [
            _part(f'name="{name}"', value.encode())
            for value in ([values] if isinstance(values, str) else values)
        ]
    parts += [_part(f'name="{name}"; filename="it"', data) for name, data in files.items()]
    end = f"--{BOUNDARY}--\r\n".encode()
    return b"".join([*parts, end]), f"multipart/form-data; boundary={BOUNDARY}"


def _part(disposition: str, data: bytes) -> bytes:
    head = f"--{BOUNDARY}\r\nContent-Disposition: form-data; {disposition}\r\n\r\n"
    return head.encode() + data + b"\r\n"
