"""A small MP4: JPEG pictures one after the other, and a note that says what it is.

The boxes are those of ISO/IEC 14496-12; a JPEG frame is an MPEG-4 visual sample of object type
0x6C (14496-1).
"""

import struct
from collections.abc import Sequence

_IDENTITY = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
_UNDETERMINED = 0x55C4
_JPEG = 0x6C


def mp4(frames: Sequence[bytes], *, width: int, height: int, fps: int, note: str) -> bytes:
    """Return a film of JPEG frames."""
    opening = _box(b"ftyp", b"isom" + struct.pack(">I", 0x200) + b"isomiso2mp41")
    # the offset of the frames depends on the size of what says it, which does not depend on it
    size = len(_moov(frames, width, height, fps, note, 0))
    start = len(opening) + size + 8
    return opening + _moov(frames, width, height, fps, note, start) + _box(b"mdat", *frames)


def _moov(
    frames: Sequence[bytes], width: int, height: int, fps: int, note: str, start: int
) -> bytes:
    count = len(frames)
    movie = struct.pack(">IIIIIH10x", 0, 0, fps, count, 0x10000, 0x100)
    track = struct.pack(">IIIII8xHHHH", 0, 0, 1, 0, count, 0, 0, 0, 0)
    return _box(
        b"moov",
        _full(b"mvhd", movie + _IDENTITY + bytes(24) + struct.pack(">I", 2)),
        _box(
            b"trak",
            _full(
                b"tkhd", track + _IDENTITY + struct.pack(">II", width << 16, height << 16), flags=3
            ),
            _box(
                b"mdia",
                _full(b"mdhd", struct.pack(">IIIIHH", 0, 0, fps, count, _UNDETERMINED, 0)),
                _full(b"hdlr", struct.pack(">I4s12x", 0, b"vide") + b"simulated\0"),
                _box(
                    b"minf",
                    _full(b"vmhd", bytes(8), flags=1),
                    _box(
                        b"dinf", _full(b"dref", struct.pack(">I", 1), _full(b"url ", b"", flags=1))
                    ),
                    _samples(frames, width, height, start),
                ),
            ),
        ),
        _note(note),
    )


def _samples(frames: Sequence[bytes], width: int, height: int, start: int) -> bytes:
    count = len(frames)
    sizes = [len(frame) for frame in frames]
    return _box(
        b"stbl",
        _full(b"stsd", struct.pack(">I", 1), _entry(width, height)),
        _full(b"stts", struct.pack(">III", 1, count, 1)),
        _full(b"stsc", struct.pack(">IIII", 1, 1, count, 1)),
        _full(b"stsz", struct.pack(f">II{count}I", 0, count, *sizes)),
        _full(b"stco", struct.pack(">II", 1, start)),
    )


def _entry(width: int, height: int) -> bytes:
    """Describe one frame."""
    head = struct.pack(
        ">6xHHH12xHHIIIH32xHh", 1, 0, 0, width, height, 0x480000, 0x480000, 0, 1, 24, -1
    )
    decoder = _descriptor(4, struct.pack(">BB3xII", _JPEG, 0x11, 0, 0))
    stream = _descriptor(3, struct.pack(">HB", 1, 0), decoder, _descriptor(6, b"\x02"))
    return _box(b"mp4v", head, _full(b"esds", stream))


def _note(note: str) -> bytes:
    """Say where it comes from, where players show it: as the tool that made it."""
    data = _box(b"data", struct.pack(">II", 1, 0), note.encode())
    handler = _full(b"hdlr", struct.pack(">I4s4s8x", 0, b"mdir", b"appl") + b"\0")
    return _box(b"udta", _full(b"meta", handler, _box(b"ilst", _box(b"\xa9too", data))))


def _box(kind: bytes, *content: bytes) -> bytes:
    return struct.pack(">I", 8 + sum(map(len, content))) + kind + b"".join(content)


def _full(kind: bytes, content: bytes, *more: bytes, flags: int = 0) -> bytes:
    """Return a box that has a version and flags."""
    return _box(kind, struct.pack(">I", flags), content, *more)


def _descriptor(tag: int, *content: bytes) -> bytes:
    body = b"".join(content)
    return bytes((tag, len(body))) + body
