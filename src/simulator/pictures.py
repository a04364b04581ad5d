"""What a simulated model draws: pictures composed from the request, the same for the same request.

They are drawings and say so: a caption strip, a magenta tick every 128 pixels along the edges
(no model draws those), and text chunks in the PNG.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO

from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont, ImageOps, PngImagePlugin

from .palette import Colour, palette
from .seeds import rng_for

SOFTWARE = "inference-manager simulator"
SMALLEST, LARGEST = 16, 4096
STRENGTH = 0.75
MAGENTA = (255, 0, 255)
NOT_A_PICTURE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
"""What Pillow raises at bytes that are no picture, or far too large a one."""

_CAPTION_FROM = (128, 96)
_TICK = 128


@dataclass(frozen=True, slots=True)
class Wish:
    """Everything that decides what a picture looks like."""

    prompt: str
    negative: str = ""
    width: int = 512
    height: int = 512
    steps: int = 15
    seed: int = 0
    strength: float | None = None
    """How much of the source is given up; None where there is no source."""

    @property
    def parameters(self) -> str:
        """Say it all, for the text chunk."""
        return (
            f"{self.prompt}\nNegative prompt: {self.negative}\n"
            f"Seed: {self.seed}, Steps: {self.steps}, Size: {self.width}x{self.height}"
        )


def png(wish: Wish, source: bytes | None = None) -> bytes:
    """Draw what is wished, or change the source accordingly, and return the PNG.

    Raises:
        OSError: the source is not a picture.

    """
    return _encoded(_signed(_composed(wish, source), wish), wish)


def inpainted(wish: Wish, source: bytes, mask: bytes) -> bytes:
    """Draw what is wished where the mask is white, keep the rest of the source; return the PNG.

    Raises:
        OSError: the source or the mask is not a picture.

    """
    where = _fitted(mask, wish).convert("L")
    picture = Image.composite(_scene(wish), _fitted(source, wish), where)
    return _encoded(_signed(picture, wish), wish)


def frames(wish: Wish, count: int, source: bytes | None = None) -> Iterator[Image.Image]:
    """Yield so many frames in which the picture that is wished drifts by.

    Raises:
        OSError: the source is not a picture.

    """
    picture = _composed(wish, source)
    for number in range(count):
        moved = ImageChops.offset(picture, number * max(1, wish.width // 32), 0)
        yield _signed(moved, wish)


def _composed(wish: Wish, source: bytes | None) -> Image.Image:
    drawn = _scene(wish)
    if source is None or wish.strength is None:
        return drawn
    return _transformed(_fitted(source, wish), drawn, wish)


def _signed(picture: Image.Image, wish: Wish) -> Image.Image:
    _caption(picture, wish)
    _ticks(picture)
    return picture


def _encoded(picture: Image.Image, wish: Wish) -> bytes:
    chunks = PngImagePlugin.PngInfo()
    chunks.add_itxt("Software", SOFTWARE)
    chunks.add_itxt("parameters", wish.parameters)
    file = BytesIO()
    picture.save(file, "PNG", pnginfo=chunks)
    return file.getvalue()


def scaled(picture: Image.Image, width: int, height: int) -> Image.Image:
    """Return the picture stretched to a size."""
    whole = (0, 0, picture.width, picture.height)
    method, smoothly = Image.Transform.EXTENT, Image.Resampling.BILINEAR
    return picture.transform((width, height), method, whole, smoothly)


def words_of(text: str) -> list[str]:
    """Return the words of a prompt in lower case."""
    return re.findall(r"\w+", text.lower())


def _scene(wish: Wish) -> Image.Image:
    words = words_of(wish.prompt)
    colours = palette(words, words_of(wish.negative), wish.seed)
    horizon = int(wish.height * rng_for("horizon", wish.seed).uniform(0.5, 0.75))
    picture = _gradient(wish.width, wish.height, colours[0], colours[1])
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, horizon, wish.width, wish.height), fill=colours[2])
    for word in dict.fromkeys(words[:12]):
        _shape(draw, word, wish, colours)
    return picture


def _gradient(width: int, height: int, top: Colour, bottom: Colour) -> Image.Image:
    mask = scaled(Image.linear_gradient("L"), width, height)
    upper = Image.new("RGB", (width, height), top)
    return Image.composite(Image.new("RGB", (width, height), bottom), upper, mask)


def _shape(draw: ImageDraw.ImageDraw, word: str, wish: Wish, colours: list[Colour]) -> None:
    """Draw the shape that this word has as long as the seed is kept."""
    rng = rng_for("shape", word, wish.seed)
    radius = rng.uniform(0.05, 0.16) * min(wish.width, wish.height)
    x, y = rng.uniform(0.08, 0.92) * wish.width, rng.uniform(0.12, 0.75) * wish.height
    own = palette([word], [], wish.seed)[0]
    fill = own if own in colours else rng.choice(colours)
    outline = tuple(channel // 2 for channel in fill)
    box = (x - radius, y - radius, x + radius, y + radius)
    kind = rng.choice(("disc", "box", "polygon", "ring"))
    if kind == "disc":
        draw.ellipse(box, fill=fill, outline=outline)
    elif kind == "box":
        draw.rectangle((box[0], box[1] + radius / 2, box[2], box[3]), fill=fill, outline=outline)
    elif kind == "polygon":
        turn = rng.uniform(0, 360)
        draw.regular_polygon((x, y, radius), rng.randint(3, 7), turn, fill=fill, outline=outline)
    else:
        draw.ellipse(box, outline=fill, width=max(1, int(radius / 3)))


def _fitted(source: bytes, wish: Wish) -> Image.Image:
    with Image.open(BytesIO(source)) as opened:
        upright = ImageOps.exif_transpose(opened).convert("RGB")
    return ImageOps.fit(upright, (wish.width, wish.height))


def _transformed(source: Image.Image, drawn: Image.Image, wish: Wish) -> Image.Image:
    """Posterise, ink the edges, tint and blend: all of it the more, the greater the strength."""
    strength = wish.strength or 0.0
    poster = ImageOps.posterize(source, max(1, 6 - round(4 * strength)))
    edges = ImageOps.invert(source.convert("L").filter(ImageFilter.FIND_EDGES)).convert("RGB")
    inked = Image.blend(poster, ImageChops.multiply(poster, edges), strength)
    tint = Image.new("RGB", source.size, palette(words_of(wish.prompt), [], wish.seed)[0])
    tinted = Image.blend(inked, tint, 0.25 * strength)
    return Image.blend(tinted, drawn, 0.35 * strength)


@lru_cache(maxsize=8)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _caption(picture: Image.Image, wish: Wish) -> None:
    """Write at the bottom what this is, what was asked, and with which numbers."""
    width, height = picture.size
    if width < _CAPTION_FROM[0] or height < _CAPTION_FROM[1]:
        return
    size = max(9, min(width, height) // 36)
    line, font, margin = size + 3, _font(size), 4
    numbers = f"{width}x{height} seed {wish.seed} steps {wish.steps}"
    if wish.strength is not None:
        numbers += f" img2img {wish.strength:g}"
    room = width - 2 * margin
    said = ["SIMULATED - no model.", *_wrapped(wish.prompt, font, room), numbers]
    top = height - line * len(said) - 2 * margin
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, top, width, height), fill=(20, 20, 24))
    for number, text in enumerate(said):
        draw.text((margin, top + margin + number * line), text, font=font, fill=(235, 235, 235))


def _wrapped(
    text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, room: float
) -> list[str]:
    """Break a prompt into at most three lines."""
    lines: list[str] = []
    for word in text.split()[:60]:
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= room:
            lines[-1] = longer
        elif len(lines) < 3:
            lines.append(word[:60])
        else:
            lines[-1] += " …"
            break
    return lines


def _ticks(picture: Image.Image) -> None:
    width, height = picture.size
    for x in range(0, width, _TICK):
        picture.putpixel((x, 0), MAGENTA)
        picture.putpixel((x, height - 1), MAGENTA)
    for y in range(0, height, _TICK):
        picture.putpixel((0, y), MAGENTA)
        picture.putpixel((width - 1, y), MAGENTA)
