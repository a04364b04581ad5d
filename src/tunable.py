"""Which settings can be changed while the server runs, and how each is put into force."""

import logging
from collections.abc import Callable, Mapping

from .models.scheduler import Bounds
from .processor import Processor
from .routes.operators import Operators
from .settings import Settings
from .stopping import Stopping
from .utils.retry import RetryPolicy
from .utils.stores.rows import Keeping
from .utils.stores.sqlite import SQLiteStore

MIB = 2**20


def bounds_of(settings: Settings) -> Bounds:
    """Return how much may wait."""
    return Bounds(
        waiting=settings.max_waiting,
        per_modality=settings.max_waiting,
        per_caller=settings.max_waiting_per_caller,
        waiting_bytes=settings.max_waiting_mb * MIB,
        waiting_disk_bytes=settings.max_waiting_disk_mb * MIB,
    )


def keeping_of(settings: Settings) -> Keeping:
    """Return how long ended jobs are kept."""
    return Keeping(done_s=settings.keep_s, failed_s=settings.keep_failed_s)


def puts(
    processor: Processor,
    store: SQLiteStore,
    retry: RetryPolicy,
    operators: Operators,
    stopping: Stopping,
) -> Mapping[str, Callable[[Settings], object]]:
    """Say how each setting is put into force that needs no start."""
    scheduler = processor.scheduler

    def bounds(new: Settings) -> None:
        scheduler.bounds = bounds_of(new)

    def affinity(new: Settings) -> None:
        scheduler.affinity_s = new.affinity_s

    def attempts(new: Settings) -> None:
        retry.attempts = new.max_attempts
        processor.loads.allow(new.max_attempts)

    def keeping(new: Settings) -> None:
        store.keep_bytes = new.keep_results_mb * MIB
        store.keeping = keeping_of(new)

    def log_level(new: Settings) -> None:
        logging.getLogger().setLevel(new.log_level.upper())

    def grace(new: Settings) -> None:
        stopping.grace_s = new.grace_s

    def named(new: Settings) -> None:
        operators.names = new.operators

    return {
        "grace_s": grace,
        "max_waiting": bounds,
        "max_waiting_per_caller": bounds,
        "max_waiting_mb": bounds,
        "max_waiting_disk_mb": bounds,
        "affinity_s": affinity,
        "max_attempts": attempts,
        "keep_results_mb": keeping,
        "keep_s": keeping,
        "keep_failed_s": keeping,
        "log_level": log_level,
        "operators": named,
    }
