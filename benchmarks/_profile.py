"""What cProfile found, told so that it can be read: by part of the program, then by function."""

import io
import marshal
import pstats
import sysconfig
from pathlib import Path
from typing import cast

from _servers import ROOT

_PACKAGES = sysconfig.get_path("purelib") + "/"
_STANDARD = sysconfig.get_path("stdlib") + "/"


def own_times(found: Path) -> str:
    """Say in which parts of the program the main thread's time was spent, without waiting."""
    calls = cast("dict[tuple[str, int, str], list[float]]", marshal.loads(found.read_bytes()))
    parts: dict[str, float] = {}
    for (file, _, name), (_, _, own, *_) in calls.items():
        if "epoll" not in name:
            part = _part(file, name)
            parts[part] = parts.get(part, 0.0) + own
    total = sum(parts.values())
    largest = sorted(parts, key=lambda part: -parts[part])[:20]
    shares = [f"{parts[part] / total:8.1%}  {part}" for part in largest]
    out = io.StringIO()
    pstats.Stats(str(found), stream=out).sort_stats("tottime").print_stats(25)
    functions = out.getvalue()
    for folder in (_PACKAGES, _STANDARD, f"{ROOT}/"):
        functions = functions.replace(folder, "")
    return "\n".join(["own time:", *shares, functions])


def _part(file: str, name: str) -> str:
    """Name a module of ours, a package of others, or the built-in function itself."""
    if file == "~":
        return name
    if file.startswith(_PACKAGES):
        return file.removeprefix(_PACKAGES).split("/")[0]
    if file.startswith(_STANDARD):
        return file.removeprefix(_STANDARD).split("/")[0]
    return file.removeprefix(f"{ROOT}/")
