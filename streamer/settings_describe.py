"""The settings of `streamer describe`, which are part of :class:`streamer.settings.Settings`."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator


class DescribeSettings(BaseModel):
    """How windows are described, and by which language model."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    describe_url: str | None = Field(
        None,
        pattern=r"^https?://",
        description="address of an OpenAI-compatible API, http://HOST:8000/v1, whose model describes windows; null: "
        "they are described from the outputs and the words",
    )
    describe_model: str | None = Field(None, min_length=1, description="name of the model there")
    describe_key: SecretStr | None = Field(None, min_length=1, description="key of the API, if it asks for one")
    describe_every: int = Field(
        1, ge=0, description="ask the model about every n-th window of a session; 0: about changes alone"
    )
    describe_changes: bool = Field(True, description="ask also about windows in which a decision changes")
    describe_frames: int = Field(
        2, ge=0, le=16, description="frames of a window that it is shown; 0 for a model that cannot see"
    )
    describe_blur_faces: bool = Field(
        False, description="blur faces in these frames; it does not start without the network that finds them"
    )
    describe_tokens_a_minute: int = Field(
        60_000, ge=1, description="tokens of questions and answers; windows beyond are described from the outputs"
    )
    describe_timeout_ms: int = Field(30_000, ge=100, description="longest wait for an answer, ms")
    describe_port: int = Field(
        9101,
        ge=0,
        le=65535,
        description="port of /metrics, /healthz and /readyz of `streamer describe`; 0: any free one",
    )

    @model_validator(mode="after")
    def _describing(self) -> DescribeSettings:
        if self.describe_url is not None and self.describe_model is None:
            raise ValueError("describe_url needs describe_model, the name of the model there")
        if self.describe_url is None and self.describe_model is not None:
            raise ValueError("describe_model needs describe_url, the address where it is")
        return self
