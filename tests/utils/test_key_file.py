"""The file with the keys of callers."""

from pathlib import Path

import pytest

from src.utils.key_file import BadKeyFile, read_key_file


def test_each_line_is_a_name_and_its_key(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# our programs\nann=sesame\n\nbob=barley\n", encoding="utf-8")

    assert read_key_file(file) == {"ann": "sesame", "bob": "barley"}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot be read: No such file"),
        (b"\xff\xfe", "it holds no text"),
        (b"# nobody yet\n", "holds no key"),
        (b"canary-key\n", "entry 1 must look like name=key"),
    ],
)
def test_a_file_without_keys_opens_no_door(
    tmp_path: Path, content: bytes | None, says: str
) -> None:
    file = tmp_path / "keys"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(BadKeyFile, match=f"setting api_keys_file: .*{says}") as refused:
        read_key_file(file)

    assert "canary" not in str(refused.value)
