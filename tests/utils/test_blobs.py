"""One conformance suite for everything that keeps blobs, and what files promise besides."""

import asyncio
import os
import shutil
import stat
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.models.blobs import Blob, size_of
from src.models.errors import StorageFailed, UnknownJob
from src.models.ports import Blobs
from src.utils import blobs as module
from src.utils.blobs import FileBlobs
from src.utils.localai_memory import InMemory
from tests.kept import DictBlobs

BLOBS: dict[str, Callable[[Path], Blobs]] = {
    "files": lambda path: FileBlobs(path / "blobs"),
    "files, be they small": lambda path: FileBlobs(path / "blobs", inline=1),
    "in memory": lambda _: InMemory(),
    "in a dict": lambda _: DictBlobs(),
}

LARGE = bytes(range(256)) * 1000


@pytest.fixture(params=BLOBS)
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    return BLOBS[request.param](tmp_path)


# What all of them promise


@pytest.mark.parametrize("data", [b"", b"x", LARGE])
async def test_what_is_kept_is_read_again(blobs: Blobs, data: bytes) -> None:
    content = await blobs.keep(data)

    assert await blobs.read(content) == data
    assert b"".join([piece async for piece in blobs.stream(content)]) == data
    assert size_of(content) == len(data)


async def test_what_comes_piece_by_piece_is_read_as_a_whole(blobs: Blobs) -> None:
    writer = blobs.open()
    for at in range(0, len(LARGE), 70_000):
        await writer.write(LARGE[at : at + 70_000])
    content = await writer.finish()

    await writer.discard()  # harmless now

    assert await blobs.read(content) == LARGE


async def test_bytes_at_hand_are_simply_handed_back(blobs: Blobs) -> None:
    assert await blobs.read(b"at hand") == b"at hand"


@pytest.mark.parametrize("data", [b"", b"x", LARGE])
async def test_the_digest_is_that_of_the_bytes_wherever_they_are(blobs: Blobs, data: bytes) -> None:
    expected = sha256(data).hexdigest()

    assert await blobs.digest(data) == expected
    assert await blobs.digest(await blobs.keep(data)) == expected


async def test_what_is_dropped_is_kept_no_more_and_nothing_else_goes_with_it(blobs: Blobs) -> None:
    first, second = await blobs.keep(LARGE), await blobs.keep(LARGE)

    if isinstance(first, Blob):
        await blobs.drop([first])
        await blobs.drop([first])
        with pytest.raises(UnknownJob):
            await blobs.read(first)

    assert await blobs.read(second) == LARGE


@pytest.mark.parametrize("key", ["nothing", "../nothing", "/etc/passwd", "..", ""])
async def test_what_was_never_kept_is_unknown_whatever_it_is_called(blobs: Blobs, key: str) -> None:
    with pytest.raises(UnknownJob):
        await blobs.read(Blob(key, 5))
    with pytest.raises(UnknownJob):
        await anext(blobs.stream(Blob(key, 5)))
    with pytest.raises(UnknownJob):
        await blobs.digest(Blob(key, 5))
    await blobs.drop([Blob(key, 5)])


async def test_what_is_discarded_leaves_nothing(blobs: Blobs, tmp_path: Path) -> None:
    writer = blobs.open()
    await writer.write(LARGE)
    await writer.discard()
    await writer.discard()

    assert files(tmp_path) == []


# What files promise besides


def files(path: Path) -> list[Path]:
    return [file for file in path.rglob("*") if file.is_file()]


def within(path: Path) -> list[Path]:
    return list(path.iterdir())


@asynccontextmanager
async def in_files(inline: int = 65_536) -> AsyncGenerator[FileBlobs]:
    blobs = FileBlobs(inline=inline)
    try:
        yield blobs
    finally:
        await blobs.close()


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where temporary directories are made."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


async def test_a_little_never_touches_the_disk(temporary: Path) -> None:
    async with in_files() as blobs:
        content = await blobs.keep(bytes(65_535))
        writer = blobs.open()
        await writer.write(b"few")

        assert isinstance(content, bytes)
        assert await writer.finish() == b"few"
        assert within(temporary) == []


async def test_only_the_user_can_read_what_is_kept(temporary: Path) -> None:
    async with in_files() as blobs:
        await blobs.keep(LARGE)

        (directory,) = within(temporary)
        (file,) = within(directory)
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


async def test_closing_removes_everything_even_after_another_use(temporary: Path) -> None:
    blobs = FileBlobs()
    content = await blobs.keep(LARGE)
    await blobs.close()

    with pytest.raises(UnknownJob):
        await blobs.read(content)
    assert within(temporary) == []

    await blobs.keep(LARGE)
    await blobs.close()
    assert within(temporary) == []


async def test_a_directory_that_was_given_is_made_private_and_stays(tmp_path: Path) -> None:
    blobs = FileBlobs(tmp_path / "a" / "b")
    content = await blobs.keep(LARGE)
    await blobs.close()

    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700
    assert await FileBlobs(tmp_path / "a" / "b").read(content) == LARGE


@given(
    pieces=st.lists(st.binary(max_size=40), max_size=12),
    inline=st.integers(0, 100),
    piece=st.integers(1, 50),
)
async def test_pieces_in_and_pieces_out_are_the_same_bytes(
    pieces: list[bytes], inline: int, piece: int
) -> None:
    async with in_files(inline) as blobs:
        writer = blobs.open()
        for part in pieces:
            await writer.write(part)
        content = await writer.finish()

        streamed = [part async for part in blobs.stream(content, piece)]

        assert b"".join(streamed) == b"".join(pieces) == await blobs.read(content)
        assert all(len(part) <= piece for part in streamed)
        assert isinstance(content, Blob) == (sum(map(len, pieces)) >= inline)


