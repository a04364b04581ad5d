"""Reads the file with the keys of callers."""

from pathlib import Path

from ..models.keys import read_keys


class BadKeyFile(ValueError):
    """The file cannot be read, or holds something else; `setting` is the one to change."""

    setting = "api_keys_file"

    def __init__(self, message: str) -> None:
        super().__init__(f"setting {self.setting}: {message}")


def read_key_file(file: Path) -> dict[str, str]:
    """Read keys by name, from lines as `read_keys` wants them.

    Raises:
        BadKeyFile: it cannot be read, or there is no key in it.

    """
    try:
        keys = read_keys(file.read_text(encoding="utf-8").splitlines())
    except OSError as error:
        raise BadKeyFile(f"{file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadKeyFile(f"{file} cannot be read: it holds no text") from error
    except ValueError as error:
        raise BadKeyFile(f"{file}: {error}") from error
    if not keys:
        raise BadKeyFile(f"{file} holds no key")
    return keys
