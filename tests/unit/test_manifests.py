"""Manifests, image and containers agree with one another and with the code that runs in them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
import yaml
from prometheus_client import CollectorRegistry

from streamer import topics
from streamer.endpoints import Endpoints
from streamer.local import compose
from streamer.settings import DEFAULT_MODALITIES, ModalitySettings, Settings
from streamer.worker import REDIS_START_S
from tests.conftest import KAFKA_IMAGE, REDIS_IMAGE

ROOT = Path(__file__).parents[2]
K8S = ROOT / "k8s"
OVERLAYS = ("dev", "cpu", "gpu")
COMPONENTS = ("monitoring", "keda", "strimzi")
EXTENSIONS = {"monitoring.coreos.com", "keda.sh", "kafka.strimzi.io"}  # groups that a bare cluster does not know
SUPPORTED = ("1.31", "1.37")  # oldest and newest Kubernetes that the manifests are for
MIB = 1 << 20

# What Worker.run waits for at most beside stop_after_ms: side records, Kafka's consumer, cancelled tasks.
STOP_REST_S = 1 + 3 + 1

DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
Object = dict[str, Any]


def read(path: Path) -> list[Object]:
    return [document for document in yaml.safe_load_all(path.read_text("utf-8")) if document]


def build(folder: Path) -> list[Object]:
    for command in (["kustomize", "build"], ["kubectl", "kustomize"]):
        if shutil.which(command[0]) is not None:
            done = subprocess.run([*command, str(folder)], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            return [document for document in yaml.safe_load_all(done.stdout) if document]
    pytest.skip("neither kustomize nor kubectl is on PATH")


@cache
def overlay(name: str) -> list[Object]:
    return build(K8S / "overlays" / name)


@pytest.fixture(scope="session", params=OVERLAYS)
def built(request: pytest.FixtureRequest) -> list[Object]:
    return overlay(request.param)


@pytest.fixture(scope="session", params=OVERLAYS)
def everything(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Object]:
    """An overlay with every component on top."""
    folder = tmp_path_factory.mktemp("everything").resolve()
    paths = [os.path.relpath(K8S / part, folder) for part in (f"overlays/{request.param}",)]
    components = [os.path.relpath(K8S / "components" / name, folder) for name in COMPONENTS]
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": paths,
        "components": components,
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization), "utf-8")
    return build(folder)


def of(objects: list[Object], kind: str, name: str | None = None) -> Object:
    (found,) = [o for o in objects if o["kind"] == kind and name in (None, o["metadata"]["name"])]
    return found


def workloads(objects: list[Object]) -> list[Object]:
    return [o for o in objects if o["kind"] in {"Deployment", "StatefulSet", "Job", "DaemonSet"}]


def pod(workload: Object) -> Object:
    spec: Object = workload["spec"]["template"]["spec"]
    return spec


def containers(workload: Object) -> list[Object]:
    return [*pod(workload).get("initContainers", []), *pod(workload)["containers"]]


def base(file: str) -> Object:
    (found,) = read(K8S / "base" / file)
    return found


BASE = base("deployment.yaml")
WORKER: Object = pod(BASE)["containers"][0]
BASE_ENV = dict(
    line.split("=", 1)
    for line in (K8S / "base" / "streamer.env").read_text("utf-8").splitlines()
    if line and not line.startswith("#")
)


def settings_of(objects: list[Object], monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings as the worker of these objects reads them."""
    worker = pod(of(objects, "Deployment"))["containers"][0]
    (config,) = [source["configMapRef"]["name"] for source in worker["envFrom"]]
    for name, value in of(objects, "ConfigMap", config)["data"].items():
        monkeypatch.setenv(name, value)
    for variable in worker["env"]:
        if "value" in variable:
            monkeypatch.setenv(variable["name"], variable["value"])
    return Settings.load()


# form


def yaml_files() -> list[Path]:
    found = [*K8S.rglob("*.yaml"), *(ROOT / "ops").rglob("*.yml"), *ROOT.glob("docker-compose*.yml")]
    assert len(found) > 20
    return sorted(found)


