"""`backup` and `restore`, beside a server and without one."""

import json
from pathlib import Path

import httpx2
import pytest

from tests.routes.house import House, house
from tests.test_cli import invoke

JOB = {"modality": "txt2txt", "prompt": "repeat: hello", "model": "sim-chat"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IM_STORE", "sqlite:///data/jobs.db")


def submit(built: House) -> str:
    made = httpx2.post(f"{built.url}/jobs?wait=10", json=JOB, trust_env=False).json()
    job_id: str = made["job_id"]
    return job_id


def status(built: House, job_id: str) -> int:
    return httpx2.get(f"{built.url}/jobs/{job_id}?wait=10", trust_env=False).status_code


def test_what_was_copied_beside_the_running_server_can_be_put_back(tmp_path: Path) -> None:
    with house() as first:
        before = submit(first)
        assert status(first, before) == 200
        copied = invoke("backup", "copy")
        after = submit(first)
        assert status(first, after) == 200
        refused = invoke("restore", "copy")

    restored = invoke("restore", "copy", "--json")
    with house() as second:
        seen = status(second, before), status(second, after)
        log = httpx2.get(f"{second.url}/queue/audit", trust_env=False).json()["records"]

    assert (copied.code, str(tmp_path / "copy") in copied.out) == (0, True)
    assert refused.code == 1
    assert refused.err.startswith("error: ")
    assert restored.code == 0, restored.err
    assert Path(json.loads(restored.out)["aside"]).is_dir()
    assert seen == (200, 404)
    assert [(r["who"], r["action"], r["about"]) for r in log] == [
        ("command line", "restore", {"from": str(tmp_path / "copy")})
    ]


def test_without_a_store_or_a_backup_it_says_so() -> None:
    assert "there is no database at" in invoke("backup", "copy").err
    assert "is not a backup" in invoke("restore", "nothing").err
    in_memory = invoke("backup", "copy", IM_STORE="sqlite::memory:")
    assert (in_memory.code, "kept in memory" in in_memory.err) == (2, True)
