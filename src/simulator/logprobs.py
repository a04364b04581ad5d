"""How sure a simulated model is of its tokens: numbers that look the part and repeat."""

import hashlib
import math
from collections.abc import Mapping, Sequence

from .seeds import rng_for

_OTHERS = (" the", " a", " and", " of", ".", ",", " it", " to", " in", " so", " by")


def logprobs(tokens: Sequence[str], top: int) -> object:
    """Return the `logprobs` of a choice, with so many of the likeliest tokens for each."""
    return {"content": [_certainty(place, token, top) for place, token in enumerate(tokens)]}


def _certainty(place: int, token: str, top: int) -> object:
    share = rng_for("logprob", place, token).uniform(0.5, 0.99)
    likeliest = [token, *(other for other in _OTHERS if other != token)][: max(0, top)]
    # each of the others has half of what those before it have left
    shares = [share, *((1 - share) / 2**rank for rank in range(1, len(likeliest)))]
    told = [_told(*pair) for pair in zip(likeliest, shares, strict=False)]
    return {**_told(token, share), "top_logprobs": told}


def _told(token: str, share: float) -> Mapping[str, object]:
    digest = hashlib.sha256(token.encode(errors="surrogatepass")).digest()
    return {
        "id": int.from_bytes(digest[:2], "big"),
        "token": token,
        "bytes": list(token.encode(errors="surrogatepass")),
        "logprob": round(math.log(share), 6),
    }
