from collections.abc import Generator

import pytest

from tests.routes.house import House, house


@pytest.fixture(scope="package")
def shared_house() -> Generator[House]:
    """A server and a simulator for tests that leave nothing behind that matters to others."""
    with house() as built:
        yield built


@pytest.fixture
def own_house() -> Generator[House]:
    """A server and a simulator for one test alone."""
    with house() as built:
        yield built
