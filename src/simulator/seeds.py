"""Chance that repeats: every generator is derived from the parts that name its purpose."""

import hashlib
import random


def rng_for(*parts: object) -> random.Random:
    """Return a generator that depends on the parts and on nothing else."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return random.Random(int.from_bytes(digest[:8], "big"))  # noqa: S311
