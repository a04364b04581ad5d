"""Settings: where they come from and what is refused."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from src.models.modality import Modality
from src.settings import Settings


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("LOCALAI_URL", "LOCALAI_API_KEY", "IM_LOCALAI_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def test_localai_is_expected_on_this_machine() -> None:
    assert Settings().localai_url == "http://localhost:8080"


@pytest.mark.parametrize("name", ["LOCALAI_URL", "IM_LOCALAI_URL"])
def test_the_environment_says_where_localai_is(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "http://gpu:9000")

    assert Settings().localai_url == "http://gpu:9000"


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.yaml").write_text("port: 1\nmax_waiting: 1\nresident: 1\n")
    monkeypatch.setenv("IM_PORT", "2")
    monkeypatch.setenv("IM_MAX_WAITING", "2")

    settings = Settings(port=3)

    assert (settings.port, settings.max_waiting, settings.resident) == (3, 2, 1)


def test_one_modality_may_have_a_limit_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IM_DEADLINE_S__TXT2TXT", "1234")

    settings = Settings()

    assert settings.deadline_s[Modality.TXT2TXT] == 1234
    assert settings.deadline_s[Modality.TXT2IMG] == 3600


def test_lists_are_written_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IM_ORDER", "img2txt, txt2txt,txt2img,img2img")
    monkeypatch.setenv("IM_ALLOWED_HOSTS", "gpu.lan,manager")

    settings = Settings()

    assert settings.order[0] is Modality.IMG2TXT
    assert settings.allowed_hosts == ["gpu.lan", "manager"]


def test_the_key_may_stand_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("secret\n")

    assert Settings(localai_api_key_file=tmp_path / "key").localai_key == "secret"


def test_a_key_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCALAI_API_KEY", "canary-key")

    settings = Settings()

    assert settings.localai_key == "canary-key"
    assert "canary-key" not in repr(settings)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("IM_PORT", "99999", "less than or equal to 65535"),
        ("LOCALAI_URL", "localhost:8080", "localai_url"),
        ("IM_ORDER", "txt2txt,txt2txt,txt2img,img2img", "order must name each"),
        ("IM_DEADLINE_S__TXT2TXT", "5", "attempt_s <= deadline_s"),
        ("IM_CONNECT_S", "nan", "connect_s"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_name(
    name: str, value: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(ValidationError) as refused:
        Settings()

    assert says in str(refused.value)


def test_an_unknown_key_in_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("prot: 8000\n")

    with pytest.raises(ValidationError, match="prot"):
        Settings()
