"""What callers see of a disk that fails: promises are refused, everything else goes on."""

import io
from pathlib import Path
from random import Random

import PIL.Image
import pytest

from src.app import create_app
from src.commands.hosting import LOOPBACK, Server, listen
from src.settings import Settings
from src.utils.stores.database import Database
from tests.routes.house import base64_of, house

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
            health = await http.get("/health")

    assert before.status_code == 202
    assert refused.status_code == 507
    assert refused.json()["error"]["code"] == "storage_failed"
    assert answered.json()["text"] == "hello"
    assert ready.status_code == 503
    assert "removed or replaced" in " ".join(ready.json()["reasons"])
    assert health.json()["status"] == "degraded"
    assert str(tmp_path) not in refused.text + ready.text


async def test_a_store_leaves_alone_what_belongs_to_another_one_beside_it(tmp_path: Path) -> None:
    noise = base64_of(png_of_noise())
    with house(store=f"sqlite:///{tmp_path}/one.db") as own:
        async with own.http() as http:
            await http.post("/queue/stop")
            waits = await http.post("/jobs", json={"modality": "img2txt", "image": noise})
    before = list((tmp_path / "one.db.blobs").iterdir())

    with house(store=f"sqlite:///{tmp_path}/two.db"):
        pass

    assert waits.status_code == 202
    assert len(before) == 1
    assert before[0].exists()


def png_of_noise() -> bytes:
    """Return a picture that is too large to be kept with its job."""
    pixels = PIL.Image.frombytes("RGB", (300, 300), Random(1).randbytes(300 * 300 * 3))
    file = io.BytesIO()
    pixels.save(file, "PNG")
    return file.getvalue()


async def test_a_server_that_cannot_open_its_store_says_why(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    database = Database(path)
    await database.open()
    log = tmp_path / "app.log"
    settings = Settings(store=f"sqlite:///{path}", log_file=log, log_console=False, grace_s=0)
    server = Server(create_app(settings, backends=[]))
    with listen(LOOPBACK, 0) as listener, pytest.raises(SystemExit):
        await server.serve(sockets=[listener])
    await database.close()

    assert f"has {path} open" in str(server.failure())
    assert "setting store" in str(server.failure())
    assert "only one may; stop that one" in log.read_text()
    assert "Traceback" not in log.read_text()
