"""What goes in and what comes out: the modalities that wait in line, each in its own queue."""

from enum import StrEnum


class Modality(StrEnum):
    """One kind of inference; the value is its public name everywhere."""

    TXT2TXT = "txt2txt"
    TXT2IMG = "txt2img"
    IMG2IMG = "img2img"
    IMG2TXT = "img2txt"
