"""Names and keys of callers, as people write them. What is said of a wrong one never quotes it."""

import re
from collections.abc import Iterable, Mapping

ANONYMOUS = "anonymous"
"""Who calls where nobody is asked for a key."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_KEY = re.compile(r"[!-~]{1,512}")


def read_keys(lines: Iterable[str]) -> dict[str, str]:
    """Read `name=key` from each line; empty ones and those that begin with `#` say nothing.

    Raises:
        ValueError: a line is written otherwise, or a name is given twice; the others as
            `check_keys`.

    """
    keys: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, equals, key = (part.strip() for part in line.partition("="))
        if not equals:
            raise ValueError(f"entry {number} must look like name=key")
        if name in keys:
            raise ValueError(f"{name if _NAME.fullmatch(name) else 'a name'} is given twice")
        keys[name] = key
    check_keys(keys)
    return keys


def check_keys(keys: Mapping[str, str]) -> None:
    """Check that names can stand in a log and keys in a header, and that no two are the same.

    Raises:
        ValueError: one cannot, or two are.

    """
    for number, (name, key) in enumerate(keys.items(), start=1):
        if _NAME.fullmatch(name) is None or name == ANONYMOUS:
            raise ValueError(
                f"name {number} must be letters, digits, dots, dashes and underscores, "
                f"64 at most, and not {ANONYMOUS}"
            )
        if _KEY.fullmatch(key) is None:
            raise ValueError(f"the key of {name} must be 1 to 512 visible ASCII characters")
    if len(set(keys.values())) < len(keys):
        raise ValueError("two names have the same key")
