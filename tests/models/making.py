"""Jobs and entries to test with: what a test does not care about is filled in."""

from typing import Any

from src.models.jobs import Job, Level
from src.models.modality import Modality
from src.models.queues import Entry
from src.models.requests import Txt2TxtRequest

NOW = 1_000.0
CHAT, DRAW, EDIT, LOOK = Modality


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
