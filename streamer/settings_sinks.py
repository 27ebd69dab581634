"""The settings of `streamer sink` and `streamer rules`, which are part of :class:`streamer.settings.Settings`."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, SecretStr


class SinkSettings(BaseModel):
    """Where results go, how, and what raises an alarm."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    sink_port: int = Field(
        9105, ge=0, le=65535, description="port of /metrics, /healthz and /readyz of `streamer sink`; 0: any free one"
    )
    webhook_url: SecretStr | None = Field(
        None, min_length=1, description="address that results are posted to, https://HOST/PATH; may contain a token"
    )
    webhook_key: SecretStr | None = Field(
        None,
        min_length=1,
        description="what posts are signed with: 24 to 64 bytes in base64, with or without whsec_ before it",
    )
    webhook_timeout_ms: int = Field(10_000, ge=10, description="longest wait for the receiver's answer, ms")
    rules: Path = Field(Path("rules.toml"), description="file of the rules of `streamer rules`")
    rules_port: int = Field(
        9106, ge=0, le=65535, description="port of /metrics, /healthz and /readyz of `streamer rules`; 0: any free one"
    )
    rules_clips: Path = Field(Path("clips"), description="folder of the recordings that alarms set off")
    rules_clip_before_ms: int = Field(10_000, ge=0, description="what such a recording has before the window, ms")
    rules_clip_after_ms: int = Field(5_000, ge=0, description="and after it, ms")
    parquet_dir: Path = Field(Path("results"), description="folder of the Parquet files")
    parquet_rows: int = Field(10_000, ge=1, le=1_000_000, description="results in a Parquet file, about")
    parquet_every_ms: int = Field(
        60_000, ge=10, description="a Parquet file that is not full is written after this time, ms"
    )
