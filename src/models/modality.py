"""What goes in and what comes out: the modalities that wait in line, each in its own queue."""

from enum import StrEnum


class Modality(StrEnum):
    """One kind of inference; the value is its public name everywhere."""

    TXT2TXT = "txt2txt"
    TXT2IMG = "txt2img"
    IMG2IMG = "img2img"
    IMG2TXT = "img2txt"
    TXT2VEC = "txt2vec"
    RERANK = "rerank"
    AUDIO2TXT = "audio2txt"
    TXT2AUDIO = "txt2audio"
    TXT2SOUND = "txt2sound"
    INPAINT = "inpaint"
    TXT2VIDEO = "txt2video"


STREAMED = frozenset({Modality.TXT2TXT, Modality.IMG2TXT})
"""Those whose answers come piece by piece; any other backend is silent until it is done."""

SLOW = frozenset(
    {
        Modality.TXT2IMG,
        Modality.IMG2IMG,
        Modality.INPAINT,
        Modality.TXT2SOUND,
        Modality.TXT2VIDEO,
    }
)
"""Those that may well take many minutes."""
