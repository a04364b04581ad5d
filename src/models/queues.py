"""The queues: one per modality, drained in priority order, first in first out inside a level.

All of them together are one `Line`. A job's place is one integer, its *order key*: modality, then
level, then submission number. Sorted lists of keys answer every question (who is first, how many
are ahead, which model's turn it is) in time that grows with the logarithm of the line.
"""

from bisect import bisect_left, insort
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from sortedcontainers import SortedList

from .jobs import Level
from .modality import Modality

priority_order: tuple[Modality, ...] = (
    Modality.TXT2TXT,
    Modality.TXT2VEC,
    Modality.RERANK,
    Modality.AUDIO2TXT,
    Modality.TXT2AUDIO,
    Modality.TXT2IMG,
    Modality.IMG2IMG,
    Modality.INPAINT,
    Modality.IMG2TXT,
    Modality.TXT2SOUND,
    Modality.TXT2VIDEO,
)
"""Which queue is drained first: short work that somebody waits for, before long work.

The settings may give another order.
"""

model_sets: Mapping[Modality, frozenset[str]] = {
    Modality.TXT2TXT: frozenset({"Qwen2.5-32B-Instruct"}),
    Modality.TXT2IMG: frozenset({"Flux-Dev"}),
    Modality.IMG2IMG: frozenset({"Flux-Dev"}),
    Modality.IMG2TXT: frozenset({"Qwen2.5-VL-32B-Instruct"}),
    Modality.TXT2VEC: frozenset(),
    Modality.RERANK: frozenset(),
    Modality.AUDIO2TXT: frozenset(),
    Modality.TXT2AUDIO: frozenset(),
    Modality.TXT2SOUND: frozenset(),
    Modality.INPAINT: frozenset(),
    Modality.TXT2VIDEO: frozenset(),
}
"""Models whose modalities are known without asking: LocalAI never reports img2img, for example."""

_SEQUENCE_BITS = 48
_LEVEL_BITS = 2


class Entry(NamedTuple):
    """What the line knows of a waiting job: everything that decides its turn, no bodies.

    Attributes:
        model: None while it is not known which models the backends offer.
        sequence: the submission number, below 2**48; unique, and kept through retries.
        deadline: seconds since 1970 after which nobody wants the result.
        size_bytes: room that its request takes in memory.
        disk_bytes: room that its request's blobs take on disk.
        caller: whose job it is.

    """

    id: str
    modality: Modality
    level: Level
    model: str | None
    sequence: int
    submitted_at: float
    deadline: float
    size_bytes: int = 0
    disk_bytes: int = 0
    caller: str = "anonymous"


