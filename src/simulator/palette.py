"""Colours by name, and the colours that a prompt asks for; magenta is known but never used."""

from collections.abc import Sequence

from .seeds import rng_for

Colour = tuple[int, int, int]

NAMED: dict[str, Colour] = {
    "red": (200, 30, 40),
    "sunset orange": (240, 130, 50),
    "gold": (230, 190, 60),
    "yellow": (250, 235, 80),
    "spring green": (130, 200, 90),
    "green": (40, 150, 60),
    "forest green": (30, 90, 50),
    "teal": (30, 140, 140),
    "sky blue": (130, 190, 235),
    "blue": (40, 80, 200),
    "night blue": (20, 25, 70),
    "purple": (120, 60, 170),
    "pink": (240, 150, 190),
    "brown": (120, 75, 45),
    "sand": (215, 195, 150),
    "black": (12, 12, 14),
    "dark grey": (75, 75, 80),
    "grey": (140, 140, 145),
    "light grey": (200, 200, 205),
    "white": (250, 250, 250),
    "magenta": (255, 0, 255),
}

_WORDS: dict[str, tuple[str, ...]] = {
    "orange": ("sunset orange",),
    "golden": ("gold",),
    "gray": ("grey",),
    "night": ("night blue", "black", "dark grey"),
    "sea": ("blue", "teal", "sky blue"),
    "ocean": ("blue", "teal", "sky blue"),
    "forest": ("forest green", "green", "brown"),
    "sunset": ("sunset orange", "red", "purple"),
    "snow": ("white", "light grey", "sky blue"),
    "desert": ("sand", "gold", "brown"),
    **{name: (name,) for name in NAMED if " " not in name and name != "magenta"},
}


def palette(prompt: Sequence[str], negative: Sequence[str], seed: int) -> list[Colour]:
    """Return five colours: those the words ask for first, the others chosen by the seed."""
    unwanted = {name for word in negative for name in _WORDS.get(word, ())}
    wished = [name for word in prompt for name in _WORDS.get(word, ())]
    others = sorted(set(NAMED) - {"magenta"})
    rng_for("palette", seed, *prompt).shuffle(others)
    names = [name for name in dict.fromkeys([*wished, *others]) if name not in unwanted]
    return [NAMED[name] for name in [*names, "grey"][:5]]


def name_of(colour: Sequence[float]) -> str:
    """Name the known colour that is nearest."""

    def distance(name: str) -> float:
        return sum((one - other) ** 2 for one, other in zip(NAMED[name], colour, strict=True))

    return min(NAMED, key=distance)
