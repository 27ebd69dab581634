"""``streamer sink`` beside the workers, on Kubernetes and by docker compose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from streamer.rules.actions import ACTIONS
from streamer.rules.table import read
from streamer.settings import Settings
from streamer.sinks import registry
from tests.kustomized import K8S, Object, pod, with_components

ROOT = Path(__file__).parents[3]
SERVICES: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["services"]
KINDS = ("kafka", "webhook", "parquet")


def values(container: Object) -> dict[str, str]:
    return {variable["name"]: variable["value"] for variable in container["env"] if "value" in variable}


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_one_pod_that_answers_where_prometheus_and_the_probes_look(kind: str) -> None:
    deployment = yaml.safe_load((K8S / f"components/sink-{kind}/deployment.yaml").read_text("utf-8"))
    (container,) = pod(deployment)["containers"]
    assert deployment["spec"]["replicas"] == 1
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}
    assert container["args"][:2] == ["sink", kind]
    assert kind in registry.known()
    (port,) = container["ports"]
    assert values(container)["STREAMER_SINK_PORT"] == str(port["containerPort"])


def test_all_of_them_run_as_a_worker_does() -> None:
    built = with_components("cpu", *(f"sink-{kind}" for kind in KINDS), "monitoring", "kafka-tls")
    found = {one["metadata"]["name"]: one for one in built if one["kind"] == "Deployment"}
    assert set(found) == {"streamer-worker", *(f"streamer-sink-{kind}" for kind in KINDS)}
    (worker,) = pod(found["streamer-worker"])["containers"]
    for kind in KINDS:
        (ours,) = pod(found[f"streamer-sink-{kind}"])["containers"]
        for same in ("envFrom", "ports", "securityContext", "livenessProbe", "readinessProbe", "startupProbe"):
            assert ours[same] == worker[same]
        if kind == "kafka":
            assert values(ours)["STREAMER_KAFKA_USER"] == "streamer-sink-kafka"
        written = {mount["mountPath"] for mount in ours["volumeMounts"] if not mount.get("readOnly")}
        assert written == ({"/tmp", "/results"} if kind == "parquet" else {"/tmp"})


def test_no_secret_of_a_webhook_is_in_the_manifests() -> None:
    deployment = yaml.safe_load((K8S / "components/sink-webhook/deployment.yaml").read_text("utf-8"))
    (container,) = pod(deployment)["containers"]
    secret = {v["name"]: v["valueFrom"]["secretKeyRef"] for v in container["env"] if "valueFrom" in v}
    assert secret["STREAMER_WEBHOOK_URL"] == {"name": "streamer-webhook", "key": "url"}
    assert secret["STREAMER_WEBHOOK_KEY"] == {"name": "streamer-webhook", "key": "key"}


@pytest.mark.parametrize("kind", KINDS)
def test_compose_starts_each_by_a_profile_with_settings_that_it_accepts(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = SERVICES[f"sink-{kind}"]
    assert service["profiles"] == [f"sink-{kind}"]
    assert f"sink-{kind}" in SERVICES["topics"]["profiles"]
    assert service["command"][:2] == ["sink", kind]
    for name, value in service["environment"].items():
        default = str(value).rpartition(":-")[2].removesuffix("}") if str(value).startswith("${") else str(value)
        monkeypatch.setenv(name, default)
    assert Settings.load().sink_port == 9100


def test_rules_are_one_pod_with_the_file_of_a_config_map() -> None:
    built = with_components("cpu", "rules", "kafka-tls")
    (deployment,) = [o for o in built if o["kind"] == "Deployment" and o["metadata"]["name"] == "streamer-rules"]
    (container,) = pod(deployment)["containers"]
    assert deployment["spec"]["replicas"] == 1
    assert container["args"] == ["rules", "run"]
    given = values(container)
    assert given["STREAMER_RULES_PORT"] == str(container["ports"][0]["containerPort"])
    assert given["STREAMER_KAFKA_USER"] == "streamer-rules"
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert mounts[str(Path(given["STREAMER_RULES"]).parent)] == "rules"
    (volume,) = [one for one in pod(deployment)["volumes"] if one["name"] == "rules"]
    assert volume["configMap"]["name"] == "streamer-rules"


def test_compose_starts_rules_on_the_example_which_can_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    service = SERVICES["rules"]
    assert service["profiles"] == ["rules"]
    inside = service["environment"]["STREAMER_RULES"]
    (beside,) = [volume.split(":")[0] for volume in service["volumes"] if f":{inside}:" in volume]
    assert set(read(ROOT / beside, list(ACTIONS))) >= {"emergency", "blind"}
    for name, value in service["environment"].items():
        default = str(value).rpartition(":-")[2].removesuffix("}") if str(value).startswith("${") else str(value)
        monkeypatch.setenv(name, default)
    assert Settings.load().rules_port == 9100
