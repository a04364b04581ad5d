"""What LocalAI answers in one piece: JSON becomes values. Pure.

Answers are read leniently where LocalAI is known to be loose (nulls, empty strings, extra events,
missing counts) and strictly where a mistake could pass for a result. What does not fit raises
`BackendProtocolError`, never a KeyError, and no piece of an answer is quoted.
"""

import binascii
import re
from array import array
from math import isfinite
from typing import cast
from urllib.parse import urlsplit

from ..models.errors import BackendProtocolError, EmptyResult
from ..models.results import Heard, Image, Rank, Segment, Vector, Verdict
from .images import inspect_result
from .localai_errors import Scene, error_of, failure_in
from .strict_json import Json, JsonObject, encodable, mended, parse

ROUNDED = 63  # pixels by which engines miss a side: they draw in multiples of 8 or of 64
_GENERATED = re.compile(r"/generated-[a-z]+(/[\w-][\w.-]*)+$", re.ASCII)
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")  # an escape that may be half of a character
_NANOSECONDS = 1e6  # no recording lasts eleven days: such a number counts nanoseconds


def json_in(text: str | bytes, backend: str) -> Json:
    """Parse an answer.

    Raises:
        BackendProtocolError: it is no JSON.

    """
    try:
        return parse(text)
    except ValueError:
        raise BackendProtocolError(f"backend {backend} answered with what is no JSON") from None


def answer_in(text: str | bytes, scene: Scene) -> JsonObject:
    """Parse an answer or an event that came with HTTP 200. Slow when it is large.

    Raises:
        BackendError: it reports a failure, or is no object.

    """
    match json_in(text, scene.backend):
        case {"error": error} if error is not None:
            raise error_of(failure_in(error), scene)
        case dict() as answer:
            halves = isinstance(text, bytes) and _HALF.search(text) is not None
            return cast("JsonObject", mended(answer)) if halves else answer
        case _:
            raise _strange(scene)


def tokens_in(answer: JsonObject) -> tuple[int, int]:
    """Return the tokens of the prompt and of the completion; zero when unknown."""
    match answer.get("usage"):
        case dict() as usage:
            return _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
        case _:
            return 0, 0


def verdict(answer: JsonObject, scene: Scene, count: int) -> Verdict:
    """Return what was found out about `count` texts.

    Raises:
        BackendProtocolError: the answer holds none, or more or fewer.

    """
    match answer.get("results"):
        case [*results] if [type(result) for result in results] == [dict] * count:
            return Verdict(tuple(results))
        case _:
            raise _strange(scene)


def made(answer: JsonObject, scene: Scene, what: str) -> bytes | str:
    """Return the one picture or film in an answer, or its path. Slow: call it in a thread.

    Of an address only the path counts, from `/generated-...` on: LocalAI names the host that it
    believes to have, and may be behind a prefix.

    Raises:
        BackendError: there is none.

    """
    nothing = EmptyResult(f"backend {scene.backend} answered without a {what}")
    match answer:
        case {"data": [dict() as item, *_]}:
            pass
        case {"data": None | []}:
            raise nothing
        case _ if "created" in answer and "data" not in answer:
            raise nothing
        case _:
            raise _strange(scene)
    match item.get("b64_json") or "", item.get("url") or "":
        case "", "":
            raise nothing
        case "", str(url) if (path := _path_of(url)) is not None:
            return path
        case str(text), _ if text:
            try:
                return binascii.a2b_base64(text.encode("ascii"), strict_mode=True)
            except ValueError:
                raise _strange(scene) from None
        case _:
            raise _strange(scene)


def _path_of(url: str) -> str | None:
    try:
        found = _GENERATED.search(urlsplit(url).path)
    except ValueError:
        return None
    return None if found is None else found[0]


def picture(
    data: bytes,
    scene: Scene,
    *,
    seed: int | None = None,
    size: tuple[int, int] | None = None,
    source: bytes = b"",
) -> Image:
    """Check a picture that was made. Slow: call it in a thread.

    Args:
        data: the picture.
        scene: who made it.
        seed: what it was made with.
        size: the width and height that were asked for, if any were.
        source: the picture it was made from, whose own size will do as well.

    Raises:
        BackendError: it is none, or has another size.

    """
    image = inspect_result(data, backend=scene.backend, seed=seed)
    if size is None or _near(image, size):
        return image
    if source:
        original = inspect_result(source)
        if _near(image, (original.width, original.height)):
            return image
    raise BackendProtocolError(
        f"backend {scene.backend} made a picture of {image.width}x{image.height} pixels "
        f"where {size[0]}x{size[1]} were asked for"
    )


