"""Settings that are read again while the server runs."""

import logging
import signal
from pathlib import Path
from typing import Any

import httpx2
import pytest

from src.app import create_app
from src.reading import BadSettings, settings_from
from src.reload import Reload
from src.settings import Settings
from tests.serving import serving
from tests.test_cli import PATIENCE_S, address_in, read_until, started

BASE: dict[str, Any] = {"log_file": None, "log_level": "error", "grace_s": 0}
LATER = {"prompt": "repeat: hello", "model": "sim-chat", "wait_seconds": 0}


class Config:
    """What is read; a test changes it, or breaks it."""

    def __init__(self, **values: Any) -> None:
        self.values = {**BASE, **values}
        self.trouble = ""

    def __call__(self) -> Settings:
        if self.trouble:
            raise BadSettings(self.trouble)
        return Settings(**self.values)


def reload(url: str) -> httpx2.Response:
    return httpx2.post(f"{url}/queue/reload", trust_env=False, timeout=PATIENCE_S)


def audit(url: str) -> list[dict[str, Any]]:
    answer = httpx2.get(f"{url}/queue/audit", trust_env=False, timeout=PATIENCE_S)
    records: list[dict[str, Any]] = answer.json()["records"]
    return records


def test_limits_change_at_once_and_what_cannot_is_named() -> None:
    config = Config(max_waiting=1)
    with serving(create_app(config(), backends=[], again=config)) as url:
        post = f"{url}/mcp/txt2txt"
        statuses = [httpx2.post(post, json=LATER, trust_env=False).status_code for _ in range(2)]
        config.values |= {"max_waiting": 2, "port": 9, "max_attempts": 5, "affinity_s": 0}
        told = reload(url).json()
        more = [httpx2.post(post, json=LATER, trust_env=False).status_code for _ in range(2)]
        again = reload(url).json()
        records = audit(url)

    assert statuses == [202, 503]
    assert told == {
        "before": {"max_waiting": 1, "affinity_s": 20.0, "max_attempts": 3},
        "after": {"max_waiting": 2, "affinity_s": 0.0, "max_attempts": 5},
        "restart": ["port"],
    }
    assert more == [202, 503]
    assert again == {"before": {}, "after": {}, "restart": ["port"]}
    assert [(r["action"], r["after"]) for r in records] == [
        ("reload", {}),
        ("reload", told["after"]),
    ]


def test_every_setting_that_may_change_does() -> None:
    config = Config()
    app = create_app(config(), backends=[], again=config)
    with serving(app) as url:
        config.values |= {
            "max_waiting": 7,
            "max_waiting_per_caller": 6,
            "max_waiting_mb": 5,
            "max_waiting_disk_mb": 4,
            "keep_results_mb": 8,
            "keep_s": 600,
            "keep_failed_s": 700,
            "grace_s": 3,
            "log_level": "warning",
            "operators": ["ann"],
        }
        told = reload(url).json()

        bounds = app.state.processor.scheduler.bounds
        assert (bounds.waiting, bounds.per_caller) == (7, 6)
        assert (bounds.waiting_bytes, bounds.waiting_disk_bytes) == (5 * 2**20, 4 * 2**20)
        kept = app.state.processor.store
        assert kept.keep_bytes == 8 * 2**20
        assert (kept.keeping.done_s, kept.keeping.failed_s) == (600, 700)
        assert app.state.stopping.grace_s == 3
        app.state.stopping.grace_s = 0
        assert logging.getLogger().level == logging.WARNING
    assert told["restart"] == []
    assert told["after"] == {name: config.values[name] for name in told["after"]}
    assert len(told["after"]) == 10


def test_settings_that_are_wrong_change_nothing_and_say_why() -> None:
    config = Config(max_waiting=1)
    app = create_app(config(), backends=[], again=config)
    with serving(app) as url:
        config.values |= {"max_waiting": 2}
        config.trouble = "setting max_waiting: must be a number; change IM_MAX_WAITING"
        refused = reload(url)
        records = audit(url)

    assert refused.status_code == 422
    assert refused.json()["error"]["message"] == config.trouble
    assert app.state.processor.scheduler.bounds.waiting == 1
    assert records == []


def test_who_made_the_server_of_settings_in_code_has_none_to_read_again() -> None:
    with serving(create_app(Settings(**BASE), backends=[])) as url:
        assert reload(url).json() == {"before": {}, "after": {}, "restart": []}


def test_a_file_is_read_again_and_the_command_line_still_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "config.yaml"

    file.write_text("max_waiting: 3\nport: 1\n")
    assert (settings_from(port=9).max_waiting, settings_from(port=9).port) == (3, 9)
    file.write_text("max_waiting: 0\n")
    with pytest.raises(BadSettings, match=r"setting max_waiting: .*; change IM_MAX_WAITING"):
        settings_from(port=9)


async def test_nothing_is_put_into_force_that_was_only_looked_at() -> None:
    config, put = Config(), list[int]()
    looked = Reload(config(), config, {"max_waiting": lambda new: put.append(new.max_waiting)})
    config.values["max_waiting"] = 5

    changes = await looked.look()
    assert (put, (await looked.look()).after) == ([], {"max_waiting": 5})
    looked.apply(changes)
    assert (put, (await looked.look()).after) == ([5], {})


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="there is no SIGHUP on this system")
def test_sighup_has_the_settings_read_again(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("max_waiting: 3\n")
    with started(tmp_path, "serve", "--backend", "simulator", "--port", "0") as process:
        url = address_in(read_until(process.stdout, "next"))
        file.write_text("max_waiting: wrong\n")
        process.send_signal(signal.SIGHUP)
        read_until(process.stderr, "what SIGHUP asks for is refused")
        file.write_text("max_waiting: 4\n")
        process.send_signal(signal.SIGHUP)
        while not (records := audit(url)):
            pass

    assert records[0]["who"] == "signal SIGHUP"
    assert (records[0]["before"], records[0]["after"]) == ({"max_waiting": 3}, {"max_waiting": 4})
