"""How busy this machine is."""

from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True)
class SystemLoad:
    """Share of processors and memory in use, in percent of this machine."""

    cpu_percent: float
    memory_percent: float


def system_load() -> SystemLoad:
    """Measure; the processors' share is that since the last call. Does not block."""
    return SystemLoad(psutil.cpu_percent(interval=None), psutil.virtual_memory().percent)
