from io import BytesIO

import pytest
from PIL import Image

from src.simulator.descriptions import describe
from src.simulator.pictures import NOT_A_PICTURE, Wish, png


def encoded(picture: Image.Image, **options: object) -> bytes:
    file = BytesIO()
    picture.save(file, "PNG", **options)
    return file.getvalue()


def test_a_picture_of_one_colour() -> None:
    said = describe(encoded(Image.new("RGB", (60, 40), (250, 250, 250))))

    assert said == (
        "A 60x40 landscape picture, bright (250/255), contrast 0, calm. Mostly white 100 %. "
        "Pixels bdd4ee7bc866."
    )


def test_halves_are_told_with_their_shares() -> None:
    picture = Image.new("RGB", (40, 60), (40, 80, 200))
    picture.paste((200, 30, 40), (0, 0, 10, 60))

    said = describe(encoded(picture))

    assert "A 40x60 portrait picture, dark" in said
    assert "Mostly blue 75 %, red 25 %." in said


def test_transparency_and_animation_are_noticed() -> None:
    frames = [Image.new("RGBA", (8, 8), (value, 0, 0, 0)) for value in (0, 200)]

    said = describe(encoded(frames[0], save_all=True, append_images=frames[1:]))

    assert "It has transparency." in said
    assert "It is animated, 2 frames." in said


def test_noise_is_busy() -> None:
    assert "busy" in describe(encoded(Image.effect_noise((128, 128), 120)))


def test_what_was_drawn_here_is_recognised_with_its_prompt() -> None:
    said = describe(png(Wish("a red fox", "blurry")))

    assert said.endswith('It was drawn by this simulator from "a red fox".')


def test_bytes_that_are_no_picture_are_refused() -> None:
    with pytest.raises(NOT_A_PICTURE):
        describe(b"no picture")
