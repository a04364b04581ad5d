"""The log file."""

import json
import logging
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from src.models.errors import BackendFailed
from src.models.events import (
    BackendChanged,
    Ended,
    Event,
    ModelLoaded,
    ModelPaused,
    Retried,
    Started,
    Submitted,
)
from src.models.jobs import Job, Level
from src.models.requests import Txt2TxtRequest
from src.utils.logs import EventLog, set_up

CANARY = "canary-in-the-prompt"


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    root.handlers.clear()
    yield tmp_path / "app.log"
    for handler in root.handlers:
        with suppress(OSError):  # which a full disk raises
            handler.close()
    root.handlers[:] = before
    root.setLevel(level)
    logging.captureWarnings(capture=False)


def lines(log: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]


def job() -> Job:
    return Job(
        id="job-1",
        request=Txt2TxtRequest.model_validate({"prompt": CANARY}),
        model="m",
        caller="anonymous",
        level=Level.NORMAL,
        sequence=1,
        submitted_at=10.0,
        deadline=100.0,
    )


def test_each_event_is_one_line_of_json_with_its_job(log: Path) -> None:
    set_up(log, "info", console=False)
    listen = EventLog()
    error = BackendFailed("boom")
    started = job().started("localai", 12.0)
    events: list[Event] = [
        Submitted(job(), 0),
        Started(started),
        Retried(started.retrying(error, 13.0), error, counted=True),
        Ended(started.failed(error, 14.0)),
        Ended(job().cancelled(15.0)),
    ]

    for event in events:
        listen(event)

    told = lines(log)
    assert [line["event"] for line in told] == [
        "job submitted",
        "job started",
        "attempt failed, job waits again",
        "job failed",
        "job cancelled",
    ]
    assert all(line["job_id"] == "job-1" and "ts" in line and "level" in line for line in told)
    assert told[3]["code"] == "backend_failed"
    assert told[3]["total_s"] == 4.0
    assert CANARY not in log.read_text(encoding="utf-8")


def test_backends_and_loads_are_told_too(log: Path) -> None:
    set_up(log, "info", console=False)
    listen = EventLog()

    listen(BackendChanged("localai", up=False, detail="connection refused"))
    listen(ModelLoaded(job(), "localai", "m", 1.5))
    listen(ModelLoaded(None, "localai", "m", 0.5, BackendFailed("boom")))
    listen(ModelPaused("localai", "m", 5.0, "boom"))

    assert [(line["event"], line["level"]) for line in lines(log)] == [
        ("backend cannot be reached", "warning"),
        ("model loaded", "info"),
        ("model load failed", "warning"),
        ("model is left alone", "warning"),
    ]


def test_addresses_that_were_called_are_not_logged(log: Path) -> None:
    set_up(log, "info", console=False)

    logging.getLogger("uvicorn.access").info("GET /mcp/get_job?job_id=%s", CANARY)
    logging.getLogger("uvicorn.error").error("started", extra={"color_message": "\x1b[36mstarted"})

    (line,) = lines(log)
    assert (line["event"], "color_message" in line) == ("started", False)


def test_line_breaks_and_control_characters_cannot_forge_a_line(log: Path) -> None:
    set_up(log, "info", console=False)

    logging.getLogger("any").warning('one\n{"event": "forged"}\x1b[31m')

    assert len(lines(log)) == 1


def test_an_error_is_logged_with_its_traceback_on_the_same_line(log: Path) -> None:
    set_up(log, "info", console=False)

    try:
        raise RuntimeError("boom")
    except RuntimeError:
        logging.getLogger("any").exception("it failed")

    (line,) = lines(log)
    assert "RuntimeError: boom" in str(line["exception"])


def test_a_log_file_that_cannot_be_opened_does_not_stop_the_program(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")

    set_up(tmp_path / "file" / "app.log", "info")
    logging.getLogger("any").warning("still here")

    said = capsys.readouterr().err
    assert "log file cannot be opened" in said
    assert "still here" in said
    assert not log.exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no disk that is always full")
def test_a_full_disk_is_told_of_once(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log.symlink_to("/dev/full")
    set_up(log, "info")

    for number in range(3):
        logging.getLogger("any").warning("still here: %d", number)

    said = capsys.readouterr().err
    assert said.count("cannot be written: No space left") == 1
    assert said.count("still here") == 3
    assert "Traceback" not in said
