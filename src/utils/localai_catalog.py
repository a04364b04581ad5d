"""What LocalAI tells of itself: its models, what they can do, what is in memory. Pure."""

from collections.abc import Iterator, Mapping

from ..models.errors import BackendProtocolError
from ..models.modality import Modality
from ..models.ports import OfferedModel
from .localai_answers import json_in
from .strict_json import Json, parse

CAPABILITIES: Mapping[str, Modality] = {
    "chat": Modality.TXT2TXT,
    "completion": Modality.TXT2TXT,
    "vision": Modality.IMG2TXT,
    "image": Modality.TXT2IMG,
    "embeddings": Modality.TXT2VEC,
    "embedding": Modality.TXT2VEC,
    "rerank": Modality.RERANK,
    "transcript": Modality.AUDIO2TXT,
    "tts": Modality.TXT2AUDIO,
    "sound_generation": Modality.TXT2SOUND,
    "video": Modality.TXT2VIDEO,
}
"""What LocalAI and Ollama call them. Inpainting has no word: it takes a definition."""


def offered(body: bytes, backend: str) -> list[OfferedModel]:
    """Read a list of models, with capabilities or without; skip entries that are none.

    `vision` may appear only after a model was loaded for the first time, and img2img is never
    reported: all there is, is an image model whose definition says that it takes images.

    Raises:
        BackendProtocolError: it is no list of models.

    """
    match json_in(body, backend):
        case {"data": None}:
            return []
        case {"data": [*entries]}:
            return [model for entry in entries for model in _offered(entry)]
        case _:
            raise _unreadable(backend)


def tagged(body: bytes, backend: str) -> list[OfferedModel]:
    """Read a list of models in the shape of Ollama, which has words for text models only.

    Raises:
        BackendProtocolError: it is no list of models.

    """
    match json_in(body, backend):
        case {"models": None}:
            return []
        case {"models": [*entries]}:
            return [model for entry in entries for model in _tagged(entry)]
        case _:
            raise _unreadable(backend)


def _unreadable(backend: str) -> BackendProtocolError:
    return BackendProtocolError(f"the models of backend {backend} cannot be read")


def _offered(entry: Json) -> Iterator[OfferedModel]:
    if not isinstance(entry, dict):
        return
    name = entry.get("id")
    if not isinstance(name, str) or not _is_name(name):
        return
    if "capabilities" not in entry:
        yield OfferedModel(name, None)
        return
    able, inputs = _names(entry["capabilities"]), _names(entry.get("input_modalities"))
    yield OfferedModel(name, modalities(able, inputs))


def _tagged(entry: Json) -> Iterator[OfferedModel]:
    name = _untagged(_name(entry))
    if isinstance(entry, dict) and _is_name(name):
        yield OfferedModel(name, modalities(_names(entry.get("capabilities"))) or None)


def _is_name(name: str) -> bool:
    return 0 < len(name) <= 256 and name.isprintable()


def modalities(
    capabilities: frozenset[str], inputs: frozenset[str] = frozenset()
) -> frozenset[Modality]:
    """Return what a model with these capabilities can do."""
    found = {CAPABILITIES[each] for each in capabilities & CAPABILITIES.keys()}
    if "image" in inputs:
        if "chat" in capabilities:
            found.add(Modality.IMG2TXT)
        if "image" in capabilities:
            found.add(Modality.IMG2IMG)
    return frozenset(found)


def resident(body: bytes, backend: str) -> frozenset[str]:
    """Read which models are in memory, from `/system` or from `/api/ps`.

    Raises:
        BackendProtocolError: it is neither.

    """
    match json_in(body, backend):
        case {"loaded_models": entries}:
            return _names(entries)
        case {"models": entries}:
            return frozenset(map(_untagged, _names(entries)))
        case _:
            raise BackendProtocolError(f"what backend {backend} has in memory cannot be read")


def version(body: bytes) -> str:
    """Read the version; empty if there is none."""
    try:
        match parse(body):
            case {"version": str(text)}:
                return "".join(filter(str.isprintable, text))[:100].strip()
            case _:
                return ""
    except ValueError:
        return ""


def _names(entries: Json) -> frozenset[str]:
    """Return the names in a list; whatever else it holds has none."""
    return (
        frozenset(filter(None, map(_name, entries))) if isinstance(entries, list) else frozenset()
    )


def _name(entry: Json) -> str:
    match entry:
        case str(name) | {"id": str(name)} | {"name": str(name)} | {"model": str(name)}:
            return name
        case _:
            return ""


def _untagged(name: str) -> str:
    """Return the name that LocalAI knows: for Ollama's clients it adds a tag to it."""
    return name.removesuffix(":latest")
