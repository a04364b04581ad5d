"""Model definitions in files."""

from pathlib import Path

import pytest

from src.models.modality import Modality
from src.models.queues import model_sets
from src.utils.model_files import BadModelFile, read_definitions


def write(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text, encoding="utf-8")


def test_a_definition_says_what_the_backend_does_not(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", "name: flux\nmodality: [txt2img, img2img]\nweights_gb: 12\n")

    (flux,) = read_definitions(tmp_path)

    assert flux.modality == {Modality.TXT2IMG, Modality.IMG2IMG}
    assert flux.limits.weights_gb == 12


def test_a_folder_that_does_not_exist_holds_no_definitions(tmp_path: Path) -> None:
    assert read_definitions(tmp_path / "nothing") == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name: [", "not readable as YAML"),
        ("- a list", "the file"),
        ("modality: txt2img", "name"),
        ("name: a\nmodality: txt2smell", "modality"),
        ("name: a\ncolour: red", "colour"),
        ("name: a\ndefaults: {colour: red}", "no request has an option 'colour'"),
        ("name: a\ndefaults: {prompt: red}", "no request has an option 'prompt'"),
        ("name: a\ndefaults: {steps: 9999}", "steps: Input should be less than or equal to 150"),
        ("name: a\nparallel: 0", "parallel"),
    ],
)
def test_a_bad_file_is_named_with_what_is_wrong(tmp_path: Path, text: str, says: str) -> None:
    write(tmp_path, "bad.yaml", text)

    with pytest.raises(BadModelFile, match=r"bad\.yaml") as refused:
        read_definitions(tmp_path)

    assert says in str(refused.value)


def test_a_model_is_defined_once(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", "name: same")
    write(tmp_path, "b.yml", "name: same")

    with pytest.raises(BadModelFile, match="twice"):
        read_definitions(tmp_path)


def test_the_definitions_that_come_with_the_project_agree_with_model_sets() -> None:
    definitions = read_definitions(Path(__file__).parents[2] / "models")

    assert {(m, d.name) for d in definitions for m in d.modality} == {
        (m, name) for m, names in model_sets.items() for name in names
    }
