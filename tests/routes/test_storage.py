"""What callers see of a disk that fails: promises are refused, everything else goes on."""

from pathlib import Path

import pytest

from src.app import create_app
from src.commands.hosting import LOOPBACK, Server, listen
from src.settings import Settings
from src.utils.stores.database import Database
from tests.routes.house import house

CHAT = {"modality": "txt2txt", "prompt": "repeat: hello"}


async def test_without_its_file_the_server_promises_nothing_and_answers_chats(
    tmp_path: Path,
) -> None:
    path = tmp_path / "data" / "jobs.db"
    with house(store=f"sqlite:///{path}") as own:
        async with own.http() as http:
            before = await http.post("/jobs", json=CHAT)
            path.unlink()

            refused = await http.post("/jobs", json=CHAT)
            answered = await http.post("/mcp/txt2txt", json={"prompt": "repeat: hello"})
            ready = await http.get("/ready")

    assert before.status_code == 202
    assert refused.status_code == 507
    assert refused.json()["error"]["code"] == "storage_failed"
    assert answered.json()["text"] == "hello"
    assert ready.status_code == 503
    assert "removed or replaced" in " ".join(ready.json()["reasons"])


async def test_a_server_that_cannot_open_its_store_says_why(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    database = Database(path)
    await database.open()
    settings = Settings(store=f"sqlite:///{path}", log_file=None, log_console=False, grace_s=0)
    server = Server(create_app(settings, backends=[]))
    with listen(LOOPBACK, 0) as listener, pytest.raises(SystemExit):
        await server.serve(sockets=[listener])
    await database.close()

    assert f"has {path} open" in str(server.failure())
    assert "setting store" in str(server.failure())
