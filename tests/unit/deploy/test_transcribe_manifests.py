"""``streamer transcribe`` beside the workers, on Kubernetes and by docker compose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from streamer.cli.commands import COMMANDS
from tests.kustomized import K8S, Object, pod, with_components

ROOT = Path(__file__).parents[3]
SERVICES: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["services"]


@pytest.fixture(scope="module")
def deployments() -> dict[str, Object]:
    built = with_components("cpu", "transcribe", "monitoring", "kafka-tls")
    return {found["metadata"]["name"]: found for found in built if found["kind"] == "Deployment"}


def test_it_is_one_more_deployment_that_no_selector_of_the_workers_takes(deployments: dict[str, Object]) -> None:
    assert set(deployments) == {"streamer-worker", "streamer-transcribe"}
    chosen = {name: found["spec"]["selector"]["matchLabels"] for name, found in deployments.items()}
    assert chosen["streamer-worker"] != chosen["streamer-transcribe"]
    for name, found in deployments.items():
        assert chosen[name].items() <= found["spec"]["template"]["metadata"]["labels"].items()


def test_it_runs_as_a_worker_does_with_the_same_settings_and_rights(deployments: dict[str, Object]) -> None:
    ((ours,), (worker,)) = (pod(deployments[f"streamer-{name}"])["containers"] for name in ("transcribe", "worker"))
    assert ours["args"] == ["transcribe"]
    assert ours["args"][0] in COMMANDS
    for same in ("envFrom", "ports", "securityContext", "livenessProbe", "readinessProbe", "startupProbe"):
        assert ours[same] == worker[same]
    users = [environment["STREAMER_KAFKA_USER"] for environment in map(values, (ours, worker))]
    assert users == ["streamer-transcribe", "streamer-worker"]  # of components/kafka-tls


def values(container: Object) -> dict[str, str]:
    return {variable["name"]: variable["value"] for variable in container["env"] if "value" in variable}


def test_its_image_has_the_extra_that_it_needs() -> None:
    assert SERVICES["transcribe"]["build"]["args"]["EXTRAS"] == "senses"
    assert SERVICES["transcribe"]["image"] != SERVICES["worker"]["image"]
    assert "ARG EXTRAS=\n" in (ROOT / "Dockerfile").read_text("utf-8")
    ours = yaml.safe_load((K8S / "components/transcribe/deployment.yaml").read_text("utf-8"))
    assert pod(ours)["containers"][0]["image"] == "streamer-senses"


def test_compose_starts_it_by_a_profile_of_its_own_once_the_topics_are_there() -> None:
    assert SERVICES["transcribe"]["profiles"] == ["transcribe"]
    assert "transcribe" in SERVICES["topics"]["profiles"]
    assert set(SERVICES["transcribe"]["depends_on"]) == {"topics"}
