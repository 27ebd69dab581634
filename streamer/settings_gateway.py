"""The settings of `streamer gateway`, which are part of :class:`streamer.settings.Settings`."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, model_validator

MIB = 1 << 20


class GatewaySettings(BaseModel):
    """Where the gateway listens, who may send to it, and how much."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    gateway_host: str = Field("127.0.0.1", description="address of the gateway; beyond loopback it wants a certificate")
    gateway_port: int = Field(8443, ge=0, le=65535, description="its port; 0: any free one")
    gateway_metrics_port: int = Field(
        9103,
        ge=0,
        le=65535,
        description="port of /metrics, /healthz and /readyz of `streamer gateway`; 0: any free one",
    )
    gateway_tokens: Path = Field(
        Path(".streamer/gateway-tokens.toml"),
        description="file of who may send, which `streamer gateway token` writes; it is read again when it changes",
    )
    gateway_cert_file: Path | None = Field(
        None, description="PEM file of the gateway's certificate and those between it and the authority; null: no TLS"
    )
    gateway_key_file: Path | None = Field(None, description="PEM file of its private key, without a password")
    gateway_plain: bool = Field(
        False, description="speak HTTP without TLS beyond loopback too: behind a proxy that speaks TLS"
    )
    gateway_bytes_a_second: int = Field(8 * MIB, ge=1024, description="most that a token may send, bytes a second")
    gateway_records_a_second: int = Field(500, ge=1, description="most that a token may send, records a second")
    gateway_inflight_bytes: int = Field(
        64 * MIB, ge=MIB, description="bodies that are read or wait for Kafka, bytes; beyond, the answer is 503"
    )
    gateway_body_bytes: int = Field(
        12 * MIB, ge=1024, description="largest body of a request, bytes: a record of 8 MiB in base64 has 11"
    )
    gateway_message_bytes: int = Field(MIB, ge=1024, description="largest message of a WebSocket, bytes")
    gateway_batch_records: int = Field(500, ge=1, description="most events in a batch")
    gateway_body_ms: int = Field(30_000, ge=100, description="longest that a request or its body may take to come, ms")
    gateway_ack_ms: int = Field(
        10_000, ge=100, description="longest wait for Kafka's acknowledgement, ms; then the answer is 503"
    )
    gateway_connections: int = Field(1000, ge=1, description="most connections at a time; beyond, the answer is 503")

    @model_validator(mode="after")
    def _certified(self) -> GatewaySettings:
        if (self.gateway_cert_file is None) != (self.gateway_key_file is None):
            raise ValueError("gateway_cert_file and gateway_key_file need each other")
        return self
