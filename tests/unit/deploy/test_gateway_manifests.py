"""``streamer gateway`` beside the workers, on Kubernetes and by docker compose."""

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


@pytest.fixture(scope="module")
def built() -> list[Object]:
    return with_components("cpu", "gateway", "monitoring", "kafka-tls")


def named(objects: list[Object], kind: str, name: str) -> Object:
    (found,) = [one for one in objects if (one["kind"], one["metadata"]["name"]) == (kind, name)]
    return found


def test_it_runs_as_a_worker_does_with_a_user_of_its_own(built: list[Object]) -> None:
    ((ours,), (worker,)) = (
        pod(named(built, "Deployment", f"streamer-{name}"))["containers"] for name in ("gateway", "worker")
    )
    assert ours["args"] == ["gateway"]
    assert ours["args"][0] in COMMANDS
    for same in ("envFrom", "securityContext", "livenessProbe", "readinessProbe", "startupProbe"):
        assert ours[same] == worker[same]
    assert worker["ports"][0] in ours["ports"]
    assert values(ours)["STREAMER_KAFKA_USER"] == "streamer-gateway"


def test_its_settings_are_accepted_and_name_what_is_mounted(built: list[Object]) -> None:
    (container,) = pod(named(built, "Deployment", "streamer-gateway"))["containers"]
    given = {
        name.removeprefix("STREAMER_").lower(): text for name, text in values(container).items() if "GATEWAY" in name
    }
    settings = Settings.load(**given)
    mounts = [Path(mount["mountPath"]) for mount in container["volumeMounts"]]
    for path in (settings.gateway_tokens, settings.gateway_cert_file, settings.gateway_key_file):
        assert path is not None
        assert path.parent in mounts
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"metrics": settings.gateway_metrics_port, "gateway": settings.gateway_port}


def test_devices_reach_its_port_and_no_other(built: list[Object]) -> None:
    labels = named(built, "Deployment", "streamer-gateway")["spec"]["template"]["metadata"]["labels"]
    service = named(built, "Service", "streamer-gateway")["spec"]
    policy = named(built, "NetworkPolicy", "streamer-gateway")["spec"]
    assert service["selector"].items() <= labels.items()
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    assert [port["targetPort"] for port in service["ports"]] == ["gateway"]
    assert policy["ingress"] == [{"ports": [{"port": "gateway"}]}]


def test_compose_starts_it_by_a_profile_with_settings_that_it_accepts() -> None:
    service = SERVICES["gateway"]
    assert service["profiles"] == ["gateway"]
    assert service["build"]["args"]["EXTRAS"] == "gateway"
    assert "gateway" in SERVICES["topics"]["profiles"]
    given = {name.removeprefix("STREAMER_").lower(): str(text) for name, text in service["environment"].items()}
    settings = Settings.load(**given)
    assert settings.gateway_metrics_port == 9100  # where the image's health check looks
    (volume,) = service["volumes"]
    assert settings.gateway_tokens.is_relative_to(volume.partition(":")[2])
    assert f"install -d -o 10001 -g 10001 {volume.partition(':')[2]}" in (ROOT / "Dockerfile").read_text("utf-8")
    assert (K8S / "components/gateway/deployment.yaml").is_file()
