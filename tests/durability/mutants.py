"""Shows that the tests of the store can fail: each mutant of its SQL has to be caught.

    python -m tests.durability.mutants [NAME ...]

A mutant is the store with one statement spoilt, as a slip of the pen would spoil it. Each is played
against the model, in a process of its own; it is caught when that finds a difference.
"""

import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent.parent
STORES = ROOT / "src" / "utils" / "stores"
_EXAMPLES, _EXAMPLES_OF_NONE = 1000, 100
_CAUGHT = 3
_PATIENCE_S = 300.0


class Mutant(NamedTuple):
    """Where which text is replaced by which."""

    module: str
    known: str
    spoilt: str


def _said(known: str, spoilt: str) -> Mutant:
    return Mutant("statements", known, spoilt)


MUTANTS: Mapping[str, Mutant] = {
    "no version guard": _said(
        "WHERE id = $1 AND version = ${len(CHANGING) + 3} RETURNING id",
        "WHERE id = $1 AND version >= ${len(CHANGING) + 3} - 9 RETURNING id",
    ),
    "steps of a job are those of all": _said(
        "WHERE job_id = $1 AND version > $2 ORDER BY version",
        "WHERE job_id <> '' AND $1 <> '' AND version > $2 ORDER BY version",
    ),
    "history begins too late": _said(
        "version > $2 ORDER BY version", "version > $2 + 1 ORDER BY version"
    ),
    "history backwards": _said(
        "version > $2 ORDER BY version", "version > $2 ORDER BY version DESC"
    ),
    "a key keeps its first job": _said(
        'DO UPDATE SET fingerprint = excluded.fingerprint, "\n    "job_id = excluded.job_id',
        'DO UPDATE SET fingerprint = excluded.fingerprint, "\n    "job_id = keys.job_id',
    ),
    "a key keeps its first fingerprint": _said(
        "DO UPDATE SET fingerprint = excluded.fingerprint",
        "DO UPDATE SET fingerprint = keys.fingerprint",
    ),
    "keys of all callers are one": _said(
        "FROM keys WHERE caller = $1 AND key = $2", "FROM keys WHERE $1 <> '' AND key = $2"
    ),
    "keys of a caller are one": _said(
        "FROM keys WHERE caller = $1 AND key = $2", "FROM keys WHERE caller = $1 AND $2 <> ''"
    ),
    "who waits for another attempt is forgotten": _said(
        "_WAITS = f\"'{JobState.QUEUED}', '{JobState.RETRYING}'\"",
        "_WAITS = f\"'{JobState.QUEUED}'\"",
    ),
    "plain jobs are taken up again": _said(
        "WHERE state IN ({_WAITS}) AND promised = 1", "WHERE state IN ({_WAITS})"
    ),
    "the line is as it was submitted": _said(
        "SELECT id, modality, level, model, sequence, submitted_at",
        "SELECT id, modality, level, model, number AS sequence, submitted_at",
    ),
    "the line is backwards": _said(
        "SELECT id, modality, level, model, sequence, submitted_at",
        "SELECT id, modality, level, model, 9999 - sequence, submitted_at",
    ),
    "levels are forgotten": _said(
        "SELECT id, modality, level, model, sequence, submitted_at",
        "SELECT id, modality, 1 AS level, model, sequence, submitted_at",
    ),
    "who waits may start at once": _said(
        'f"caller, retry_at FROM jobs', 'f"caller, NULL AS retry_at FROM jobs'
    ),
    "deadlines are forgotten": _said(
        "sequence, submitted_at, deadline, size_bytes",
        "sequence, submitted_at, deadline + 1e9, size_bytes",
    ),
    "promised jobs end with the process": _said(
        "'{JobState.PROCESSING}') AND jobs.promised = 0 \"", "'{JobState.PROCESSING}') \""
    ),
    "plain jobs that wait are left": _said(
        "WHERE jobs.state IN ({_WAITS}, '{JobState.PROCESSING}') AND",
        "WHERE jobs.state IN ('{JobState.PROCESSING}') AND",
    ),
    "the last one that ran is left": _said(
        'jobs.promised = 1 "\n    "AND jobs.sequence <= $1',
        'jobs.promised = 1 "\n    "AND jobs.sequence < $1',
    ),
    "sequences begin anew": _said("COALESCE(MAX(sequence), 0)", "COALESCE(COUNT(sequence), 0)"),
    "live jobs can be deleted": _said(
        "DELETE FROM jobs WHERE id = $1 AND state IN ({_ENDED})", "DELETE FROM jobs WHERE id = $1"
    ),
    "all ended jobs are deleted": _said(
        "DELETE FROM jobs WHERE id = $1 AND state IN",
        "DELETE FROM jobs WHERE $1 <> '' AND state IN",
    ),
    "purged before their time": _said("AND purge_at <= $1", "AND purge_at - 90000 <= $1"),
    "purged whatever the time": _said("AND purge_at <= $1", "AND purge_at <> $1"),
    "never purged": _said("AND purge_at <= $1", "AND purge_at < $1 - 1e9"),
    "purge takes one too many": _said(
        "ORDER BY purge_at LIMIT $2", "ORDER BY purge_at LIMIT $2 + 1"
    ),
    "lists begin with the oldest": _said("ORDER BY number DESC", "ORDER BY number"),
    "a page repeats its neighbour": _said('term("number <"', 'term("number <="'),
    "lists show the jobs of others": _said(
        'term("caller =", query.caller)', 'term("caller <>", query.caller and "nobody")'
    ),
    "lists know no states": _said(
        'terms.append(f"state IN ({names})")', 'terms.append(f"state NOT IN ({names})")'
    ),
    "lists know no levels": _said('term("level ="', 'term("level >="'),
    "lists know no modalities": _said('term("modality ="', 'term("modality >="'),
    "lists know no errors": _said('term("error_code ="', 'term("error_code >="'),
    "a place in line cannot change": _said(
        "', '.join(f'{name} = ${n}' for n, name in enumerate(CHANGING, 2))",
        "', '.join(f'{name} = ${n}' if name != 'sequence' else f'{name} = {name} + 0 * ${n}' "
        "for n, name in enumerate(CHANGING, 2))",
    ),
    "a retried job goes to the tail": _said(
        "', '.join(f'{name} = ${n}' for n, name in enumerate(CHANGING, 2))",
        "', '.join(f'{name} = ${n}' if name != 'sequence' else f'{name} = number + 0 * ${n}' "
        "for n, name in enumerate(CHANGING, 2))",
    ),
    "results are lost": _said(
        "        *_of_steps(job, steps),\n        *_of_result(job),\n    ]\n    if renamed",
        "        *_of_steps(job, steps),\n    ]\n    if renamed",
    ),
    "steps are lost": _said(
        "        *_of_steps(job, steps),\n        *_of_result(job),\n    ]\n    if renamed",
        "        *_of_steps(job, steps[-1:]),\n        *_of_result(job),\n    ]\n    if renamed",
    ),
    "a key is not kept with its job": _said(
        "if promise is not None and promise.key:", "if promise is not None and not promise.key:"
    ),
    "attempts are one too many": Mutant(
        "rows", "        job.attempts,\n", "        job.attempts + 1,\n"
    ),
    "fences stand still": Mutant("rows", "        job.fence,\n", "        min(job.fence, 1),\n"),
    "a promise is forgotten": Mutant(
        "rows", "int(job.promise is not None)", "int(bool(job.fence))"
    ),
    "keys outlive their jobs": Mutant(
        "migrations",
        "job_id TEXT NOT NULL REFERENCES jobs(id) ON DELETE CASCADE,\n"
        "      PRIMARY KEY(caller, key))",
        "job_id TEXT NOT NULL,\n      PRIMARY KEY(caller, key))",
    ),
}