@pytest.mark.parametrize("path", yaml_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_each_file_is_yaml_without_a_key_given_twice(path: Path) -> None:
    class Strict(yaml.SafeLoader):
        pass

    def mapping(loader: Strict, node: yaml.MappingNode) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        assert len(keys) == len(set(keys)), f"a key twice: {keys}"
        loader.flatten_mapping(node)
        return loader.construct_mapping(node, deep=True)

    Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    assert list(yaml.load_all(path.read_text("utf-8"), Strict))


def test_every_manifest_is_part_of_a_kustomization() -> None:
    for folder in {path.parent for path in K8S.rglob("*.yaml")}:
        kustomization = (folder / "kustomization.yaml").read_text("utf-8")
        others = {path.name for path in folder.glob("*.yaml")} - {"kustomization.yaml", "rules.yaml", "rules.test.yaml"}
        assert {name for name in others if name not in kustomization} == set()


def test_overlays_and_components_are_those_that_are_tested() -> None:
    assert {path.name for path in (K8S / "overlays").iterdir()} == set(OVERLAYS)
    assert {path.name for path in (K8S / "components").iterdir()} == {*COMPONENTS, "create-topics"}


@pytest.mark.parametrize("version", SUPPORTED)
def test_kubernetes_knows_every_field_of_every_object(everything: list[Object], version: str) -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed").validate
    known = [o for o in everything if o["apiVersion"].partition("/")[0] not in EXTENSIONS]
    assert len(known) >= 8
    for item in known:
        assert validate(item, version, strict=True) == version


def test_components_bring_the_objects_that_need_an_operator(everything: list[Object]) -> None:
    kinds = {o["kind"] for o in everything if o["apiVersion"].partition("/")[0] in EXTENSIONS}
    assert kinds == {"PodMonitor", "PrometheusRule", "ScaledObject", "KafkaTopic", "KafkaUser"}
    assert len({(o["kind"], o["metadata"]["name"]) for o in everything}) == len(everything)


def test_everything_lies_in_one_namespace_which_admits_only_restricted_pods(built: list[Object]) -> None:
    namespace = of(built, "Namespace")["metadata"]
    assert namespace["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert {o["metadata"]["namespace"] for o in built if o["kind"] != "Namespace"} == {namespace["name"]}


def test_names_that_objects_use_of_one_another_exist(built: list[Object]) -> None:
    there = {(o["kind"], o["metadata"]["name"]) for o in built}
    for workload in workloads(built):
        if (account := pod(workload).get("serviceAccountName")) is not None:
            assert ("ServiceAccount", account) in there
        for container in containers(workload):
            for source in container.get("envFrom", []):
                assert ("ConfigMap", source["configMapRef"]["name"]) in there
            for mount in container.get("volumeMounts", []):
                claims = [claim["metadata"] for claim in workload["spec"].get("volumeClaimTemplates", [])]
                assert mount["name"] in {v["name"] for v in [*pod(workload).get("volumes", []), *claims]}


# pods


def assert_restricted(spec: Object) -> None:
    """Pod Security Standards, level restricted, as far as these pods have anything to do with it."""
    context = spec["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] > 0
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
    assert {kind for volume in spec.get("volumes", []) for kind in volume if kind != "name"} <= {"emptyDir"}
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        own = container["securityContext"]
        assert own["allowPrivilegeEscalation"] is False
        assert own["capabilities"] == {"drop": ["ALL"]}
        assert "privileged" not in own
        assert all("hostPort" not in port for port in container.get("ports", []))


def assert_careful(spec: Object) -> None:
    """No token of the API, no variables that a Service's name makes up, bounded memory."""
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        assert container["resources"]["limits"]["memory"]
        assert container["resources"]["requests"].keys() >= {"cpu", "memory"}
        assert "cpu" not in container["resources"]["limits"]


def test_the_worker_of_the_base_is_restricted_and_cannot_write_but_to_tmp() -> None:
    assert_restricted(pod(BASE))
    assert_careful(pod(BASE))
    assert WORKER["securityContext"]["readOnlyRootFilesystem"] is True
    assert [mount["mountPath"] for mount in WORKER["volumeMounts"]] == ["/tmp"]


def test_every_pod_of_every_overlay_is_restricted(built: list[Object]) -> None:
    assert workloads(built)
    for workload in workloads(built):
        assert_restricted(pod(workload))
        assert_careful(pod(workload))
        for container in containers(workload):
            if container["image"].startswith("streamer:"):
                assert container["securityContext"]["readOnlyRootFilesystem"] is True


def test_images_are_pinned_by_a_tag(built: list[Object]) -> None:
    images = {container["image"] for workload in workloads(built) for container in containers(workload)}
    assert all(re.fullmatch(r"[a-z/]+:(?!latest$)[\w.-]+", image) for image in images)
    assert images - {KAFKA_IMAGE, REDIS_IMAGE} == {
        of(built, "Deployment")["spec"]["template"]["spec"]["containers"][0]["image"]
    }


def test_pods_run_as_the_user_of_the_image() -> None:
    (user, group) = re.findall(r"^USER (\d+):(\d+)$", DOCKERFILE, re.MULTILINE)[-1]
    context = pod(BASE)["securityContext"]
    assert (context["runAsUser"], context["runAsGroup"]) == (int(user), int(group))
    assert f"useradd --uid {user} --gid {group} " in DOCKERFILE


def test_only_the_gpu_overlay_asks_for_a_gpu() -> None:
    def devices(name: str) -> set[Any]:
        found = [container["resources"]["limits"].get("nvidia.com/gpu") for container in containers(worker_of(name))]
        return {count for count in found if count is not None}

    def worker_of(name: str) -> Object:
        return of(overlay(name), "Deployment")

    assert devices("gpu") == {1}
    assert not devices("cpu") | devices("dev")
    assert pod(worker_of("gpu"))["tolerations"][0]["key"] == "nvidia.com/gpu"


# settings


def names_of_settings() -> set[str]:
    nested = {
        f"MODALITIES__{modality}__{name}" for modality in DEFAULT_MODALITIES for name in ModalitySettings.model_fields
    }
    return {f"STREAMER_{name.upper()}" for name in {*Settings.model_fields, *nested}} | {"STREAMER_CONFIG"}


def test_every_setting_that_a_file_names_exists() -> None:
    files = [
        *yaml_files(),
        K8S / "base" / "streamer.env",
        ROOT / "Dockerfile",
        *K8S.rglob("*.md"),
        ROOT / "docs/runbook.md",
    ]
    named = {name for path in files for name in re.findall(r"STREAMER_[A-Z_]*[A-Z]", path.read_text("utf-8"))}
    assert {"STREAMER_KAFKA", "STREAMER_REDIS", "STREAMER_HOST", "STREAMER_PORT"} <= named
    assert named - names_of_settings() == set()


def test_the_worker_accepts_the_settings_of_the_base(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in BASE_ENV.items():
        monkeypatch.setenv(name, value)
    settings = Settings.load()
    assert {f"STREAMER_{name.upper()}" for name in settings.model_fields_set} == set(BASE_ENV)


def test_the_worker_accepts_the_settings_of_each_overlay(built: list[Object], monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(built, monkeypatch)
    assert (settings.host, settings.port) == ("0.0.0.0", 9100)
    assert settings.partitions == int(BASE_ENV["STREAMER_PARTITIONS"])
    # A static member that stops does not leave the group; docs/decisions/0007 says why no pod is one.
    assert settings.instance_id is None


def test_the_redis_url_comes_from_a_secret_and_no_file_has_a_password() -> None:
    (redis,) = [variable for variable in WORKER["env"] if variable["name"] == "STREAMER_REDIS"]
    assert redis["valueFrom"]["secretKeyRef"] == {"name": "streamer-redis", "key": "url"}
    assert "STREAMER_REDIS" not in BASE_ENV
    urls = re.findall(r"rediss?://\S+", "".join(path.read_text("utf-8") for path in yaml_files()))
    assert urls
    assert all(urlsplit(url).password is None for url in urls)


# ports and probes


async def test_probes_and_scrapes_go_where_the_worker_answers() -> None:
    (port,) = WORKER["ports"]
    assert port["containerPort"] == Settings.model_fields["port"].default
    assert f"EXPOSE {port['containerPort']}\n" in DOCKERFILE
    assert f"STREAMER_PORT={port['containerPort']}\n" in DOCKERFILE
    assert {"name": "STREAMER_PORT", "value": str(port["containerPort"])} in WORKER["env"]
    probes = [WORKER[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")]
    assert {probe["port"] for probe in probes} == {port["name"]}
    (monitored,) = read(K8S / "components/monitoring/podmonitor.yaml")[0]["spec"]["podMetricsEndpoints"]
    assert monitored["port"] == port["name"]
    (checked,) = re.findall(r"STREAMER_PORT'\]}(/\w+)", DOCKERFILE)

    reasons: list[str] = []
    endpoints = Endpoints(CollectorRegistry(), lambda: reasons, lambda: None)
    await endpoints.start("127.0.0.1", 0)
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{endpoints.port}") as session:

            async def status(path: str) -> int:
                async with session.get(path) as answer:
                    return answer.status

            assert [await status(probe["path"]) for probe in probes] == [200, 200, 200]
            assert await status(monitored["path"]) == 200
            assert await status(checked) == 200
            reasons.append("Kafka does not answer")
            # An outage takes the worker out of service and restarts nothing.
            assert [await status(probe["path"]) for probe in probes] == [200, 200, 503]
            assert await status(checked) == 200
    finally:
        await endpoints.stop()


def test_a_stalled_worker_ends_itself_before_it_is_ended() -> None:
    probe = WORKER["livenessProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] * 1000 > int(BASE_ENV["STREAMER_STALL_AFTER_MS"])


def test_a_start_that_waits_for_kafka_and_redis_is_not_cut_short() -> None:
    probe = WORKER["startupProbe"]
    model_s = 60  # to import PyTorch, load the model and warm it up
    waits_s = topics.TIMEOUT_MS / 1000 + REDIS_START_S + model_s
    assert probe["periodSeconds"] * probe["failureThreshold"] >= waits_s


def test_a_graceful_stop_has_the_time_it_takes() -> None:
    stop_s = int(BASE_ENV["STREAMER_STOP_AFTER_MS"]) / 1000 + STOP_REST_S
    assert pod(BASE)["terminationGracePeriodSeconds"] > stop_s
    grace = COMPOSE["services"]["worker"]["stop_grace_period"]
    assert int(grace.removesuffix("s")) > Settings.model_fields["stop_after_ms"].default / 1000 + STOP_REST_S


def test_selectors_find_the_worker_and_the_ports_are_the_ones_it_has(built: list[Object]) -> None:
    labels = of(built, "Deployment")["spec"]["template"]["metadata"]["labels"].items()
    service, policy = of(built, "Service", "streamer-metrics"), of(built, "NetworkPolicy", "streamer")
    monitor = read(K8S / "components/monitoring/podmonitor.yaml")[0]
    for selector in (
        of(built, "Deployment")["spec"]["selector"]["matchLabels"],
        of(built, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        service["spec"]["selector"],
        policy["spec"]["podSelector"]["matchLabels"],
        monitor["spec"]["selector"]["matchLabels"],
        *(spread["labelSelector"]["matchLabels"] for spread in pod(BASE)["topologySpreadConstraints"]),
    ):
        assert selector.items() <= labels
    assert [port["targetPort"] for port in service["spec"]["ports"]] == [port["name"] for port in WORKER["ports"]]


def test_the_network_lets_in_scrapes_and_lets_out_names_kafka_and_redis(
    built: list[Object], monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = of(built, "NetworkPolicy", "streamer")["spec"]
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    assert [rule["ports"] for rule in policy["ingress"]] == [[{"port": "metrics"}]]
    settings = settings_of(built, monkeypatch)
    brokers = {int(address.rpartition(":")[2]) for address in settings.kafka.split(",")}
    out = {port["port"] for rule in policy["egress"] for port in rule["ports"]}
    assert out == {53, 6379, *brokers}


def test_the_stores_of_the_dev_overlay_are_where_its_worker_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    objects = overlay("dev")
    settings = settings_of(objects, monkeypatch)
    secret = pod(of(objects, "Deployment"))["containers"][0]["env"][0]["valueFrom"]["secretKeyRef"]["name"]
    import base64

    redis = urlsplit(base64.b64decode(of(objects, "Secret", secret)["data"]["url"]).decode())
    for host, port in (settings.kafka.split(":"), (redis.hostname, redis.port)):
        service = of(objects, "Service", host)
        assert [p["port"] for p in service["spec"]["ports"]] == [int(port)]
        served = of(objects, "StatefulSet", host)["spec"]["template"]
        assert service["spec"]["selector"].items() <= served["metadata"]["labels"].items()
        assert [p["containerPort"] for p in served["spec"]["containers"][0]["ports"]] == [int(port)]
    kafka = environment(pod(of(objects, "StatefulSet", "kafka"))["containers"][0])
    assert f"PLAINTEXT://{settings.kafka}" == kafka["KAFKA_ADVERTISED_LISTENERS"]
    assert settings.replication == 1
    assert settings.max_message_bytes + topics.DEADLETTER_MARGIN_BYTES == int(kafka["KAFKA_MESSAGE_MAX_BYTES"])
    arguments = pod(of(objects, "StatefulSet", "redis"))["containers"][0]["args"]
    assert arguments[arguments.index("--appendfsync") + 1] == "always"


def environment(container: Object) -> dict[str, str]:
    return {variable["name"]: variable["value"] for variable in container["env"]}


# numbers


def test_partitions_divide_evenly_among_the_workers(built: list[Object], monkeypatch: pytest.MonkeyPatch) -> None:
    replicas = of(built, "Deployment")["spec"]["replicas"]
    partitions = settings_of(built, monkeypatch).partitions
    assert 1 <= replicas <= partitions
    assert partitions % replicas == 0


def test_scaling_stops_at_the_partitions_and_leaves_the_number_to_one_owner(everything: list[Object]) -> None:
    scaled = of(everything, "ScaledObject")["spec"]
    assert scaled["scaleTargetRef"]["name"] == of(everything, "Deployment")["metadata"]["name"]
    assert "replicas" not in of(everything, "Deployment")["spec"]
    assert 1 <= scaled["minReplicaCount"] <= scaled["maxReplicaCount"] == int(BASE_ENV["STREAMER_PARTITIONS"])
    (trigger,) = scaled["triggers"]
    assert trigger["metadata"]["bootstrapServers"] == BASE_ENV["STREAMER_KAFKA"]
    assert trigger["metadata"]["consumerGroup"] == Settings.model_fields["group"].default
    assert all(isinstance(value, str) for value in trigger["metadata"].values())


def test_lag_that_scales_is_twice_what_open_windows_hold() -> None:
    comment = (K8S / "components/keda/scaledobject.yaml").read_text("utf-8")
    feeds, rate, held_s = map(int, re.findall(r"(\d+) feeds\s+#?\s*x (\d+) records/s x (\d+) s", comment)[0])
    settings = Settings.load()
    longest = max(settings.modalities[name].max_delay_ms for name in settings.modalities)
    assert held_s * 1000 == settings.window_ms + longest + settings.session_gap_ms
    (trigger,) = read(K8S / "components/keda/scaledobject.yaml")[0]["spec"]["triggers"]
    assert int(trigger["metadata"]["lagThreshold"]) == 2 * feeds * rate * held_s


def quantity(text: str) -> int:
    number, unit = re.fullmatch(r"(\d+)([KMG]i)", text).groups()  # type: ignore[union-attr]
    return int(number) << {"Ki": 10, "Mi": 20, "Gi": 30}[unit]


def test_memory_holds_every_buffer_even_where_one_worker_has_all_partitions(
    built: list[Object], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(built, monkeypatch)
    process = 800 * MIB  # k8s/README.md
    fifos = len(settings.source_topics) * settings.partitions * settings.fifo_bytes
    overshoot = len(settings.source_topics) * settings.partitions * settings.max_message_bytes
    needed = process + fifos + overshoot + settings.max_open_bytes + settings.max_inflight_bytes
    assert quantity(pod(of(built, "Deployment"))["containers"][0]["resources"]["limits"]["memory"]) >= needed


# Kafka's objects


def strimzi(kind: str) -> list[Object]:
    return [o for path in (K8S / "components/strimzi").glob("*.yaml") for o in read(path) if o["kind"] == kind]


def test_strimzi_topics_are_those_that_the_code_makes_and_accepts(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in BASE_ENV.items():
        monkeypatch.setenv(name, value)
    settings = Settings.load()
    declared = {topic["metadata"]["name"]: topic["spec"] for topic in strimzi("KafkaTopic")}
    wanted = {topic.name: topic for topic in topics._wanted(settings)}
    assert declared.keys() == wanted.keys()
    existing = {}
    for name, spec in declared.items():
        assert spec["replicas"] == settings.replication
        config = spec["config"]
        assert config[topics.MAX_BYTES] == wanted[name].max_message_bytes
        existing[name] = topics.Topic(
            name, spec["partitions"], config[topics.TIMESTAMP_TYPE], int(config[topics.MAX_BYTES])
        )
    topics._refuse_misfits(existing, settings, settings.partitions)
    assert {topic.partitions for topic in existing.values()} == {settings.partitions}


def test_the_workers_rights_are_what_it_does_and_no_more() -> None:
    settings = Settings.load()
    (user,) = strimzi("KafkaUser")
    rules = user["spec"]["authorization"]["acls"]
    granted = {(rule["resource"]["type"], rule["resource"]["name"]): set(rule["operations"]) for rule in rules}
    assert all(rule["resource"].get("patternType", "literal") == "literal" for rule in rules)
    looks = {"Describe", "DescribeConfigs"}
    expected: dict[tuple[str, str], set[str]] = {
        ("topic", topic.name): set(looks) for topic in topics._wanted(settings)
    }
    for name in settings.source_topics:
        expected["topic", name] |= {"Read"}
    for suffix in ("late", "deadletter"):
        expected["topic", settings.topic(suffix)] |= {"Write"}
    expected["group", settings.group] = {"Describe", "Read"}
    assert granted == expected


# containers on one machine


def test_kafka_and_redis_are_all_that_compose_starts_without_a_profile() -> None:
    services = COMPOSE["services"]
    assert {name for name, service in services.items() if not service.get("profiles")} == {"kafka", "redis"}
    assert {p for service in services.values() for p in service.get("profiles", [])} == {
        "worker",
        "demo",
        "split",
        "monitoring",
        "grafana",
    }


def test_up_asks_compose_for_the_servers_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = tmp_path / "calls"
    fake = tmp_path / "docker"
    fake.write_text(f'#!/bin/sh\necho "$*" >> {calls}\n', "utf-8")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("COMPOSE_PROFILES", "")
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "docker-compose.yml", tmp_path)

    compose.up(["redis", "kafka"], lambda line: None)

    assert [line for line in calls.read_text("utf-8").splitlines() if " up " in line] == [
        "compose up --detach --wait redis kafka"
    ]


def test_containers_and_manifests_are_of_the_same_servers() -> None:
    def image(name: str) -> str:
        return re.sub(r"\$\{\w+:-([^}]+)\}", r"\1", COMPOSE["services"][name]["image"])

    assert (image("kafka"), image("redis")) == (KAFKA_IMAGE, REDIS_IMAGE)
    dev = [o for name in ("kafka", "redis") for o in read(K8S / "overlays/dev" / f"{name}.yaml")]
    assert [pod(o)["containers"][0]["image"] for o in workloads(dev)] == [KAFKA_IMAGE, REDIS_IMAGE]


def test_the_containers_find_one_another() -> None:
    services = COMPOSE["services"]
    ours = {name: service for name, service in services.items() if "build" in service}
    assert set(ours) == {"topics", "worker", "align", "infer", "simulator", "dashboard"}
    advertised = re.findall(r"PLAINTEXT://([\w.:]+)", services["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"])
    for service in ours.values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["environment"]["STREAMER_KAFKA"] in advertised
        assert urlsplit(service["environment"]["STREAMER_REDIS"]).hostname in services
    for service in services.values():
        assert set(service.get("depends_on", [])) <= set(services)
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert source in COMPOSE["volumes"] or (ROOT / source).exists()
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:")  # no passwords here
    (gpu,) = read(ROOT / "docker-compose.gpu.yml")
    assert set(gpu["services"]) <= set(services)


# the image


def locked(path: Path) -> dict[str, set[str]]:
    """Names and versions of a lock file; a package may have one version for each Python."""
    found: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([\w.-]+)==([\w.+!-]+)", path.read_text("utf-8"), re.MULTILINE):
        found.setdefault(name, set()).add(version)
    return found


WORKER_LOCK = ROOT / "requirements.worker.lock"


def test_the_image_has_the_versions_that_are_tested_and_nothing_to_develop_with() -> None:
    image, tested = locked(WORKER_LOCK), locked(ROOT / "requirements.lock")
    assert {name: versions for name, versions in image.items() if versions != tested.get(name)} == {}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

    def names(requirements: list[str]) -> set[str]:
        return {re.match(r"[\w.-]+", requirement).group().lower() for requirement in requirements}  # type: ignore[union-attr]

    assert names(project["dependencies"]) <= image.keys()
    assert not names(project["optional-dependencies"]["dev"]) & image.keys() - names(project["dependencies"]) - {
        "pyyaml"
    }


def test_every_package_of_the_image_is_locked_by_hash() -> None:
    entries = re.split(r"^(?=[\w.-]+==)", WORKER_LOCK.read_text("utf-8"), flags=re.MULTILINE)
    assert [entry.split()[0] for entry in entries if entry.strip() and "--hash=sha256:" not in entry] == []


def test_an_image_for_cpus_leaves_out_what_only_cuda_needs(tmp_path: Path) -> None:
    (program,) = re.findall(r"awk '([^']+)'", DOCKERFILE)
    rest = subprocess.run(["awk", program, str(WORKER_LOCK)], capture_output=True, text=True, check=True).stdout
    kept = tmp_path / "rest.lock"
    kept.write_text(rest, "utf-8")
    left_out = locked(WORKER_LOCK).keys() - locked(kept).keys()
    assert {"torch", "torchaudio", "triton"} < left_out
    assert "--hash=sha256:" in rest
    # Nothing that is kept needs what is left out, but for the two that come from the other index.
    for entry in re.split(r"^(?=[\w.-]+==)", WORKER_LOCK.read_text("utf-8"), flags=re.MULTILINE):
        name = entry.partition("==")[0]
        if name in left_out - {"torch", "torchaudio"}:
            asked_by = set(re.findall(r"^    #(?: via|  ) (\w[\w.-]*)$", entry, re.MULTILINE))
            assert asked_by
            assert asked_by <= left_out
    (program,) = re.findall(r"sed -nE '([^']+)'", DOCKERFILE)
    other = subprocess.run(["sed", "-nE", program, str(WORKER_LOCK)], capture_output=True, text=True, check=True).stdout
    assert [line.partition("==")[0] for line in other.split()] == ["torch", "torchaudio"]


def copied() -> Iterator[str]:
    for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE):
        yield from line.split()[:-1]


def test_what_the_image_copies_exists_and_reaches_the_engine() -> None:
    ignore = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    allowed = {line[1:] for line in ignore if line.startswith("!")}
    assert "*" in ignore
    assert set(copied()) == allowed
    assert [name for name in copied() if not (ROOT / name).exists()] == []
    settings = Settings.load()
    assert {str(settings.model).partition("/")[0], str(settings.schemas)} <= allowed


def test_the_image_and_make_use_the_same_uv_and_make_makes_its_lock() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    (makes,) = re.findall(r"^UV_VERSION := (\S+)", makefile, re.MULTILINE)
    assert re.findall(r"^ARG UV_VERSION=(\S+)", DOCKERFILE, re.MULTILINE) == [makes]
    assert f"-o {WORKER_LOCK.name}\n" in makefile


# documents


def test_links_of_the_documents_lead_somewhere() -> None:
    documents = [K8S / "README.md", ROOT / "docs/runbook.md", *(ROOT / "docs/decisions").glob("0007-*.md")]
    assert len(documents) == 3
    for document in documents:
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text("utf-8")):
            assert (document.parent / link).exists(), f"{document.name}: {link}"


def test_files_that_comments_and_documents_name_exist() -> None:
    files = [*yaml_files(), ROOT / "Dockerfile", K8S / "README.md", ROOT / "docs/runbook.md"]
    pattern = r"(?<![\w/.-])((?:docs|k8s|ops|streamer|overlays|components)/[\w/.-]*\w\.(?:md|ya?ml|py|env|json))"
    for path in files:
        for name in re.findall(pattern, path.read_text("utf-8")):
            assert any((place / name).exists() for place in (ROOT, K8S)), f"{path.name}: {name}"


def test_the_table_of_sizes_is_the_arithmetic_that_it_says() -> None:
    text = (K8S / "README.md").read_text("utf-8")
    prose = " ".join(text.split())
    (cpu_ms, records, kilobytes) = map(
        float, re.findall(r"(\d+) ms of CPU, (\d+) records and (\d+) KB a second", prose)[0]
    )
    (share,) = map(float, re.findall(r"at most (\d+) % of its two cores", prose))
    rows = re.findall(r"^\| ([\d,]+) \| ([\d,]+) \| ([\d.]+) \| (\d+) \| (\d+) \| ([\d.]+) \|$", text, re.MULTILINE)
    assert len(rows) == 5
    partitions = int(BASE_ENV["STREAMER_PARTITIONS"])
    for row in rows:
        feeds, rate, cores, workers, each, megabytes = (float(cell.replace(",", "")) for cell in row)
        assert rate == feeds * records
        assert cores == pytest.approx(feeds * cpu_ms / 1000, abs=0.05)
        needed = feeds * cpu_ms / 1000 / (2 * share / 100)
        assert workers == min(n for n in range(1, partitions + 1) if partitions % n == 0 and n >= needed)
        assert each == partitions / workers
        assert megabytes == pytest.approx(feeds * kilobytes / 1000, abs=0.05)
    assert f"x {records:.0f} records/s x" in (K8S / "components/keda/scaledobject.yaml").read_text("utf-8")


def test_the_sum_of_the_readme_is_the_arithmetic_of_the_settings() -> None:
    text = (K8S / "README.md").read_text("utf-8")
    settings = Settings.load()
    rows = re.findall(r"^\| [^|]*\| (\d+) \| (\d+) \|$", text, re.MULTILINE)
    assert len(rows) == 6
    fifo = len(settings.source_topics) * settings.fifo_bytes // MIB
    spread, alone = settings.partitions // int(BASE["spec"]["replicas"]), settings.partitions
    # process, FIFOs, one more message a partition, open windows, windows in flight, and their sum
    for column, groups in enumerate((spread, alone)):
        values = [int(row[column]) for row in rows]
        assert values[1:5] == [
            groups * fifo,
            groups * fifo,
            settings.max_open_bytes // MIB,
            settings.max_inflight_bytes // MIB,
        ]
        assert values[5] == sum(values[:5])
