"""Simon Willison's `llm`: its models in Python, and its command line."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import llm
import pytest
import yaml
from openai import NotFoundError

from tests.clients.conftest import LEAVES_OPEN
from tests.routes.house import House, png

pytestmark = LEAVES_OPEN


@pytest.fixture
def at_home(house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which `llm` finds the models of the manager."""
    models: list[dict[str, Any]] = [
        {
            "model_id": "queued",
            "model_name": "sim-chat",
            "supports_tools": True,
            "supports_schema": True,
        },
        {"model_id": "seeing", "model_name": "sim-vision", "vision": True},
        {"model_id": "plain", "model_name": "sim-chat", "completion": True},
    ]
    for model in models:
        model["api_base"] = f"{house.url}/v1"
    (tmp_path / "extra-openai-models.yaml").write_text(yaml.safe_dump(models))
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path))
    return tmp_path


@pytest.fixture
def queued(at_home: Path) -> Any:
    assert at_home.is_dir()
    return llm.get_model("queued")


def test_prompt(queued: Any) -> None:
    response = queued.prompt("repeat: hi there", system="Be brief.", stream=False)

    assert response.text() == "hi there"
    assert response.usage().output == 2


def test_prompt_streams(queued: Any) -> None:
    pieces = list(queued.prompt("count to 5"))

    assert "".join(pieces) == "1 2 3 4 5"
    assert len(pieces) > 1


def test_a_conversation(queued: Any) -> None:
    conversation = queued.conversation()

    assert "in 1 message" in conversation.prompt("Good day").text()
    assert "in 3 messages" in conversation.prompt("How are you?").text()


def test_a_prompt_with_options(queued: Any) -> None:
    response = queued.prompt("tokens 50", max_tokens=7, temperature=0.5, seed=7, stream=False)

    assert response.usage().output == 7


def test_a_chain_of_tools(queued: Any) -> None:
    def look_up() -> str:
        return "a red animal"

    chain = queued.chain("please look_up", tools=[look_up])

    assert "in 3 messages" in chain.text()


def test_a_schema(queued: Any) -> None:
    schema = {
        "type": "object",
        "properties": {"sky": {"type": "string", "enum": ["clear"]}},
        "required": ["sky"],
    }

    assert queued.prompt("How is the weather?", schema=schema).text() == '{"sky": "clear"}'


@pytest.mark.usefixtures("at_home")
def test_an_attachment() -> None:
    seeing: Any = llm.get_model("seeing")
    picture = llm.Attachment(content=png(48, 32), type="image/png")
    response = seeing.prompt("What is this?", attachments=[picture])

    assert "A 48x32 landscape picture" in response.text()


@pytest.mark.usefixtures("at_home")
def test_a_completion_model() -> None:
    plain: Any = llm.get_model("plain")

    assert plain.prompt("repeat: hi").text() == "hi"


@pytest.mark.usefixtures("at_home")
@pytest.mark.asyncio(loop_scope="module")
async def test_an_async_model() -> None:
    queued: Any = llm.get_async_model("queued")

    assert await queued.prompt("repeat: hi").text() == "hi"


def test_a_mistyped_model_is_an_error_that_names_the_nearest(at_home: Path, house: House) -> None:
    models = [{"model_id": "odd", "model_name": "sim-chta", "api_base": f"{house.url}/v1"}]
    (at_home / "extra-openai-models.yaml").write_text(yaml.safe_dump(models))
    odd: Any = llm.get_model("odd")

    with pytest.raises(NotFoundError, match="sim-chat"):
        odd.prompt("repeat: hi").text()


@pytest.mark.parametrize("arguments", [["repeat: hi there"], ["--no-stream", "repeat: hi there"]])
def test_the_command_line(at_home: Path, arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "llm", "-m", "queued", *arguments],
        env={**os.environ, "LLM_USER_PATH": str(at_home)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert (done.returncode, done.stdout) == (0, "hi there\n"), done.stderr
