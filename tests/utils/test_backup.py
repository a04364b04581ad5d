"""Backups are whole although the server runs, and are put back only when it does not."""

import asyncio
import shutil
from pathlib import Path

import pytest

from src.models.blobs import Blob
from src.models.errors import StorageFailed, StoreUnusable
from src.models.jobs import Job, JobQuery
from src.models.requests import Img2ImgRequest
from src.utils.blobs import FileBlobs
from src.utils.stores.backup import backup, restore

from .storing import opened, promised

PICTURE = bytes(range(256)) * 400


async def with_a_picture(blobs: FileBlobs, job_id: str = "a") -> tuple[Job, Blob]:
    picture = await blobs.keep(PICTURE)
    assert isinstance(picture, Blob)
    request = Img2ImgRequest(image=picture.reference, prompt="p")
    return promised(job_id, request=request), picture


async def test_a_backup_holds_all_that_was_promised_before_it_was_made(tmp_path: Path) -> None:
    path, kept = tmp_path / "data" / "jobs.db", tmp_path / "backups" / "one"
    blobs = FileBlobs(tmp_path / "data" / "jobs.db.blobs")
    (tmp_path / "data" / "jobs.db.files").mkdir(parents=True)
    (tmp_path / "data" / "jobs.db.files" / "lines").write_text("{}")
    async with opened(path, blobs=blobs) as store:
        new, picture = await with_a_picture(blobs)
        await store.add(new)
        goes_on = asyncio.create_task(_bring_more(store.add))
        size = await asyncio.to_thread(backup, path, kept)
        await goes_on

    assert size > len(PICTURE)
    elsewhere = tmp_path / "elsewhere" / "jobs.db"
    assert restore(kept, elsewhere) is None
    again = FileBlobs(elsewhere.parent / "jobs.db.blobs")
    async with opened(elsewhere, blobs=again) as store:
        assert await store.get("a") == new
        assert await again.read(picture) == PICTURE
    assert (elsewhere.parent / "jobs.db.files" / "lines").read_text() == "{}"
    for file in [*kept.rglob("*"), *elsewhere.parent.rglob("*")]:
        assert file.stat().st_mode & 0o077 == 0, file


async def _bring_more(add: object) -> None:
    for number in range(50):
        await add(promised(f"more-{number}"))  # type: ignore[operator]


async def test_what_was_there_is_set_aside(tmp_path: Path) -> None:
    path, kept = tmp_path / "jobs.db", tmp_path / "kept"
    async with opened(path) as store:
        await store.add(promised("old"))
    backup(path, kept)
    async with opened(path) as store:
        await store.add(promised("young"))

    asides = [restore(kept, path), restore(kept, path)]

    async with opened(path) as store:
        assert [job.id for job in (await store.list(JobQuery())).jobs] == ["old"]
    assert None not in asides
    assert len(set(asides)) == 2
    assert asides[0] is not None
    async with opened(asides[0] / "jobs.db") as store:
        assert {job.id for job in (await store.list(JobQuery())).jobs} == {"old", "young"}


async def test_what_was_set_aside_after_a_crash_is_a_backup_itself(tmp_path: Path) -> None:
    path, kept = tmp_path / "own.db", tmp_path / "kept"
    blobs = FileBlobs(tmp_path / "own.db.blobs")
    async with opened(tmp_path / "dying.db", blobs=blobs) as store:
        backup(tmp_path / "dying.db", kept)
        new, picture = await with_a_picture(blobs)
        await store.add(new)
        for end in ("", "-wal"):
            shutil.copyfile(tmp_path / f"dying.db{end}", tmp_path / f"own.db{end}")

    aside = restore(kept, path)
    assert aside is not None
    restore(aside, path)

    async with opened(path, blobs=blobs) as store:
        assert await store.get("a") == new
        assert await blobs.read(picture) == PICTURE


async def test_nothing_is_put_in_the_place_of_a_database_that_is_open(tmp_path: Path) -> None:
    path, kept = tmp_path / "jobs.db", tmp_path / "kept"
    async with opened(path) as store:
        await store.add(promised())
        backup(path, kept)
        with pytest.raises(StoreUnusable, match="open"):
            restore(kept, path)
        assert await store.get("a") == promised()


async def test_a_backup_that_is_damaged_or_none_is_not_put_back(tmp_path: Path) -> None:
    path, kept = tmp_path / "jobs.db", tmp_path / "kept"
    async with opened(path) as store:
        await store.add(promised())
    backup(path, kept)
    copy = kept / "jobs.db"
    copy.write_bytes(copy.read_bytes()[:-5000])

    with pytest.raises(StoreUnusable, match="damaged"):
        restore(kept, path)
    with pytest.raises(StoreUnusable, match="not a backup"):
        restore(tmp_path / "nowhere", path)

    async with opened(path) as store:
        assert await store.get("a") == promised()


async def test_a_backup_is_written_into_a_new_directory_only(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    with pytest.raises(StorageFailed, match="no database"):
        backup(path, tmp_path / "kept")
    async with opened(path):
        pass

    with pytest.raises(StorageFailed, match="not empty"):
        backup(path, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageFailed, match="cannot be written"):
        backup(path, tmp_path / "file")
