"""What stands between a client and LocalAI: directly, the manager, LiteLLM, Portkey.

    python benchmarks/proxy.py [--quick] [--profile] [--rounds N] [--cache FOLDER]

All have the same upstream (`_upstream.py`), which answers at once and costs far less than what is
measured. In every round all of them take turns at everything; what is printed are the medians of
the rounds. Each proxy is one process as its makers start it, alone on one core; the upstream and
the callers (`_load.py`) share another one. CPU is that of the proxy and its children.

* Chat: a short question, an answer of 5 words in one piece. The manager asks its upstream for a
  stream all the same, because only so it sees a model at work; the others pass the question on.
* First token: the same answer, streamed by one caller. Portkey lets 25 ms pass there on purpose.
* Events: 32 streams at once of one word each 40 ms, which is slow enough for every proxy here.
* Pictures: PNG of 1.5 MB in base64, 4 callers. The manager decodes each one to see that it is
  whole and has the size that was asked for; the others pass bytes on.

The peers are installed on first use (`_peers.py`), into a folder outside the repository; what
cannot be installed is left out, and said to be. `--quick` installs nothing and is only a glance.
`--profile` shows where the manager's time goes instead.
"""

import argparse
import asyncio
import json
import math
import signal
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psutil
from _load import Outcome, Question, ask
from _peers import CACHE
from _profile import own_times
from _targets import MANAGER, PAINTERS, STREAMS, Target, cores, managed, peers, stay_on, upstream
from _upstream import CHAT, PACE, PAINTER, SIZE, WORD, painting

WORDS = 5
DIRECT = "direct"

_QUIET = 10.0  # per cent of all cores that others may use unmentioned


@dataclass(frozen=True, slots=True)
class Plan:
    """How long everything is measured."""

    rounds: int
    seconds: float
    words: int


FULL, GLANCE = Plan(rounds=5, seconds=2.5, words=200), Plan(rounds=1, seconds=0.4, words=25)


def chat(words: int, *, stream: bool) -> Question:
    """Ask for so many words."""
    said = {"role": "user", "content": "What is the capital of France?"}
    body: dict[str, object] = {"model": CHAT, "messages": [said], "max_tokens": words}
    word = WORD.encode("ascii")

    def whole(answer: bytes) -> bool:
        done = b"[DONE]" in answer if stream else b'"usage"' in answer
        return done and answer.count(word) == words

    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return Question("/v1/chat/completions", _encoded(body), whole, mark=word if stream else b"")


def picture() -> Question:
    """Ask for a picture."""
    body = {
        "model": PAINTER,
        "prompt": "a red fox in the snow",
        "size": f"{SIZE[0]}x{SIZE[1]}",
        "response_format": "b64_json",
    }
    return Question(
        "/v1/images/generations",
        _encoded(body),
        lambda answer: b'"b64_json"' in answer and len(answer) > 1_500_000,
    )


def _encoded(body: Mapping[str, object]) -> bytes:
    return json.dumps(body).encode("ascii")


class Meter:
    """Measures targets, one thing at a time."""

    def __init__(self, plan: Plan, picture_mb: float) -> None:
        self._plan = plan
        self._picture_mb = picture_mb
        self.kinds: Sequence[Callable[[Target], None]] = (
            lambda target: self._chats(target, 1),
            lambda target: self._chats(target, 16),
            self._first_tokens,
            self._events,
            self._pictures,
        )

    def warm(self, target: Target) -> None:
        """Do a little of everything, and forget all but its failures."""
        for question, callers in (
            (chat(WORDS, stream=False), 16),
            (chat(WORDS, stream=True), 4),
            (picture(), PAINTERS),
        ):
            self._ask(target, question, callers, self._plan.seconds)

    def _chats(self, target: Target, callers: int) -> None:
        outcome, cpu = self._ask(target, chat(WORDS, stream=False), callers, self._plan.seconds)
        target.note(f"rate {callers}", outcome.rate)
        target.note(f"cpu {callers}", _each(cpu, outcome.done) * 1e6)
        target.note(f"p50 {callers}", outcome.p50 * 1e3)

    def _first_tokens(self, target: Target) -> None:
        outcome, _ = self._ask(target, chat(WORDS, stream=True), 1, self._plan.seconds)
        target.note("first", outcome.first_p50 * 1e3)

    def _events(self, target: Target) -> None:
        question = chat(self._plan.words, stream=True)
        outcome, cpu = self._ask(target, question, STREAMS, 0)
        target.note("event", _each(cpu, outcome.done * self._plan.words) * 1e6)

    def _pictures(self, target: Target) -> None:
        outcome, cpu = self._ask(target, picture(), PAINTERS, self._plan.seconds)
        target.note("mb", outcome.rate * self._picture_mb or math.nan)
        target.note("picture", _each(cpu, outcome.done) * 1e3)

    def _ask(
        self, target: Target, question: Question, callers: int, seconds: float
    ) -> tuple[Outcome, float]:
        before = target.cpu()
        outcome = asyncio.run(
            ask(target.url, question, callers=callers, seconds=seconds, headers=target.headers)
        )
        target.failed += outcome.failed
        target.complaint = target.complaint or outcome.complaint
        return outcome, target.cpu() - before


def _each(total: float, count: int) -> float:
    return total / count if count else math.nan


