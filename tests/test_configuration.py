"""What is said of settings of which no application can be made."""

from pathlib import Path

import pytest

from src.commands.configuration import make_app, read_settings
from src.commands.terminal import Failure


@pytest.mark.parametrize(
    ("written", "change"),
    [
        ("backends: [{url: http://gpu, key_file: nowhere}]", "IM_BACKENDS"),
        ("backends: [{url: http://gpu, key: two words}]", "IM_BACKENDS"),
        ("backends: [{url: https://gpu, ca_bundle: nowhere}]", "IM_BACKENDS"),
        ("localai_api_key_file: nowhere", "IM_LOCALAI_API_KEY_FILE"),
        ("api_keys_file: nowhere", "IM_API_KEYS_FILE"),
    ],
)
def test_what_no_application_can_be_made_of_may_be_mended_in_the_environment_or_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str, change: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("LOCALAI_URL", "LOCALAI_API_KEY", "IM_BACKENDS", change):
        monkeypatch.delenv(name, raising=False)
    Path("config.yaml").write_text(f"{written}\nlog_file: null\n", encoding="utf-8")

    with pytest.raises(Failure, match=f"; change {change} or config.yaml$"):
        make_app(read_settings())
