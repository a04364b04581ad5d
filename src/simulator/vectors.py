"""What a simulated model makes of a text: 64 numbers of unit length.

Texts that share words are near each other: a signed hash puts each lower-case word and each three
letters of it into one of the buckets.
"""

import hashlib
import math
import re
from collections.abc import Iterator

SIZE = 64

Vector = tuple[float, ...]


def vector(text: str) -> Vector:
    """Return the direction of a text."""
    sums = [0.0] * SIZE
    for feature in _features(text):
        digest = hashlib.sha256(feature.encode("utf-8", "surrogatepass")).digest()
        sums[digest[0] % SIZE] += 1.0 if digest[1] % 2 else -1.0
    length = math.hypot(*sums)
    if not length:  # everything has cancelled out
        return (1.0, *sums[1:])
    return tuple(value / length for value in sums)


def likeness(one: Vector, other: Vector) -> float:
    """Tell how near two directions are: 1 for the same one, about 0 for unrelated ones."""
    return sum(left * right for left, right in zip(one, other, strict=True))


def _features(text: str) -> Iterator[str]:
    words = re.findall(r"\w+", text.lower())
    if not words:
        yield f"text {text}"
    for word in words:
        yield f"word {word}"
        padded = f"<{word}>"
        for start in range(len(padded) - 2):
            yield f"letters {padded[start : start + 3]}"
