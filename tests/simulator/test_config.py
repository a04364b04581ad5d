from pathlib import Path

import pytest
from pydantic import ValidationError

from src.simulator.config import DEFAULT_MODELS, ModelConfig, SimulatorConfig, load_config


def test_everything_has_a_default() -> None:
    config = SimulatorConfig()

    assert list(config.models) == list(DEFAULT_MODELS)
    assert (config.models["sim-chat"].slots, config.models["sim-image"].weights_gb) == (2, 5)


def test_a_model_is_laid_over_its_default_and_none_takes_it_away() -> None:
    config = SimulatorConfig.model_validate(
        {"models": {"sim-image": {"load_s": 0}, "sim-chat": None}}
    )

    assert list(config.models) == [name for name in DEFAULT_MODELS if name != "sim-chat"]
    assert (config.models["sim-image"].load_s, config.models["sim-image"].kind) == (0, "image")
    assert config == config.patched({})
    assert SimulatorConfig(models={"sim-image": ModelConfig(slots=2)}).models[
        "sim-image"
    ] == config.models["sim-image"].model_copy(update={"slots": 2, "load_s": 2.0})


def test_a_file_may_be_empty_or_change_one_thing(tmp_path: Path) -> None:
    file = tmp_path / "simulator.yaml"
    file.write_text("")
    assert load_config(file) == SimulatorConfig()

    file.write_text("speed: 0\nmodels:\n  quick: {alias_of: sim-chat}\n")
    config = load_config(file)

    assert (config.speed, config.target("quick"), config.target("sim-chat")) == (
        0,
        "sim-chat",
        "sim-chat",
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"sped": 1}, "sped"),
        ({"models": {"sim-chat": {"slotz": 1}}}, "slotz"),
        ({"models": {"sim-chat": 7}}, "models.sim-chat"),
        ({"models": 7}, "models"),
        ({"models": {"big": {"weights_gb": 9}}}, "big needs 9 GB, memory_gb is 8"),
        ({"models": {"it": {"alias_of": "nobody"}}}, "alias of nobody"),
        ({"memory_gb": 4}, "sim-image needs 5 GB"),
        ({"profile": "tight-memory", "models": {"big": {"weights_gb": 6}}}, "big needs 6 GB"),
        ({"profile": "stormy"}, "calm"),
        ({"clock": "fast"}, "manual"),
        ({"jitter": 1}, "jitter"),
    ],
)
def test_what_does_not_fit_is_named(given: object, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        SimulatorConfig.model_validate(given)


def test_a_patch_changes_one_value_and_keeps_the_rest() -> None:
    config = SimulatorConfig.model_validate({"seed": 3, "models": {"sim-vision": None}})

    patched = config.patched({"speed": 2}).patched_model("sim-chat", {"slots": 5})

    assert (patched.seed, patched.speed, patched.models["sim-chat"].slots) == (3, 2, 5)
    assert list(patched.models) == [name for name in DEFAULT_MODELS if name != "sim-vision"]
    assert patched.models["sim-chat"].tokens_per_s == 40
