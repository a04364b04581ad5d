"""Programs that were written for others, in front of a manager that none of them knows.

Nothing leaves the machine: what the libraries would fetch or tell somebody is switched off.
"""

import gc
import os
import warnings
from collections.abc import AsyncGenerator, Generator

import pytest
from openai import AsyncOpenAI, OpenAI

from src.simulator.config import SimulatorConfig
from tests.routes.house import House
from tests.routes.house import house as building

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
os.environ["LANGSMITH_TRACING"] = "false"

KEY = "any"

DRAWS = "name: sim-image\nmodality: [txt2img, img2img, inpaint]\n"
"""What LocalAI does not tell of a model that draws."""

LEAVES_OPEN = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
"""For libraries that keep their connections for as long as a program runs."""


@pytest.fixture(scope="module", autouse=True)
def swept() -> Generator[None]:
    """Let nobody else find what such a library has left open."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture(scope="package")
def _built(tmp_path_factory: pytest.TempPathFactory) -> Generator[House]:
    models = tmp_path_factory.mktemp("models")
    (models / "sim-image.yaml").write_text(DRAWS)
    config = SimulatorConfig(speed=0, inpainting_files_served=True)
    with building(config=config, models_dir=models) as built:
        yield built


@pytest.fixture
def house(_built: House) -> Generator[House]:
    """A server and its simulator, shared by tests that may hold it or let it fail."""
    yield _built
    _built.sim.clear_faults()
    _built.sim.release()


@pytest.fixture
def client(house: House) -> Generator[OpenAI]:
    """OpenAI's client, which gives up at the first error."""
    with OpenAI(base_url=f"{house.url}/v1", api_key=KEY, max_retries=0) as made:
        yield made


@pytest.fixture
async def aclient(house: House) -> AsyncGenerator[AsyncOpenAI]:
    """OpenAI's client for asyncio, which gives up at the first error."""
    async with AsyncOpenAI(base_url=f"{house.url}/v1", api_key=KEY, max_retries=0) as made:
        yield made