def _near(image: Image, size: tuple[int, int]) -> bool:
    width, height = size
    return abs(image.width - width) <= ROUNDED and abs(image.height - height) <= ROUNDED


def vectors(answer: JsonObject, scene: Scene, count: int, length: int = 0) -> list[Vector]:
    """Return the embeddings of `count` texts, in their order. Slow: call it in a thread.

    A `length` other than 0 is how long those before them were.

    Raises:
        BackendError: there are more or fewer, or they are no vectors of one length.

    """
    match answer.get("data"):
        case [*items]:
            pairs = [_vector(item, scene) for item in items]
        case None:
            pairs = []
        case _:
            raise _strange(scene)
    found = dict(pairs)
    if not pairs or not all(vector.values for vector in found.values()):
        raise EmptyResult(f"backend {scene.backend} answered without a vector")
    if len(pairs) != count or found.keys() != {*range(count)}:
        raise BackendProtocolError(
            f"backend {scene.backend} answered with other vectors than one for each text"
        )
    lengths = {len(vector.values) for vector in found.values()}
    if len(lengths) > 1 or length not in {0, *lengths}:
        raise BackendProtocolError(f"backend {scene.backend} made vectors of different lengths")
    return [found[index] for index in range(count)]


def _vector(item: Json, scene: Scene) -> tuple[int, Vector]:
    match item:
        case {"index": int(index), "embedding": [*numbers]}:
            return index, Vector(array("d", [_number(number, scene) for number in numbers]))
        case _:
            raise _strange(scene)


def ranking(answer: JsonObject, scene: Scene, documents: int, top_n: int | None) -> list[Rank]:
    """Return how relevant documents are, the best first, no more than `top_n`.

    Raises:
        BackendError: some are missing, or there twice, or were never sent.

    """
    match answer.get("results"):
        case [*items] if items:
            found = [_rank(item, scene) for item in items]
        case None | []:
            raise EmptyResult(f"backend {scene.backend} answered without a ranking")
        case _:
            raise _strange(scene)
    wanted = min(top_n or documents, documents)
    indexes = {rank.index for rank in found}
    if len(found) != len(indexes) or len(found) < wanted or not indexes <= {*range(documents)}:
        raise BackendProtocolError(
            f"backend {scene.backend} ranked other documents than those it was sent"
        )
    return sorted(found, key=lambda rank: (-rank.score, rank.index))[:wanted]


def _rank(item: Json, scene: Scene) -> Rank:
    match item:
        case {"index": int(index), "relevance_score": score}:
            return Rank(index, _number(score, scene))
        case _:
            raise _strange(scene)


def transcript(answer: JsonObject, scene: Scene) -> tuple[str, Heard]:
    """Return what was said in a recording, be it nothing, and what else was found out about it.

    Raises:
        BackendError: it is no transcript.

    """
    match answer:
        case {"text": str(text)}:
            pass
        case _:
            raise _strange(scene)
    match answer.get("segments"):
        case None:
            segments = []
        case [*items]:
            segments = [_segment(item, scene) for item in items]
        case _:
            raise _strange(scene)
    if max((segment.end for segment in segments), default=0.0) >= _NANOSECONDS:
        segments = [
            Segment(segment.start / 1e9, segment.end / 1e9, segment.text, segment.speaker)
            for segment in segments
        ]
    language, duration = answer.get("language"), answer.get("duration")
    seconds = None if duration is None else _number(duration, scene)
    return encodable(text), Heard(
        encodable(language)[:64] if isinstance(language, str) else "", seconds, tuple(segments)
    )


def _segment(item: Json, scene: Scene) -> Segment:
    match item:
        case {"start": start, "end": end, "text": str(text), **rest}:
            speaker = rest.get("speaker")
            return Segment(
                _number(start, scene),
                _number(end, scene),
                encodable(text),
                encodable(speaker) if isinstance(speaker, str) else "",
            )
        case _:
            raise _strange(scene)


def _number(value: Json, scene: Scene) -> float:
    """Return a finite number; JSON may write one that is too large to be one."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            raise _strange(scene) from None
        if isfinite(number):
            return number
    raise _strange(scene)


def _count(value: Json) -> int:
    """Read a number of tokens; what is none counts as zero, which means unknown."""
    return value if type(value) is int and 0 <= value < 2**53 else 0


def _strange(scene: Scene) -> BackendProtocolError:
    return BackendProtocolError(
        f"backend {scene.backend} answered with something else than it was asked for"
    )
