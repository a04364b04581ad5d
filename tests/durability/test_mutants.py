"""The mutants are of the present store; that each is caught is shown by `make soak`."""

import pytest

from .mutants import MUTANTS, text_of


@pytest.mark.parametrize("name", MUTANTS)
def test_what_a_mutant_spoils_is_there(name: str) -> None:
    compile(text_of(MUTANTS[name]), name, "exec")
