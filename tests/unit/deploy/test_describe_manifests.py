"""``streamer describe`` beside the workers, on Kubernetes and by docker compose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from streamer.cli.commands import COMMANDS
from streamer.settings import Settings
from tests.kustomized import K8S, Object, pod, with_components

ROOT = Path(__file__).parents[3]
SERVICES: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["services"]


def values(container: Object) -> dict[str, str]:
    return {variable["name"]: variable["value"] for variable in container["env"] if "value" in variable}


def test_it_is_one_pod_that_answers_where_prometheus_and_the_probes_look() -> None:
    deployment = yaml.safe_load((K8S / "components/describe/deployment.yaml").read_text("utf-8"))
    (container,) = pod(deployment)["containers"]
    assert deployment["spec"]["replicas"] == 1
    assert container["args"] == ["describe"]
    assert container["args"][0] in COMMANDS
    (port,) = container["ports"]
    assert values(container)["STREAMER_DESCRIBE_PORT"] == str(port["containerPort"])


def test_it_runs_as_a_worker_does_with_a_user_of_its_own() -> None:
    built = with_components("cpu", "describe", "monitoring", "kafka-tls")
    found = {one["metadata"]["name"]: one for one in built if one["kind"] == "Deployment"}
    assert set(found) == {"streamer-worker", "streamer-describe"}
    ((ours,), (worker,)) = (pod(found[f"streamer-{name}"])["containers"] for name in ("describe", "worker"))
    for same in ("envFrom", "ports", "securityContext", "livenessProbe", "readinessProbe", "startupProbe"):
        assert ours[same] == worker[same]
    assert values(ours)["STREAMER_KAFKA_USER"] == "streamer-describe"


def test_compose_starts_it_by_a_profile_with_settings_that_it_accepts(monkeypatch: pytest.MonkeyPatch) -> None:
    service = SERVICES["describe"]
    assert service["profiles"] == ["describe"]
    assert "describe" in SERVICES["topics"]["profiles"]
    for name, value in service["environment"].items():
        default = str(value).rpartition(":-")[2].removesuffix("}") if str(value).startswith("${") else str(value)
        monkeypatch.setenv(name, default)
    settings = Settings.load()
    assert (settings.describe_url, settings.describe_key, settings.describe_port) == (None, None, 9100)
