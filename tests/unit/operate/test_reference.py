from __future__ import annotations

import tomllib
from pathlib import Path

from streamer.operate import reference
from streamer.sensors import SensorSettings
from streamer.settings import Settings

COMMITTED = Path(__file__).parents[3] / "docs" / "configuration.md"


def test_the_committed_reference_is_what_the_settings_say() -> None:
    assert COMMITTED.read_text("utf-8") == reference.markdown(), (
        "run `streamer settings --markdown > docs/configuration.md`"
    )


def test_the_reference_names_every_setting() -> None:
    text = reference.markdown()
    names = [name for name in (*Settings.model_fields, *SensorSettings.model_fields) if name != "sensors"]
    assert [name for name in names if f"| `{name}` |" not in text] == []


def test_the_effective_settings_can_be_read_back_as_a_settings_file() -> None:
    given = Settings.load(window_ms=2000, dataref_prefixes=("s3://drives/",), sensors={"text": {"max_delay_ms": 5}})
    assert Settings.load(**tomllib.loads(reference.toml(given))) == given


def test_a_password_is_not_printed() -> None:
    text = reference.toml(Settings.load(redis="redis://me:secret@example.org:6380/1"))
    assert "secret" not in text
    assert 'redis = "redis://me:***@example.org:6380/1"' in text


def test_a_token_is_not_printed() -> None:
    given = Settings.load(dashboard_token="nobody may read this")
    assert 'dashboard_token = "***"' in reference.toml(given)
    assert "nobody" not in reference.toml(given) + repr(given)