async def test_a_stream_goes_on_although_its_blob_is_dropped() -> None:
    async with in_files() as blobs:
        content = await blobs.keep(LARGE)
        assert isinstance(content, Blob)

        async with aclosing(blobs.stream(content, 1000)) as pieces:
            first = await anext(pieces)
            await blobs.drop([content])
            rest = [piece async for piece in pieces]

        assert b"".join([first, *rest]) == LARGE


async def test_a_stream_of_what_is_not_kept_says_so_before_its_first_piece() -> None:
    async with in_files() as blobs:
        with pytest.raises(UnknownJob):
            await anext(blobs.stream(Blob("nothing", 5)))


async def test_a_file_that_was_cut_short_is_said_to_be_damaged(temporary: Path) -> None:
    async with in_files() as blobs:
        content = await blobs.keep(LARGE)
        (file,) = files(temporary)
        file.write_bytes(LARGE[:1000])

        with pytest.raises(StorageFailed, match="damaged"):
            await blobs.read(content)
        with pytest.raises(StorageFailed, match="damaged"):
            await blobs.digest(content)
        with pytest.raises(StorageFailed, match="damaged"):
            _ = [piece async for piece in blobs.stream(content)]


async def test_a_directory_that_somebody_removed_is_a_failure_of_the_storage(
    temporary: Path,
) -> None:
    async with in_files() as blobs:
        content = await blobs.keep(LARGE)
        (directory,) = within(temporary)
        shutil.rmtree(directory)

        with pytest.raises(StorageFailed, match="ENOENT"):
            await blobs.keep(LARGE)
        with pytest.raises(UnknownJob):
            await blobs.read(content)


def _full_disk(path: Path | str, *_: object, **__: object) -> BinaryIO:
    Path(path).touch()
    return Path("/dev/full").open("wb")


async def test_a_full_disk_is_said_to_be_full_and_leaves_no_file(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with in_files() as blobs:
        await blobs.keep(LARGE)
        monkeypatch.setattr(module, "open", _full_disk, raising=False)

        with pytest.raises(StorageFailed, match="no room") as failed:
            await blobs.keep(LARGE)

        assert "TMPDIR" in failed.value.hint
        assert len(files(temporary)) == 1


async def test_what_cannot_be_removed_stops_nobody(
    temporary: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with in_files() as blobs:
        content = await blobs.keep(LARGE)
        assert isinstance(content, Blob)
        (file,) = files(temporary)
        file.unlink()
        file.mkdir()

        await blobs.drop([content])

        assert "cannot be removed" in caplog.text


@pytest.mark.parametrize("times", [1, 2])
async def test_a_writer_that_is_cancelled_leaves_no_file(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slowly_opened(path: Path, mode: str, **_: object) -> BinaryIO:
        begun.set()
        go_on.wait(5)
        return cast("BinaryIO", path.open(mode))

    monkeypatch.setattr(module, "open", slowly_opened, raising=False)
    async with in_files() as blobs:
        keeping = asyncio.create_task(blobs.keep(LARGE))
        await asyncio.to_thread(begun.wait, 5)
        for _ in range(times):
            keeping.cancel()
            await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await keeping
        await blobs.drop([Blob("nothing", 1)])  # which comes after whatever is still to be done

        assert files(temporary) == []


# Copies, and what outlives the process


@pytest.mark.parametrize("linked", [True, False])
async def test_a_copy_is_dropped_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, linked: bool
) -> None:
    if not linked:
        monkeypatch.setattr(Path, "hardlink_to", _no_links)
    blobs = FileBlobs(tmp_path / "blobs")
    content = await blobs.keep(LARGE)
    assert isinstance(content, Blob)

    copied = await FileBlobs(tmp_path / "blobs").copy(content)
    await blobs.drop([content])

    assert await blobs.read(copied) == LARGE
    with pytest.raises(UnknownJob):
        await blobs.copy(content)


def _no_links(*_: object) -> None:
    raise OSError


async def test_what_is_secured_is_on_the_disk_with_its_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[bool] = []
    blobs = FileBlobs(tmp_path / "blobs")
    content = await blobs.keep(LARGE)
    assert isinstance(content, Blob)

    def fsync(file: int) -> None:
        synced.append(stat.S_ISDIR(os.fstat(file).st_mode))

    monkeypatch.setattr("src.utils.blobs.os.fsync", fsync)

    await blobs.secure([])
    assert synced == []
    await blobs.secure([content])
    await FileBlobs(tmp_path / "blobs").secure([content])

    assert synced == [False, True] * 2
    await blobs.drop([content])
    with pytest.raises(UnknownJob):
        await blobs.secure([content])


async def test_a_directory_that_was_given_tells_what_it_holds(tmp_path: Path) -> None:
    blobs = FileBlobs(tmp_path / "blobs")
    assert await blobs.listed() == []
    kept = [await blobs.keep(LARGE) for _ in range(2)]
    (tmp_path / "blobs" / "not ours.txt").touch()

    found = await FileBlobs(tmp_path / "blobs").listed()

    assert sorted(found) == sorted(one.key for one in kept if isinstance(one, Blob))
    assert await FileBlobs().listed() == []
