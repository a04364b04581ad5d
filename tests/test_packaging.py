"""What is shipped: packages, imports, dependencies, the lock."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src"
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
OURS = ("src", "inference_manager", "main", "tests")


def imports(folder: Path) -> Iterator[tuple[Path, ast.Import | ast.ImportFrom]]:
    for file in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"), str(file))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                yield file, node


def absolute(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module] if node.module is not None and node.level == 0 else []


def top_names(folder: Path) -> dict[str, Path]:
    return {
        name.partition(".")[0]: file for file, node in imports(folder) for name in absolute(node)
    }


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared() -> set[str]:
    named = [re.match(r"[A-Za-z0-9._-]+", line) for line in PYPROJECT["project"]["dependencies"]]
    return {normal(match[0]) for match in named if match is not None}


def test_the_wheel_holds_every_package() -> None:
    on_disk = {
        ".".join(("inference_manager", *file.parent.relative_to(SRC).parts))
        for file in SRC.rglob("__init__.py")
    }

    assert set(PYPROJECT["tool"]["setuptools"]["packages"]) == on_disk


def test_every_folder_with_modules_is_a_package() -> None:
    folders = {file.parent for file in SRC.rglob("*.py")}

    assert [folder for folder in folders if not (folder / "__init__.py").is_file()] == []


def test_the_wheel_holds_every_file_that_is_no_module() -> None:
    patterns = PYPROJECT["tool"]["setuptools"]["package-data"]["inference_manager"]
    shipped = {file for pattern in patterns for file in SRC.glob(pattern)}

    others = {
        file
        for file in SRC.rglob("*")
        if file.is_file() and file.suffix != ".py" and "__pycache__" not in file.parts
    }
    assert others <= shipped


def test_modules_of_the_package_import_one_another_relatively() -> None:
    assert {name: file for name, file in top_names(SRC).items() if name in OURS} == {}


@pytest.mark.parametrize("folder", ["src", "tests"])
def test_nothing_imports_the_name_that_only_the_wheel_has(folder: str) -> None:
    assert "inference_manager" not in top_names(ROOT / folder)


def test_everything_imported_is_a_declared_dependency() -> None:
    distributions = packages_distributions()

    undeclared = {
        name: file.relative_to(ROOT)
        for name, file in top_names(SRC).items()
        if name not in sys.stdlib_module_names
        and not declared() & {normal(it) for it in distributions.get(name, [])}
    }

    assert undeclared == {}


def test_every_declared_dependency_is_imported_somewhere() -> None:
    distributions = packages_distributions()

    used = {normal(it) for name in top_names(SRC) for it in distributions.get(name, [])}

    unseen = {
        "python-multipart": "Starlette, to read forms",
        "websockets": "uvicorn, to speak them",
    }
    assert declared() - used == unseen.keys()


@pytest.mark.parametrize("lock", ["requirements.txt", "requirements-dev.txt"])
def test_the_lock_pins_every_dependency_with_its_hashes_and_names_no_address(lock: str) -> None:
    text = (ROOT / lock).read_text(encoding="utf-8")

    entries = re.split(r"\n(?=\S)", text.strip())
    pinned = {normal(entry.partition("==")[0]) for entry in entries if "==" in entry}
    assert declared() <= pinned
    assert [entry.splitlines()[0] for entry in entries if "--hash=sha256:" not in entry] == []
    assert "://" not in text
    assert "/" not in text


def test_both_locks_agree() -> None:
    def pins(lock: str) -> set[str]:
        lines = (ROOT / lock).read_text(encoding="utf-8").splitlines()
        return {line.split()[0] for line in lines if "==" in line}

    assert pins("requirements.txt") <= pins("requirements-dev.txt")


def test_the_version_is_written_in_one_place() -> None:
    assert PYPROJECT["project"]["dynamic"] == ["version"]
    assert PYPROJECT["tool"]["setuptools"]["dynamic"]["version"] == {
        "attr": "inference_manager.__version__"
    }
