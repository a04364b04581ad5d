"""The log: `app.log`, one JSON object a line, rotated; and the same on the console, for people.

Prompts, pictures and keys never get here: events carry ids, names, numbers and error codes.
"""

import logging
import logging.handlers
import sys
from pathlib import Path

import structlog

from ..models.events import (
    BackendChanged,
    Ended,
    Event,
    ModelLoaded,
    ModelPaused,
    Retried,
    Started,
    Submitted,
)
from ..models.jobs import Job, JobState

MAX_BYTES = 10 * 2**20
BACKUPS = 5

_SHARED: list[structlog.typing.Processor] = [
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.ExtraAdder(),
    structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
]


def set_up(file: Path | None, level: str, *, console: bool = True) -> None:
    """Send all logging to the file and to standard error, replacing what was set up before.

    A file that cannot be opened is reported on standard error; the program goes on without it.
    """
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
        old.close()
    root.setLevel(level.upper())
    if console:
        root.addHandler(_handler(logging.StreamHandler(sys.stderr), _console()))
    if file is not None:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            rotating = _LogFile(
                file, maxBytes=MAX_BYTES, backupCount=BACKUPS, encoding="utf-8", delay=True
            )
        except OSError as error:
            root.warning("the log file cannot be opened: %s", error.strerror)
        else:
            root.addHandler(_handler(rotating, structlog.processors.JSONRenderer()))
    for noisy in ("httpx2", "httpcore2", "mcp", "sse_starlette", "asyncio", "PIL"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        uvicorn = logging.getLogger(name)
        uvicorn.handlers.clear()
        uvicorn.propagate = name != "uvicorn.access"  # addresses hold job ids and what people type
    logging.getLogger("uvicorn.error").addFilter(_is_worth_telling)
    logging.captureWarnings(capture=True)


class _LogFile(logging.handlers.RotatingFileHandler):
    """The file. When its disk is full, what cannot be written is lost, and said to be so once."""

    _full = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line."""
        self._lost = False
        super().emit(record)
        self._full = self._lost

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - not our name
        """Say that a line is lost, unless the one before was as well."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        self._lost = True
        if not self._full:
            self._full = True
            logging.getLogger().warning("the log file cannot be written: %s", error.strerror)


def _is_worth_telling(record: logging.LogRecord) -> bool:
    """Leave out what uvicorn says of each WebSocket: its address, and that it was refused.

    And the way to a store that cannot be used: why it cannot has been said in one line.
    """
    said = str(record.msg)
    return (
        '"WebSocket %s"' not in said
        and "without completing handshake" not in said
        and not (said.startswith("Traceback") and ".StoreUnusable: " in said)
    )


def _when_and_what_first(
    _logger: object, _name: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    event.pop("color_message", None)  # uvicorn's own, for terminals
    first = {key: event[key] for key in ("ts", "level", "event") if key in event}
    return {**first, **event}


def _console() -> structlog.typing.Processor:
    return structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())


def _handler(handler: logging.Handler, renderer: structlog.typing.Processor) -> logging.Handler:
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_SHARED,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                _when_and_what_first,
                renderer,
            ],
        )
    )
    return handler


class EventLog:
    """Writes one line for each event of a job's life."""

    def __init__(self) -> None:
        self._log = logging.getLogger("inference_manager.jobs")
        self._backends = logging.getLogger("inference_manager.backends")

    def __call__(self, event: Event) -> None:
        """Listen."""
        if isinstance(event, Submitted | Started) and not self._log.isEnabledFor(logging.INFO):
            return
        match event:
            case Submitted(job, position):
                self._log.info("job submitted", extra={**_facts(job), "position": position})
            case Started(job):
                self._log.info("job started", extra=_facts(job))
            case Retried(job, error, counted):
                self._log.warning(
                    "attempt failed, job waits again",
                    extra={
                        **_facts(job),
                        "code": error.code,
                        "detail": error.message,
                        "counted": counted,
                    },
                )
            case Ended(job):
                level = logging.WARNING if job.state is JobState.FAILED else logging.INFO
                if self._log.isEnabledFor(level):
                    self._log.log(level, f"job {job.state}", extra={**_facts(job), **_end(job)})
            case ModelLoaded(_, backend, model, seconds, error):
                self._backends.log(
                    logging.INFO if error is None else logging.WARNING,
                    "model loaded" if error is None else "model load failed",
                    extra={
                        "backend": backend,
                        "model": model,
                        "duration_s": round(seconds, 3),
                        **({} if error is None else {"code": error.code, "detail": error.message}),
                    },
                )
            case ModelPaused(backend, model, seconds, why):
                self._backends.warning(
                    "model is left alone",
                    extra={
                        "backend": backend,
                        "model": model,
                        "duration_s": round(seconds, 3),
                        "detail": why,
                    },
                )
            case BackendChanged(backend, up, detail):
                self._backends.log(
                    logging.INFO if up else logging.WARNING,
                    "backend is up" if up else "backend cannot be reached",
                    extra={"backend": backend, "detail": detail},
                )


def _facts(job: Job) -> dict[str, object]:
    return {
        "job_id": job.id,
        "modality": job.modality.value,
        "model": job.model,
        "caller": job.caller,
        "attempt": job.attempts,
    }


def _end(job: Job) -> dict[str, object]:
    ended = job.ended_at if job.ended_at is not None else job.submitted_at
    facts: dict[str, object] = {"total_s": round(ended - job.submitted_at, 3)}
    if job.started_at is not None:
        facts["processing_s"] = round(ended - job.started_at, 3)
    if job.error is not None:
        facts |= {"code": job.error.code, "detail": job.error.message}
    return facts
