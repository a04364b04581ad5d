"""Jobs and entries to test with: what a test does not care about is filled in."""

from typing import Any

from src.models.jobs import Job, Level
from src.models.modality import Modality
from src.models.queues import Entry
from src.models.requests import (
    Audio2TxtRequest,
    CompletionRequest,
    Img2ImgRequest,
    Img2TxtRequest,
    InferenceRequest,
    InpaintRequest,
    ModerationRequest,
    RerankRequest,
    Txt2AudioRequest,
    Txt2ImgRequest,
    Txt2SoundRequest,
    Txt2TxtRequest,
    Txt2VecRequest,
    Txt2VideoRequest,
)

NOW = 1_000.0
CHAT, DRAW, EDIT, LOOK = list(Modality)[:4]
SMALLEST: dict[type[InferenceRequest], dict[str, Any]] = {
    Txt2TxtRequest: {"prompt": "p"},
    CompletionRequest: {"prompts": ["p"]},
    ModerationRequest: {"input": ["t"]},
    Txt2ImgRequest: {"prompt": "p"},
    Img2ImgRequest: {"prompt": "p", "image": "aGk="},
    Img2TxtRequest: {"image": "aGk="},
    Txt2VecRequest: {"input": "t"},
    RerankRequest: {"query": "q", "documents": ["d"]},
    Audio2TxtRequest: {"audio": "aGk="},
    Txt2AudioRequest: {"input": "t"},
    Txt2SoundRequest: {"prompt": "p"},
    InpaintRequest: {"prompt": "p", "image": "aGk=", "mask": "aGk="},
    Txt2VideoRequest: {"prompt": "p"},
}


def small(kind: type[InferenceRequest], **fields: Any) -> InferenceRequest:
    """Make the least valid request of a kind, with some of its fields given."""
    least = SMALLEST[kind]
    if kind is Img2TxtRequest and "images" in fields:
        least = {}
    return kind.model_validate({**least, **fields})


def chat(text: str = "hello", **fields: Any) -> Txt2TxtRequest:
    return Txt2TxtRequest.model_validate({"prompt": text, **fields})


def entry(sequence: int, **fields: Any) -> Entry:
    values: dict[str, Any] = {
        "id": f"job-{sequence}",
        "modality": CHAT,
        "level": Level.NORMAL,
        "model": "m",
        "submitted_at": NOW,
        "deadline": NOW + 3600.0,
        **fields,
    }
    return Entry(sequence=sequence, **values)


def job(**fields: Any) -> Job:
    values: dict[str, Any] = {
        "id": "job-1",
        "request": chat(),
        "model": "m",
        "caller": "ann",
        "level": Level.NORMAL,
        "sequence": 1,
        "submitted_at": NOW,
        "deadline": NOW + 60.0,
        **fields,
    }
    return Job(**values)
