"""The shelf of files: what is written stays, what is broken is noticed."""

from collections.abc import AsyncGenerator
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.models.batches import RawLine
from src.models.errors import StorageFailed, UnknownFile
from src.utils.stores.shelf import PIECE, Shelf


@pytest.fixture
async def shelf(tmp_path: Path) -> AsyncGenerator[Shelf]:
    made = Shelf(tmp_path / "files")
    await made.open()
    yield made
    await made.close()


async def text_of(shelf: Shelf, name: str, size: int) -> bytes:
    return b"".join([piece async for piece in shelf.pieces(name, size)])


async def test_a_file_comes_back_piece_by_piece(shelf: Shelf) -> None:
    content = bytes(range(256)) * (PIECE // 100)

    size = await shelf.keep("a", BytesIO(content))

    assert size == len(content)
    assert [len(piece) async for piece in shelf.pieces("a", size)][:2] == [PIECE, PIECE]
    assert await text_of(shelf, "a", size) == content
    assert await shelf.read("a", 256, 3) == b"\0\1\2"
    assert await shelf.names() == {"a"}


async def test_what_does_not_count_is_cut_off(shelf: Shelf) -> None:
    at = await shelf.append("a", 0, b"first\n")
    await shelf.append("a", at, b"half of the sec")

    size = await shelf.append("a", at, b"second\n")

    assert await text_of(shelf, "a", size) == b"first\nsecond\n"


async def test_what_counts_must_be_there(shelf: Shelf) -> None:
    with pytest.raises(UnknownFile):
        await shelf.append("a", 5, b"more")
    await shelf.append("a", 0, b"1234")
    with pytest.raises(UnknownFile):
        await shelf.append("a", 5, b"more")
    with pytest.raises(UnknownFile):
        await text_of(shelf, "a", 5)
    with pytest.raises(UnknownFile):
        await text_of(shelf, "b", 5)


async def test_what_the_disk_refuses_is_said(shelf: Shelf, tmp_path: Path) -> None:
    (tmp_path / "files" / "a").mkdir()

    with pytest.raises(StorageFailed, match="EISDIR"):
        await shelf.append("a", 0, b"x")


async def test_a_file_that_cannot_be_read_leaves_nothing(shelf: Shelf) -> None:
    class Broken(BytesIO):
        def read(self, size: int | None = -1) -> bytes:  # noqa: ARG002 - as files have it
            raise OSError(28, "no space")

    with pytest.raises(StorageFailed, match="no room"):
        await shelf.keep("a", Broken())

    assert not await shelf.names()


async def test_a_temporary_shelf_goes_with_its_process() -> None:
    shelf = Shelf()
    with pytest.raises(StorageFailed):
        await shelf.names()
    await shelf.open()
    await shelf.append("a", 0, b"x")
    await shelf.close()

    with pytest.raises(StorageFailed):
        await shelf.read("a", 0, 1)


@given(
    lines=st.lists(st.binary(max_size=12).map(lambda raw: raw.replace(b"\n", b" "))),
    most=st.integers(1, 5),
)
async def test_lines_are_read_in_any_portion(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], most: int
) -> None:
    shelf = Shelf(tmp_path_factory.mktemp("shelf"))
    await shelf.open()
    await shelf.append("a", 0, b"".join(line + b"\n" for line in lines))
    found: list[RawLine] = []
    at = 0
    while more := await shelf.lines("a", at, len(found), most=most, longest=20):
        assert len(more) <= most
        found += more
        at = more[-1].next_at

    assert [line.raw for line in found] == [line + b"\n" for line in lines]
    assert [line.number for line in found] == list(range(len(lines)))


async def test_a_line_that_is_too_long_is_not_read_to_its_end(shelf: Shelf) -> None:
    await shelf.append("a", 0, b"short\n" + b"x" * 100 + b"\nshort\n")

    found = await shelf.lines("a", 0, 0, most=9, longest=20)

    assert [len(line.raw) for line in found] == [6, 21]