def text_of(mutant: Mutant) -> str:
    """Return the source of a mutant's module.

    Raises:
        LookupError: what would be spoilt is not there, or there more than once.

    """
    source = (STORES / f"{mutant.module}.py").read_text(encoding="utf-8")
    if source.count(mutant.known) != 1:
        raise LookupError(f"{mutant.module} has {source.count(mutant.known)} of {mutant.known!r}")
    return source.replace(mutant.known, mutant.spoilt)


def _become(mutant: Mutant) -> None:
    """Have the store of this process be the mutant; nothing of it may have been imported yet."""
    name = f"src.utils.stores.{mutant.module}"
    assert name not in sys.modules
    spec = spec_from_file_location(name, STORES / f"{mutant.module}.py")
    assert spec is not None
    sys.modules[name] = module = module_from_spec(spec)
    exec(compile(text_of(mutant), f"<{mutant.module}>", "exec"), module.__dict__)


def _play(examples: int) -> int:
    """Play the model on the disk; return whether a difference was found, and print it."""
    from .test_model import play

    try:
        play(examples, on_disk=True)
    except Exception as error:  # noqa: BLE001 - whatever it is, it was noticed
        print(f"{type(error).__name__} {' '.join(str(error).split())[:70]}")
        return _CAUGHT
    return 0


def _judge(name: str) -> str:
    """Return by what a mutant was caught; nothing if it was not."""
    command = [sys.executable, "-m", "tests.durability.mutants", "--be", name]
    run = subprocess.run(
        command, cwd=ROOT, capture_output=True, timeout=_PATIENCE_S, check=False, text=True
    )
    if run.returncode not in (0, _CAUGHT):
        raise RuntimeError(run.stderr)
    caught = run.stdout.strip()
    if name:
        print(f"{'caught' if caught else 'SURVIVED':9} {name:45} {caught}", flush=True)
    return caught


def main(names: list[str]) -> int:
    """Judge mutants, two at a time; return how many survived, or 1 if what is no mutant did not."""
    if wrong := _judge(""):
        print(f"the store itself is not as the model says: {wrong}")
        return 1
    with ThreadPoolExecutor(2) as pool:
        verdicts = list(pool.map(_judge, names))
    survived = sum(not caught for caught in verdicts)
    print(f"{len(names) - survived} of {len(names)} mutants were caught")
    return survived


if __name__ == "__main__":
    if sys.argv[1:2] == ["--be"]:
        if sys.argv[2]:
            _become(MUTANTS[sys.argv[2]])
        raise SystemExit(_play(_EXAMPLES if sys.argv[2] else _EXAMPLES_OF_NONE))
    raise SystemExit(min(main(sys.argv[1:] or list(MUTANTS)), 1))
