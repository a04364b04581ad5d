"""What is done so that memory is given back."""

import platform
import subprocess
import sys

import pytest

from src.utils.allocator import give_back_large_blocks

KEPT_MIB = """
import psutil
from src.utils.allocator import give_back_large_blocks
give_back_large_blocks()
rss = psutil.Process().memory_info
b"x" * (24 * 2**20)
before = rss().rss
blocks = [b"x" * (number * 2**20) for number in range(2, 18)]
last = b"x" * 100_000
del blocks
print((rss().rss - before) // 2**20)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators need no telling")
@pytest.mark.parametrize(("told", "kept"), [(True, range(-50, 20)), (False, range(100, 200))])
def test_large_blocks_are_given_back_which_they_are_not_by_themselves(
    told: bool, kept: range
) -> None:
    program = KEPT_MIB if told else KEPT_MIB.replace("\ngive_back_large_blocks()", "")

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)

    assert int(done.stdout) in kept


def test_another_allocator_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def musl(_: None) -> object:
        return object()

    monkeypatch.setattr("ctypes.CDLL", musl)

    assert not give_back_large_blocks()
