"""Settings: where they come from and what is refused."""

import json
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from src.models.modality import Modality
from src.models.queues import priority_order
from src.settings import Settings


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("LOCALAI_URL", "LOCALAI_API_KEY", "IM_LOCALAI_URL", "IM_BACKENDS"):
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


def test_a_key_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IM_BACKENDS", json.dumps([{"url": "http://gpu", "key": "canary-key"}]))

    (backend,) = Settings().pool

    assert backend.key is not None
    assert backend.key.get_secret_value() == "canary-key"
    assert "canary-key" not in repr(backend)


def test_callers_and_their_keys_are_written_with_commas_or_as_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IM_API_KEYS", "ann=canary-key, bob=a=b")
    written = Settings()
    monkeypatch.delenv("IM_API_KEYS")
    (tmp_path / "config.yaml").write_text("api_keys: {ann: canary-key, bob: a=b}\n")

    assert written.api_keys == Settings().api_keys
    assert written.api_keys["bob"].get_secret_value() == "a=b"
    assert "canary-key" not in repr(written)


@pytest.mark.parametrize(
    ("keys", "file", "says"),
    [
        ("canary-key", "", "entry 1 must look like name=key"),
        ("ann=canary-key,bob=canary-key", "", "two names have the same key"),
        ("two words=canary-key", "", "name 1 must be letters"),
        ("ann=canary-key", "keys.txt", "give either api_keys or api_keys_file"),
    ],
)
def test_keys_of_callers_that_cannot_be_are_refused_and_not_shown(
    keys: str, file: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IM_API_KEYS", keys)
    monkeypatch.setenv("IM_API_KEYS_FILE", file)

    with pytest.raises(ValidationError) as refused:
        Settings()

    assert says in str(refused.value)
    assert "canary-key" not in str(refused.value)


def test_secrets_of_webhooks_are_written_with_commas_or_as_a_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = f"whsec_{'canary' * 8}"
    monkeypatch.setenv("IM_WEBHOOK_SECRETS", f"{canary}, whsec_{'A' * 40}")
    written = Settings()
    monkeypatch.delenv("IM_WEBHOOK_SECRETS")
    (tmp_path / "config.yaml").write_text(f"webhook_secrets: [{canary}, whsec_{'A' * 40}]\n")

    assert written.webhook_secrets == Settings().webhook_secrets
    assert written.webhook_secrets[0].get_secret_value() == canary
    assert "canary" not in repr(written)


def test_a_secret_of_webhooks_that_is_too_short_is_refused_and_not_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("IM_WEBHOOK_SECRETS", "whsec_canary")

    with pytest.raises(ValidationError) as refused:
        Settings()

    assert "a secret of webhooks" in str(refused.value)
    assert "canary" not in str(refused.value)


def test_modalities_that_the_order_does_not_name_follow_as_usual() -> None:
    first, *others = reversed(priority_order)

    settings = Settings(order=[first])

    assert settings.order == [first, *reversed(others)]


def test_one_localai_is_a_pool_of_one() -> None:
    (one,) = Settings(localai_url="http://gpu:9000", localai_api_key=SecretStr("sesame")).pool

    assert (one.name, one.url, one.verify) == ("localai", "http://gpu:9000", True)
    assert one.key == SecretStr("sesame")


def test_several_are_written_as_a_list(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(
        "backends:\n"
        "  - url: https://gpu.lan:8443/localai\n"
        "  - {name: old, url: 'http://[::1]:8080', verify: false, memory_gb: 24}\n"
        "  - url: http://gpu\n"
    )

    first, second, third = Settings().pool

    assert (first.name, second.name, third.name) == ("gpu.lan-8443", "old", "gpu")
    assert (second.verify, second.memory_gb) == (False, 24)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LOCALAI_URL", "http://other"),
        ("IM_LOCALAI_URL", "http://localhost:8080"),
        ("LOCALAI_API_KEY", "canary-key"),
        ("IM_LOCALAI_API_KEY_FILE", "key.txt"),
    ],
)
def test_what_is_only_for_one_localai_is_refused_beside_several(
    name: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.yaml").write_text("backends: [{url: http://gpu}]")
    monkeypatch.setenv(name, value)

    with pytest.raises(ValidationError) as refused:
        Settings()

    assert f"({name.removeprefix('IM_') if 'URL' in name else name})" in str(refused.value)
    assert "say it inside backends" in str(refused.value)
    assert "canary-key" not in str(refused.value)


@pytest.mark.parametrize(
    ("backends", "says"),
    [
        ([{"url": "gpu:8080"}], "must look like http://"),
        ([{"url": "http://someone:canary-key@gpu"}], "must look like http://"),
        ([{"url": "http://gpu:0"}], "port 0"),
        ([{"url": "http://gpu:70000"}], "Port out of range"),
        ([{"name": "gpu"}], "Field required"),
        ([{"url": "http://gpu", "name": "the big one"}], "must be letters, digits"),
        ([{"url": "http://gpu/a"}, {"url": "http://gpu/b"}], "two are called gpu"),
        ([{"url": "http://gpu", "vrify": True}], "vrify"),
        ([{"url": "http://gpu", "key": "canary-key", "key_file": "f"}], "either key or key_file"),
        ([{"url": "https://gpu", "client_key": "f"}], "client_cert, which is missing"),
        ([{"url": "https://gpu", "ca_bundle": "f", "verify": False}], "verify: false"),
        ([{"url": "http://gpu", "ca_bundle": "f"}], "begins with https://"),
        ([{"url": "http://gpu", "key": ["canary-key"]}], "valid string"),
    ],
)
def test_a_backend_that_cannot_be_is_refused_and_its_key_not_shown(
    backends: list[object], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IM_BACKENDS", json.dumps(backends))

    with pytest.raises(ValidationError) as refused:
        Settings()

    assert says in str(refused.value)
    assert "canary-key" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("IM_PORT", "99999", "less than or equal to 65535"),
        ("LOCALAI_URL", "localhost:8080", "localai_url"),
        ("IM_ORDER", "txt2txt,txt2txt,txt2img,img2img", "txt2txt is named more than once"),
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
