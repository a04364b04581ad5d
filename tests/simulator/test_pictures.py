from io import BytesIO

import pytest
from PIL import Image, ImageChops, ImageStat

from src.simulator.palette import NAMED, name_of, palette
from src.simulator.pictures import MAGENTA, NOT_A_PICTURE, Wish, png

PROMPT = "a red fox under a gold moon"


def opened(data: bytes) -> Image.Image:
    return Image.open(BytesIO(data))


def distance(one: bytes, other: bytes) -> float:
    """The mean difference of two pictures, captions left out."""
    box = (0, 0, 256, 190)
    difference = ImageChops.difference(opened(one).crop(box), opened(other).crop(box))
    return sum(ImageStat.Stat(difference).mean) / 3


@pytest.mark.parametrize("size", [(16, 16), (333, 77), (128, 96), (1024, 1024)])
def test_a_picture_has_exactly_the_size_that_was_asked_for(size: tuple[int, int]) -> None:
    picture = opened(png(Wish(PROMPT, width=size[0], height=size[1])))

    assert (picture.format, picture.size) == ("PNG", size)


def test_the_same_wish_gives_the_same_bytes_and_another_seed_others() -> None:
    assert png(Wish(PROMPT, seed=1)) == png(Wish(PROMPT, seed=1))
    assert png(Wish(PROMPT, seed=1)) != png(Wish(PROMPT, seed=2))


def test_magenta_ticks_along_the_edges_tell_it_from_a_models_picture() -> None:
    picture = opened(png(Wish("magenta", width=300, height=300)))

    edge = [x for x in range(300) if picture.getpixel((x, 0)) == MAGENTA]
    assert edge == [0, 128, 256, 299]
    assert picture.getpixel((299, 128)) == MAGENTA
    assert picture.getpixel((128, 299)) == MAGENTA


def test_the_file_says_where_it_is_from_and_what_was_asked() -> None:
    notes = opened(png(Wish("rød ræv", "blurry", 32, 16, steps=4, seed=9))).info

    assert notes["Software"] == "inference-manager simulator"
    assert notes["parameters"] == (
        "rød ræv\nNegative prompt: blurry\nSeed: 9, Steps: 4, Size: 32x16"
    )


def test_a_changed_picture_resembles_its_source_and_yet_differs() -> None:
    source = png(Wish("a blue owl in the snow", width=256, height=256, seed=3))
    wish = Wish(PROMPT, width=256, height=256, seed=7, strength=0.75)

    changed, drawn = png(wish, source), png(Wish(PROMPT, width=256, height=256, seed=7))

    assert 5 < distance(changed, source) < distance(drawn, source)
    weak = png(Wish(PROMPT, width=256, height=256, seed=7, strength=0.2), source)
    assert distance(weak, source) < distance(weak, drawn) / 2
    assert distance(weak, source) < distance(changed, source)


def test_a_source_of_any_size_and_mode_is_fitted() -> None:
    file = BytesIO()
    Image.new("LA", (31, 77)).save(file, "PNG")

    changed = png(Wish("snow", width=64, height=48, strength=0.75), file.getvalue())

    assert opened(changed).size == (64, 48)


def test_bytes_that_are_no_picture_are_refused() -> None:
    with pytest.raises(NOT_A_PICTURE):
        png(Wish("snow", strength=0.75), b"no picture")


@pytest.mark.parametrize("prompt", ["", "🦊" * 50, "w" * 500, "many words " * 100])
def test_any_prompt_can_be_drawn(prompt: str) -> None:
    assert opened(png(Wish(prompt, width=128, height=96))).size == (128, 96)


def test_colour_words_decide_the_palette_and_unwanted_ones_leave_it() -> None:
    assert palette(["a", "teal", "night"], [], 0)[:2] == [NAMED["teal"], NAMED["night blue"]]
    assert NAMED["teal"] not in palette(["teal"], ["teal"], 0)
    assert len(palette([], list(NAMED), 0)) == 5


def test_a_colour_is_named_after_its_nearest_neighbour() -> None:
    assert [name_of(colour) for colour in NAMED.values()] == list(NAMED)
    assert name_of((10, 10, 10)) == "black"
