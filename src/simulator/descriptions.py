"""What a simulated model sees: true statements about a picture, computed from its pixels."""

import hashlib
from collections import Counter
from io import BytesIO

from PIL import Image, ImageFilter, ImageStat

from .palette import name_of
from .pictures import SOFTWARE, scaled

_BUSY_FROM = 20.0


def describe(data: bytes) -> str:
    """Describe a picture.

    Raises:
        OSError: it is none.

    """
    with Image.open(BytesIO(data)) as opened:
        notes = {str(key): value for key, value in opened.info.items()}
        frames = int(getattr(opened, "n_frames", 1))
        transparent = "A" in opened.getbands() or "transparency" in notes
        picture = opened.convert("RGB")
    width, height = picture.size
    grey = picture.convert("L")
    statistics = ImageStat.Stat(grey)
    mean, contrast = statistics.mean[0], statistics.stddev[0]
    said = (
        f"A {width}x{height} {_orientation(width, height)} picture, {_brightness(mean)} "
        f"({mean:.0f}/255), contrast {contrast:.0f}, {_bustle(grey)}. "
        f"Mostly {_colours(picture)}."
    )
    if transparent:
        said += " It has transparency."
    if frames > 1:
        said += f" It is animated, {frames} frames."
    said += f" Pixels {hashlib.sha256(picture.tobytes()).hexdigest()[:12]}."
    if notes.get("Software") == SOFTWARE:
        prompt = str(notes.get("parameters", "")).split("\nNegative prompt:")[0]
        said += f' It was drawn by this simulator from "{prompt}".'
    return said


def _orientation(width: int, height: int) -> str:
    if width == height:
        return "square"
    return "landscape" if width > height else "portrait"


def _brightness(mean: float) -> str:
    if mean < 85:
        return "dark"
    return "mid-toned" if mean < 170 else "bright"


def _bustle(grey: Image.Image) -> str:
    small = scaled(grey, 128, 128)
    edges = small.filter(ImageFilter.FIND_EDGES).crop((1, 1, 127, 127))
    return "busy" if ImageStat.Stat(edges).mean[0] >= _BUSY_FROM else "calm"


def _colours(picture: Image.Image) -> str:
    """Name the three main colours, with the share of each."""
    small = scaled(picture, 48, 48).quantize(16).convert("RGB")
    shares: Counter[str] = Counter()
    for count, colour in small.getcolors(maxcolors=48 * 48) or []:
        assert isinstance(colour, tuple)  # noqa: S101 - as it is for RGB
        shares[name_of(colour)] += count
    named = [f"{name} {100 * count / 48**2:.0f} %" for name, count in shares.most_common(3)]
    return ", ".join(named)