class Line:
    """The jobs that wait, in order."""

    def __init__(self, order: Sequence[Modality] = priority_order) -> None:
        self.order = tuple(order)
        self._rank = {modality: rank for rank, modality in enumerate(self.order)}
        self._entries: dict[int, Entry] = {}
        self._keys: SortedList[int] = SortedList()
        self._of_model: dict[str, SortedList[int]] = {}
        self._heads: list[int] = []

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[Entry]:
        return (self._entries[key] for key in self._keys)

    def __repr__(self) -> str:
        waiting = ", ".join(f"{modality} {self.count(modality)}" for modality in self.order)
        return f"<Line [{waiting}]>"

    def put(self, entry: Entry) -> None:
        """Let a job wait; its sequence decides its place, not the moment of the call."""
        key = self._key(entry)
        self._entries[key] = entry
        self._keys.add(key)
        if entry.model is None:
            return
        keys = self._of_model.get(entry.model)
        if keys is None:
            self._of_model[entry.model] = SortedList((key,))
        else:
            head = keys[0]
            keys.add(key)
            if head < key:
                return
            del self._heads[bisect_left(self._heads, head)]
        insort(self._heads, key)

    def take(self, entry: Entry) -> None:
        """Let a job leave the line, from wherever it stands."""
        key = self._key(entry)
        del self._entries[key]
        self._keys.remove(key)
        if entry.model is None:
            return
        keys = self._of_model[entry.model]
        if keys[0] != key:
            keys.remove(key)
            return
        keys.pop(0)
        del self._heads[bisect_left(self._heads, key)]
        if keys:
            insort(self._heads, keys[0])
        else:
            del self._of_model[entry.model]

    def take_all(self, leaving: Callable[[Entry], bool]) -> list[Entry]:
        """Let all jobs leave of which that is said; return them, best first."""
        gone: list[Entry] = []
        staying: list[Entry] = []
        for entry in self:
            (gone if leaving(entry) else staying).append(entry)
        if gone:
            self._fill(staying)
        return gone

    def put_all(self, entries: Sequence[Entry]) -> None:
        """Let many jobs wait at once, each in its place."""
        if entries:
            self._fill((*self._entries.values(), *entries))

    def first_of_each_model(self, without: Container[str | None] = ()) -> Iterator[Entry]:
        """Each model's best job, best first; if it is taken meanwhile, then the model's next.

        Models in `without` are passed over.
        """
        heads = self._heads
        at = 0
        while at < len(heads):
            key = heads[at]
            entry = self._entries[key]
            if entry.model not in without:
                yield entry
            if at < len(heads) and heads[at] == key:
                at += 1

    def head(self, model: str) -> Entry | None:
        """Return a model's best job; None if none waits for it."""
        keys = self._of_model.get(model)
        return self._entries[keys[0]] if keys else None

    def count_of(self, model: str) -> int:
        """How many jobs wait for a model."""
        return len(self._of_model.get(model, ()))

    @property
    def models(self) -> Container[str]:
        """The models for which jobs wait."""
        return self._of_model

    def place(self, entry: Entry) -> int:
        """Return a job's order key: the smaller, the better."""
        return self._key(entry)

    def is_better(self, one: Entry, other: Entry) -> bool:
        """Whether a job goes before another."""
        return self._key(one) < self._key(other)

    def position(self, entry: Entry) -> int:
        """How many waiting jobs are better; 0 means next."""
        return self._keys.bisect_left(self._key(entry))

    def count(self, modality: Modality) -> int:
        """How many jobs of a modality wait."""
        low, high = self._span(modality)
        return self._keys.bisect_left(high) - self._keys.bisect_left(low)

    def waiting(self, modality: Modality) -> Iterator[Entry]:
        """Yield the waiting jobs of one modality, best first."""
        low, high = self._span(modality)
        return (self._entries[key] for key in self._keys.irange(low, high, (True, False)))

    def oldest(self, modality: Modality) -> Entry | None:
        """Return the waiting job of a modality that was submitted first."""
        low, _ = self._span(modality)
        keys = self._keys
        firsts: list[Entry] = []
        for level in Level:
            start = low + (level << _SEQUENCE_BITS)
            at = keys.bisect_left(start)
            if at < len(keys) and keys[at] < start + (1 << _SEQUENCE_BITS):
                firsts.append(self._entries[keys[at]])
        return min(firsts, key=lambda entry: entry.sequence, default=None)

    def _fill(self, entries: Iterable[Entry]) -> None:
        """Begin anew with these jobs."""
        self._entries = {self._key(entry): entry for entry in entries}
        self._keys = SortedList(self._entries)
        of_model: dict[str, list[int]] = {}
        for key in self._keys:
            if (model := self._entries[key].model) is not None:
                of_model.setdefault(model, []).append(key)
        self._of_model = {model: SortedList(keys) for model, keys in of_model.items()}
        self._heads = sorted(keys[0] for keys in of_model.values())

    def _key(self, entry: Entry) -> int:
        lane = (self._rank[entry.modality] << _LEVEL_BITS) | entry.level
        return (lane << _SEQUENCE_BITS) | entry.sequence

    def _span(self, modality: Modality) -> tuple[int, int]:
        low = self._rank[modality] << (_LEVEL_BITS + _SEQUENCE_BITS)
        return low, low + (1 << (_LEVEL_BITS + _SEQUENCE_BITS))
