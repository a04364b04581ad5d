import struct
from collections.abc import Iterator
from io import BytesIO

from PIL import Image

from src.simulator.film import mp4

CONTAINERS = {b"moov", b"trak", b"mdia", b"minf", b"dinf", b"stbl", b"udta", b"ilst", b"\xa9too"}
COUNTED = {b"dref": 8, b"stsd": 8, b"meta": 4, b"mp4v": 78}


def boxes(data: bytes, start: int = 0, end: int | None = None) -> Iterator[tuple[bytes, bytes]]:
    """Every box and what is in it, the outer before the inner."""
    end = len(data) if end is None else end
    while start < end:
        size, kind = struct.unpack(">I4s", data[start : start + 8])
        assert 8 <= size <= end - start, kind
        yield kind, data[start + 8 : start + size]
        if kind in CONTAINERS or kind in COUNTED:
            yield from boxes(data, start + 8 + COUNTED.get(kind, 0), start + size)
        start += size


def jpeg(colour: str) -> bytes:
    file = BytesIO()
    Image.new("RGB", (48, 32), colour).save(file, "JPEG")
    return file.getvalue()


def test_the_boxes_lead_a_player_to_each_frame() -> None:
    frames = [jpeg("red"), jpeg("green"), jpeg("blue")]

    film = mp4(frames, width=48, height=32, fps=4, note="[simulated] colours")

    found = dict(boxes(film))
    assert next(boxes(film)) == (b"ftyp", b"isom\0\0\2\0isomiso2mp41")
    unit, length = struct.unpack(">II", found[b"mdhd"][12:20])
    assert (unit, length) == (4, 3)
    width, height = struct.unpack(">II", found[b"tkhd"][-8:])
    assert (width >> 16, height >> 16) == (48, 32)
    assert struct.unpack(">HH", found[b"mp4v"][24:28]) == (48, 32)
    assert struct.unpack(">IIII", found[b"stts"]) == (0, 1, 3, 1)
    assert struct.unpack(">5I", found[b"stsc"]) == (0, 1, 1, 3, 1)
    _, _, count, *sizes = struct.unpack(">6I", found[b"stsz"])
    _, _, place = struct.unpack(">III", found[b"stco"])
    assert count == 3
    for frame, size in zip(frames, sizes, strict=True):
        assert film[place : place + size] == frame
        place += size
    assert found[b"data"][8:] == b"[simulated] colours"


def test_a_frame_is_announced_as_jpeg() -> None:
    found = dict(boxes(mp4([jpeg("red")], width=48, height=32, fps=1, note="")))

    outer, inner = found[b"esds"][4:9], found[b"esds"][9:]
    assert outer == bytes((3, len(inner) + 3, 0, 1, 0))
    assert inner[:3] == bytes((4, 13, 0x6C))
