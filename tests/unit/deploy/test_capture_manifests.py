"""``streamer capture`` beside the workers, on Kubernetes and by docker compose."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from streamer.cli.commands import COMMANDS
from streamer.settings import Settings
from tests.kustomized import Object, pod, with_components

ROOT = Path(__file__).parents[3]
SERVICES: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["services"]


@pytest.fixture(scope="module")
def built() -> list[Object]:
    return with_components("cpu", "capture", "monitoring", "kafka-tls")


def named(objects: list[Object], kind: str, name: str) -> Object:
    (found,) = [one for one in objects if (one["kind"], one["metadata"]["name"]) == (kind, name)]
    return found


def test_it_runs_as_a_worker_does_with_a_user_of_its_own_and_never_twice(built: list[Object]) -> None:
    ours, worker = (named(built, "Deployment", f"streamer-{name}") for name in ("capture", "worker"))
    assert (ours["spec"]["replicas"], ours["spec"]["strategy"]) == (1, {"type": "Recreate"})
    ((mine,), (others,)) = (pod(one)["containers"] for one in (ours, worker))
    for same in ("envFrom", "ports", "securityContext", "livenessProbe", "readinessProbe", "startupProbe"):
        assert mine[same] == others[same]
    given = {variable["name"]: variable.get("value") for variable in mine["env"]}
    assert given["STREAMER_KAFKA_USER"] == "streamer-capture"
    assert int(given["STREAMER_CAPTURE_PORT"]) == mine["ports"][0]["containerPort"]
    assert "STREAMER_CAPTURE_PORT".removeprefix("STREAMER_").lower() in Settings.model_fields


def test_the_camera_and_its_password_come_from_a_secret(built: list[Object]) -> None:
    (container,) = pod(named(built, "Deployment", "streamer-capture"))["containers"]
    assert container["args"][0] in COMMANDS
    used = set(re.findall(r"\$\((\w+)\)", " ".join(container["args"])))
    secret = {
        variable["name"]
        for variable in container["env"]
        if variable.get("valueFrom", {}).get("secretKeyRef", {}).get("name") == "streamer-capture"
    }
    assert {"CAPTURE_SOURCE", "CAPTURE_SESSION"} == used
    assert used <= secret


def test_it_reaches_cameras(built: list[Object]) -> None:
    labels = named(built, "Deployment", "streamer-capture")["spec"]["template"]["metadata"]["labels"]
    policy = named(built, "NetworkPolicy", "streamer-capture")["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    assert policy["policyTypes"] == ["Egress"]
    assert {one["port"] for one in policy["egress"][0]["ports"]} >= {554, 1935, 443}


def test_compose_starts_it_by_a_profile_with_an_image_that_has_the_extra() -> None:
    service = SERVICES["capture"]
    assert service["profiles"] == ["capture"]
    assert "capture" in SERVICES["topics"]["profiles"]
    assert set(service["depends_on"]) == {"topics"}
    assert service["command"][0] in COMMANDS
    assert service["build"]["args"]["EXTRAS"] == "feeds"
    assert service["image"] != SERVICES["worker"]["image"]