def show(targets: Sequence[Target], plan: Plan) -> None:
    """Print the table."""
    columns: list[tuple[str, str, int]] = [
        ("req/s|1", "rate 1", 0),
        ("req/s|16", "rate 16", 0),
        ("CPU us|/req 1", "cpu 1", 0),
        ("CPU us|/req 16", "cpu 16", 0),
        ("added|p50 ms", "added p50", 2),
        ("added 1st|token ms", "added first", 2),
        ("CPU us|/event", "event", 0),
        ("picture|MB/s", "mb", 0),
        ("CPU ms|/picture", "picture", 1),
    ]
    print(f"\nmedians of {plan.rounds} rounds; {PACE:g} events/s in each of {STREAMS} streams")
    for line in range(2):
        heads = "".join(f"{head.split('|')[line]:>11}" for head, _, _ in columns)
        print(f"{'':16}{heads}{('', 'failed')[line]:>8}")
    for target in targets:
        cells = (_cell(target.figure(name), digits) for _, name, digits in columns)
        print(f"{target.name:16}{''.join(cells)}{target.failed:>8}")
    print(f"({DIRECT}: its CPU is the upstream's own)")
    for target in targets:
        if target.complaint:
            print(f"{target.name} failed, for example: {target.complaint}")


def _cell(value: float, digits: int) -> str:
    return f"{'-':>11}" if math.isnan(value) else f"{value:>11,.{digits}f}"


def judge(targets: Sequence[Target]) -> None:
    """Print what was to be reached, and whether it was."""
    by_name = {target.name.split()[0]: target for target in targets}
    ours = by_name[MANAGER]

    def say(what: str, reached: bool, value: str) -> None:
        print(f"{what:56} {value:>10}  {'reached' if reached else 'MISSED'}")

    print("\nto reach (requests per second per core: how many fit into one second of CPU)")
    for peer, least in (("Portkey", 1.3), ("LiteLLM", 15.0)):
        if peer in by_name:
            ratio = by_name[peer].figure("cpu 16") / ours.figure("cpu 16")
            what = f"requests/s per core, of {peer}'s: at least {least:g}x"
            say(what, ratio >= least, f"{ratio:.2f}x")
    added = ours.figure("added p50")
    say("added median latency, one caller: at most 0.8 ms", added <= 0.8, f"{added:.2f} ms")
    for peer, most in (("LiteLLM", 0.5), ("Portkey", 1.0)):
        if peer in by_name:
            ratio = ours.figure("event") / by_name[peer].figure("event")
            what = f"CPU per streamed event, of {peer}'s: at most {most:g}x"
            say(what, ratio <= most, f"{ratio:.2f}x")
    say("failed requests: none", ours.failed == 0, str(ours.failed))


def compare(plan: Plan, cache: Path, *, install: bool) -> None:
    """Measure all of them, in turn, and print."""
    callers, proxies = cores() or (None, None)
    if callers is None:
        print("there are no two cores to tell apart: callers and proxies share what there is")
    if (busy := psutil.cpu_percent(1.0)) > _QUIET:
        print(f"others use {busy:.0f} % of this machine: figures will be worse than they are")
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stay_on(callers)
        url, source = stack.enter_context(upstream())
        stay_on(proxies)
        targets = [
            Target(DIRECT, url, source),
            managed(stack, url, scratch),
            *peers(stack, url, scratch, cache, install=install),
        ]
        stay_on(callers)
        meter = Meter(plan, len(painting()) / 1e6)
        for target in targets:
            meter.warm(target)
        for _ in range(plan.rounds):
            for measure in meter.kinds:
                for target in targets:
                    measure(target)
            for target in targets:
                for name in ("p50 1", "first"):
                    added = target.figures[name][-1] - targets[0].figures[name][-1]
                    target.note(f"added {name.split()[0]}", added)
        show(targets, plan)
        judge(targets)


def profile(plan: Plan) -> None:
    """Print where the manager's time goes, for each kind of request."""
    kinds = {
        "chat, 16 callers": (chat(WORDS, stream=False), 16),
        f"{STREAMS} streams": (chat(plan.words, stream=True), STREAMS),
        "pictures": (picture(), PAINTERS),
    }
    for name, (question, callers) in kinds.items():
        with tempfile.TemporaryDirectory() as folder:
            found = Path(folder) / "profile"
            with ExitStack() as stack:
                url, _ = stack.enter_context(upstream())
                target = managed(stack, url, Path(folder), found)
                asyncio.run(ask(target.url, question, callers=callers, seconds=plan.seconds))
                target.process.send_signal(signal.SIGUSR1)
                outcome = asyncio.run(
                    ask(target.url, question, callers=callers, seconds=plan.seconds * 2)
                )
            print(f"\n{name}: {outcome.done} answers under cProfile, {outcome.failed} failures")
            print(own_times(found))


def main() -> None:
    """Read the command line and do it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="one short round; install nothing")
    parser.add_argument("--profile", action="store_true", help="where the manager's time goes")
    parser.add_argument("--rounds", type=int, help="instead of 5, or of 1 with --quick")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where the peers are installed")
    options = parser.parse_args()
    plan = GLANCE if options.quick else FULL
    if options.rounds:
        plan = Plan(options.rounds, plan.seconds, plan.words)
    if options.profile:
        profile(plan)
    else:
        compare(plan, options.cache, install=not options.quick)


if __name__ == "__main__":
    main()
