"""What a simulated model says: a pure function of the model, the messages and the seed.

A token is a word with the space before it, or one punctuation mark. Prompts are counted the same
way, so usage adds up. Three prompts have a fixed meaning: `repeat: X` answers X exactly,
`count to N` counts, `tokens N` gives exactly N tokens.
"""

import itertools
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from .seeds import rng_for

OPENING = "[simulated]"
MOST_TOKENS = 100_000

_TOKEN = re.compile(r"\s*(?:\w+|[^\w\s])|\s+$")
_FIXED = re.compile(r"(?is)\s*(?:(repeat):\s?(.*?)|(count to)\s+(\d+)|(tokens)\s+(\d+))\s*")

_SUBJECTS = ("The river", "A quiet engine", "The lamp", "An old map", "The harbour", "A small bird")
_VERBS = ("follows", "remembers", "carries", "crosses", "measures", "outlasts")
_OBJECTS = ("the morning", "a long road", "the tide", "its own shadow", "the hills", "a slow song")
_ENDINGS = ("", " without hurry", " before the rain", " once more", " in good time", " like a bell")


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a chat, its pictures left out."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class Call:
    """A function that shall be called, and its arguments in JSON."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What is said, token by token, and why it ends; or what is called, in as many tokens."""

    tokens: tuple[str, ...]
    finish_reason: Literal["stop", "length", "tool_calls"]
    reasoning: tuple[str, ...] = ()
    calls: tuple[Call, ...] = ()

    @property
    def text(self) -> str:
        """All that is said, in one piece."""
        return "" if self.calls else "".join(self.tokens)


def tokens_of(text: str) -> list[str]:
    """Split a text into tokens; joined, they are the text again."""
    return _TOKEN.findall(text)


def count_prompt(messages: Sequence[Message]) -> int:
    """Count the tokens of a prompt."""
    return sum(len(tokens_of(message.text)) for message in messages)


def answer(
    model: str,
    messages: Sequence[Message],
    *,
    seed: int,
    seen: Sequence[str] = (),
    max_tokens: int | None = None,
    stop: Sequence[str] = (),
    think: bool = False,
    calls: Sequence[Call] = (),
    dictated: str | None = None,
) -> Answer:
    """Answer a chat; `seen` are descriptions of the pictures that came with it.

    Calls take the place of words, and a dictated text that of any other.
    """
    reasoning = _reasoning(messages) if think else ()
    if calls:
        called = tokens_of("".join(f"{call.name}{call.arguments}" for call in calls))
        return Answer(tuple(called), "tool_calls", reasoning, tuple(calls))
    rng = rng_for(model, seed, *[f"{message.role}:{message.text}" for message in messages], *seen)
    said = _fixed(messages, rng) if dictated is None else tokens_of(dictated)
    if said is None:
        said = _said(messages, seen, rng)
    return _cut(said, reasoning, max_tokens=max_tokens, stop=[text for text in stop if text])


def last_question(messages: Sequence[Message]) -> str:
    """Return the text of the last message of the user."""
    asked = (message.text for message in reversed(messages) if message.role == "user")
    return next(asked, "")


def _fixed(messages: Sequence[Message], rng: random.Random) -> list[str] | None:
    match = _FIXED.fullmatch(last_question(messages))
    if match is None:
        return None
    repeat, repeated, count, counted, _, wished = match.groups()
    if repeat:
        return tokens_of(repeated)
    if count:
        numbers = range(1, min(int(counted), MOST_TOKENS) + 1)
        return [f" {number}" if number > 1 else "1" for number in numbers]
    opening = itertools.chain(tokens_of(OPENING), _chatter(rng))
    return list(itertools.islice(opening, min(int(wished), MOST_TOKENS)))


def _said(messages: Sequence[Message], seen: Sequence[str], rng: random.Random) -> list[str]:
    if seen:
        one_by_one = [
            description if len(seen) == 1 else f"Picture {number}: {description}"
            for number, description in enumerate(seen, 1)
        ]
        return tokens_of(" ".join([OPENING, *one_by_one]))
    said = tokens_of(f"{OPENING} {_facts(messages)}")
    length = rng.randint(40, 105)
    while len(said) < length:
        said += tokens_of(_sentence(rng))
    return said


def facts(messages: Sequence[Message]) -> Mapping[str, object]:
    """Tell what was asked, as an object."""
    question = " ".join(last_question(messages).split())
    return {
        "simulated": True,
        "asked": question if len(question) <= 80 else question[:79] + "…",
        "messages": len(messages),
        "system_prompt": any(message.role == "system" for message in messages),
    }


def _facts(messages: Sequence[Message]) -> str:
    told = facts(messages)
    number = "1 message" if len(messages) == 1 else f"{len(messages)} messages"
    prompt = "a system prompt" if told["system_prompt"] else "no system prompt"
    return f'You asked "{told["asked"]}" in {number} with {prompt}.'


def _reasoning(messages: Sequence[Message]) -> tuple[str, ...]:
    words = len(tokens_of(last_question(messages)))
    return tuple(tokens_of(f"{OPENING} The question has {words} tokens. No thought is needed."))


def _chatter(rng: random.Random) -> Iterator[str]:
    """Yield the tokens of plain sentences, for ever."""
    while True:
        yield from tokens_of(_sentence(rng))


def _sentence(rng: random.Random) -> str:
    subject, verb = rng.choice(_SUBJECTS), rng.choice(_VERBS)
    return f" {subject} {verb} {rng.choice(_OBJECTS)}{rng.choice(_ENDINGS)}."


def _cut(
    said: list[str], reasoning: tuple[str, ...], *, max_tokens: int | None, stop: Sequence[str]
) -> Answer:
    limited = said if max_tokens is None else said[:max_tokens]
    text = "".join(limited)
    found = [place for place in map(text.find, stop) if place >= 0]
    if found:
        return Answer(tuple(tokens_of(text[: min(found)])), "stop", reasoning)
    finish: Literal["stop", "length"] = "length" if len(limited) < len(said) else "stop"
    return Answer(tuple(limited), finish, reasoning)
