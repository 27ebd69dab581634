"""Manifests, image and containers agree with one another and with the code that runs in them."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
import yaml
from prometheus_client import CollectorRegistry

from streamer.broker import topics
from streamer.clients import kafka as kafka_clients
from streamer.events import TOPIC_WINDOWS
from streamer.local import compose
from streamer.observe.endpoints import Endpoints
from streamer.operate import costs
from streamer.sensors import SensorSettings
from streamer.settings import FILE_SUFFIX, SECRETS, Settings
from streamer.worker.process import REDIS_START_S
from tests.conftest import KAFKA_IMAGE, REDIS_IMAGE
from tests.kustomized import EXTENSIONS, K8S, OVERLAYS, Object, overlay, pod, with_components, workloads

ROOT = Path(__file__).parents[3]
ONE_ROLE, SPLIT = ("keda", "strimzi"), ("keda-split", "strimzi-split")
SECURED = ("kafka-tls", "redis-tls", "keda-tls")
SINKS = ("sink-kafka", "sink-webhook", "sink-parquet", "rules")  # readers of results
SUPPORTED = ("1.31", "1.37")  # oldest and newest Kubernetes that the manifests are for
IN_SECRETS = {"STREAMER_REDIS": "rediss://redis.example.org:6379/0", "STREAMER_KAFKA_PASSWORD": "password"}
MIB = 1 << 20

# What Worker.run waits for at most beside stop_after_ms: side records, Kafka's consumer, cancelled tasks.
STOP_REST_S = 1 + 3 + 1

DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))


def read(path: Path) -> list[Object]:
    return [document for document in yaml.safe_load_all(path.read_text("utf-8")) if document]


@pytest.fixture(scope="session", params=OVERLAYS)
def built(request: pytest.FixtureRequest) -> list[Object]:
    return overlay(request.param)


def with_operators(name: str, *more: str) -> list[Object]:
    return with_components(name, "monitoring", *(SPLIT if name == "split" else ONE_ROLE), *more)


@pytest.fixture(scope="session", params=[*OVERLAYS, "gpu secured", "split secured"])
def everything(request: pytest.FixtureRequest) -> list[Object]:
    """An overlay with every component on top; dev has a network of its own, and servers without passwords."""
    name, _, secured = request.param.partition(" ")
    return with_operators(name, *(SECURED if secured else ()))


def of(objects: list[Object], kind: str, name: str | None = None) -> Object:
    (found,) = [o for o in objects if o["kind"] == kind and name in (None, o["metadata"]["name"])]
    return found


def containers(workload: Object) -> list[Object]:
    return [*pod(workload).get("initContainers", []), *pod(workload)["containers"]]


(BASE,) = read(K8S / "worker/deployment.yaml")
WORKER: Object = pod(BASE)["containers"][0]
BASE_ENV = dict(
    line.split("=", 1)
    for line in (K8S / "base" / "streamer.env").read_text("utf-8").splitlines()
    if line and not line.startswith("#")
)


def workers(objects: list[Object]) -> list[Object]:
    """The Deployments of workers: one, or one a role."""
    found = [o for o in objects if o["kind"] == "Deployment"]
    assert found
    return found


def environment(container: Object) -> dict[str, str]:
    return {variable["name"]: variable["value"] for variable in container["env"] if "value" in variable}


def role(deployment: Object) -> str:
    (worker, *_) = pod(deployment)["containers"]
    assert worker["args"] == ["worker"]
    return environment(worker).get("STREAMER_ROLE", "all")


def deployment_of(objects: list[Object], name: str) -> Object:
    (found,) = [deployment for deployment in workers(objects) if role(deployment) == name]
    return found


def settings_of(objects: list[Object], deployment: Object, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings as the worker of this Deployment reads them; what is in a Secret is made up."""
    worker = pod(deployment)["containers"][0]
    (config,) = [source["configMapRef"]["name"] for source in worker["envFrom"]]
    with monkeypatch.context() as patch:
        for name, value in of(objects, "ConfigMap", config)["data"].items():
            patch.setenv(name, value)
        for name, value in environment(worker).items():
            patch.setenv(name, value)
        for variable in worker["env"]:
            if variable["name"] in IN_SECRETS:
                patch.setenv(variable["name"], IN_SECRETS[variable["name"]])
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
    ours = {"monitoring", *ONE_ROLE, *SPLIT, *SECURED, "create-topics", "gpu"}
    beside = {"transcribe", "describe", "gateway", "surround", "capture", *SINKS}
    assert {path.name for path in (K8S / "components").iterdir()} == ours | beside


@pytest.mark.parametrize("version", SUPPORTED)
def test_kubernetes_knows_every_field_of_every_object(everything: list[Object], version: str) -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed").validate
    known = [o for o in everything if o["apiVersion"].partition("/")[0] not in EXTENSIONS]
    assert len(known) >= 8
    for item in known:
        assert validate(item, version, strict=True) == version


def test_components_bring_the_objects_that_need_an_operator(everything: list[Object]) -> None:
    kinds = {o["kind"] for o in everything if o["apiVersion"].partition("/")[0] in EXTENSIONS}
    assert kinds - {"TriggerAuthentication"} == {
        "PodMonitor",
        "PrometheusRule",
        "ScaledObject",
        "KafkaTopic",
        "KafkaUser",
    }
    assert len({(o["kind"], o["metadata"]["name"]) for o in everything}) == len(everything)


# Schemas of the operators' kinds, from the operators' Go modules. Strimzi is written in Java and is in none:
# what its users and topics must say is tested below, by hand.
CRDS = {
    ("github.com/kedacore/keda/v2", "v2.21.0"): (
        "config/crd/bases/keda.sh_scaledobjects.yaml",
        "config/crd/bases/keda.sh_triggerauthentications.yaml",
    ),
    ("github.com/prometheus-operator/prometheus-operator", "v0.85.0"): (
        "example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml",
        "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
    ),
}
UNREACHABLE = ("dial tcp", "no such host", "timeout", "GOPROXY=off", "connection re", "TLS handshake", "no route")


def go_module(path: str, version: str, folder: Path) -> Path:
    """Where the module's files are, fetched at most once a machine."""
    if shutil.which("go") is None:
        pytest.skip("go is not on PATH: it fetches the schemas of KEDA and the Prometheus operator")
    command = ["go", "mod", "download", "-json", f"{path}@{version}"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    except subprocess.TimeoutExpired:
        pytest.skip(f"Go's module proxy has not given {path} within 120 s")
    if done.returncode != 0 and any(reason in done.stdout + done.stderr for reason in UNREACHABLE):
        pytest.skip(f"Go's module proxy cannot be reached: {json.loads(done.stdout or '{}').get('Error', done.stderr)}")
    assert done.returncode == 0, done.stdout + done.stderr
    return Path(json.loads(done.stdout)["Dir"])


def closed(schema: Any) -> Any:
    """A schema that knows no other fields than it names; an API server would drop them without a word."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        inner.setdefault("additionalProperties", False)
    return inner


@pytest.fixture(scope="session")
def operators(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Any]:
    """A validator for each (apiVersion, kind)."""
    validator = pytest.importorskip("jsonschema", reason="jsonschema is not installed").Draft202012Validator
    found = {}
    for (path, version), files in CRDS.items():
        module = go_module(path, version, tmp_path_factory.mktemp("go"))
        for file in files:
            (crd,) = read(module / file)
            spec = crd["spec"]
            for served in spec["versions"]:
                schema = closed(served["schema"]["openAPIV3Schema"])
                schema["properties"]["metadata"] = {"type": "object"}  # the API server's, not the operator's
                found[f"{spec['group']}/{served['name']}", spec["names"]["kind"]] = validator(schema)
    return found


def test_operators_know_every_field_of_their_objects(
    everything: list[Object], operators: dict[tuple[str, str], Any]
) -> None:
    theirs = [o for o in everything if o["apiVersion"].partition("/")[0] in EXTENSIONS - {"kafka.strimzi.io"}]
    assert len(theirs) >= 3
    for item in theirs:
        errors = [e.message for e in operators[item["apiVersion"], item["kind"]].iter_errors(item)]
        assert errors == [], item["metadata"]["name"]


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("ScaledObject", ("spec", "pollingIntervall"), 15),
        ("ScaledObject", ("spec", "triggers", 0, "metadata", "lagThreshold"), 1200),
        ("TriggerAuthentication", ("spec", "secretTargetRef", 0, "secretName"), "kafka-cluster-ca-cert"),
        ("PodMonitor", ("spec", "podMetricsEndpoints", 0, "intervall"), "15s"),
        ("PrometheusRule", ("spec", "groups", 0, "rules", 0, "alerts"), "StreamerNotReady"),
    ],
)
def test_schemas_of_operators_notice_a_wrong_field(
    kind: str, path: tuple[str | int, ...], value: object, operators: dict[tuple[str, str], Any]
) -> None:
    item, *_ = [copy.deepcopy(o) for o in with_operators("split", *SECURED) if o["kind"] == kind]
    validator = operators[item["apiVersion"], kind]
    assert validator.is_valid(item)
    at: Any = item
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    assert not validator.is_valid(item)


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
    assert {kind for volume in spec.get("volumes", []) for kind in volume if kind != "name"} <= {"emptyDir", "secret"}
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
    ours = {pod(deployment)["containers"][0]["image"] for deployment in workers(built)}
    assert images - {KAFKA_IMAGE, REDIS_IMAGE} == ours
    assert {image.partition(":")[0] for image in ours} == {"streamer"}


def test_pods_run_as_the_user_of_the_image() -> None:
    (user, group) = re.findall(r"^USER (\d+):(\d+)$", DOCKERFILE, re.MULTILINE)[-1]
    context = pod(BASE)["securityContext"]
    assert (context["runAsUser"], context["runAsGroup"]) == (int(user), int(group))
    assert f"useradd --uid {user} --gid {group} " in DOCKERFILE


def test_only_workers_that_run_the_model_on_a_gpu_ask_for_one() -> None:
    def devices(deployment: Object) -> set[Any]:
        found = [container["resources"]["limits"].get("nvidia.com/gpu") for container in containers(deployment)]
        return {count for count in found if count is not None}

    (gpu, infer) = (deployment_of(overlay("gpu"), "all"), deployment_of(overlay("split"), "infer"))
    for deployment in (gpu, infer):
        assert devices(deployment) == {1}
        assert pod(deployment)["tolerations"][0]["key"] == "nvidia.com/gpu"
    assert pod(gpu)["containers"][0]["resources"] == pod(infer)["containers"][0]["resources"]
    for deployment in (*workers(overlay("cpu")), *workers(overlay("dev")), deployment_of(overlay("split"), "align")):
        assert not devices(deployment)
        assert "tolerations" not in pod(deployment)


# settings


def names_of_settings() -> set[str]:
    rules = {f"SENSORS____{name}" for name in SensorSettings.model_fields}
    files = {f"{secret}{FILE_SUFFIX}" for secret in SECRETS}
    return {f"STREAMER_{name.upper()}" for name in {*Settings.model_fields, *rules, *files}} | {"STREAMER_CONFIG"}


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
    rules = re.compile(r"(?<=STREAMER_SENSORS__)[A-Z][A-Z_]*?(?=__)")  # of a sensor of any name
    assert {rules.sub("", name) for name in named} - names_of_settings() == set()


def test_the_worker_accepts_the_settings_of_the_base(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in BASE_ENV.items():
        monkeypatch.setenv(name, value)
    settings = Settings.load()
    assert {f"STREAMER_{name.upper()}" for name in settings.model_fields_set} == set(BASE_ENV)


def test_the_worker_accepts_the_settings_of_each_overlay(built: list[Object], monkeypatch: pytest.MonkeyPatch) -> None:
    for deployment in workers(built):
        settings = settings_of(built, deployment, monkeypatch)
        assert (settings.host, settings.port) == ("0.0.0.0", 9100)
        assert settings.partitions == int(BASE_ENV["STREAMER_PARTITIONS"])
        # A static member that stops does not leave the group; docs/decisions/0007 says why no pod is one.
        assert settings.instance_id is None


def test_the_sensors_of_an_example_are_those_of_its_model_for_all_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = Settings.load(**tomllib.loads((ROOT / "models/surround/streamer.toml").read_text("utf-8")))
    built = with_components("split", "surround", "transcribe", "describe")
    plain = with_components("split", "transcribe", "describe")
    found = workers(built)
    assert len(found) == 4
    for deployment in found:
        settings = settings_of(built, deployment, monkeypatch)
        assert (settings.sensors, settings.model) == (wanted.sensors, wanted.model)
    ours, theirs = (
        {source["configMapRef"]["name"] for one in workers(some) for source in pod(one)["containers"][0]["envFrom"]}
        for some in (built, plain)
    )
    assert len(ours) == len(theirs) == 1
    assert ours != theirs  # a change of sensors replaces the pods


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
    endpoints = Endpoints(CollectorRegistry(), lambda: reasons, list, lambda: None)
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
    waits_s = kafka_clients.TIMEOUT_MS / 1000 + REDIS_START_S + model_s
    assert probe["periodSeconds"] * probe["failureThreshold"] >= waits_s


def test_a_graceful_stop_has_the_time_it_takes() -> None:
    stop_s = int(BASE_ENV["STREAMER_STOP_AFTER_MS"]) / 1000 + STOP_REST_S
    assert pod(BASE)["terminationGracePeriodSeconds"] > stop_s
    grace = COMPOSE["services"]["worker"]["stop_grace_period"]
    assert int(grace.removesuffix("s")) > Settings.model_fields["stop_after_ms"].default / 1000 + STOP_REST_S


def test_selectors_find_workers_of_their_role_alone_and_the_ports_are_those_they_have(built: list[Object]) -> None:
    def found(selector: dict[str, str]) -> list[str]:
        labels = [deployment["spec"]["template"]["metadata"]["labels"].items() for deployment in workers(built)]
        return [role(one) for one, those in zip(workers(built), labels, strict=True) if selector.items() <= those]

    def selectors(kind: str, name: str) -> dict[str, str]:
        spec: Object = of(built, kind, name)["spec"]["selector"]
        labels: dict[str, str] = spec.get("matchLabels", spec)
        return labels

    for deployment in workers(built):
        name = deployment["metadata"]["name"]
        service = name.replace("worker", "metrics")
        for selector in (
            deployment["spec"]["selector"]["matchLabels"],
            selectors("PodDisruptionBudget", name),
            selectors("Service", service),
            *(spread["labelSelector"]["matchLabels"] for spread in pod(deployment)["topologySpreadConstraints"]),
        ):
            assert found(selector) == [role(deployment)]
        ports = [port["targetPort"] for port in of(built, "Service", service)["spec"]["ports"]]
        assert ports == [port["name"] for port in WORKER["ports"]]
    monitor = read(K8S / "components/monitoring/podmonitor.yaml")[0]["spec"]["selector"]
    for selector in (of(built, "NetworkPolicy", "streamer")["spec"]["podSelector"], monitor):
        assert found(selector["matchLabels"]) == [role(deployment) for deployment in workers(built)]


def test_the_split_overlay_differs_from_the_worker_in_what_a_role_needs_and_in_nothing_else() -> None:
    assert sorted(map(role, workers(overlay("split")))) == ["align", "infer"]
    for deployment in workers(overlay("split")):
        mine, bases = pod(deployment), pod(BASE)
        kept = bases.keys() - {"containers", "topologySpreadConstraints"}
        assert {key: mine[key] for key in kept} == {key: bases[key] for key in kept}
        assert mine.keys() - bases.keys() <= {"affinity", "tolerations"}
        (worker,) = mine["containers"]
        changed = {key for key in WORKER if worker[key] != WORKER[key]} - {"envFrom", "image"}
        assert changed == {"env", "resources"}
        assert [v for v in worker["env"] if v not in WORKER["env"]] == [
            {"name": "STREAMER_ROLE", "value": role(deployment)}
        ]
        budget = of(overlay("split"), "PodDisruptionBudget", deployment["metadata"]["name"])["spec"]
        assert (budget["maxUnavailable"], budget["unhealthyPodEvictionPolicy"]) == (1, "AlwaysAllow")


def test_the_network_lets_in_scrapes_and_lets_out_names_kafka_and_redis(
    built: list[Object], monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = of(built, "NetworkPolicy", "streamer")["spec"]
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    assert [rule["ports"] for rule in policy["ingress"]] == [[{"port": "metrics"}]]
    settings = settings_of(built, workers(built)[0], monkeypatch)
    brokers = {int(address.rpartition(":")[2]) for address in settings.kafka.split(",")}
    out = {port["port"] for rule in policy["egress"] for port in rule["ports"]}
    assert out == {53, 6379, *brokers}


def test_the_stores_of_the_dev_overlay_are_where_its_worker_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    objects = overlay("dev")
    settings = settings_of(objects, of(objects, "Deployment"), monkeypatch)
    secret = pod(of(objects, "Deployment"))["containers"][0]["env"][0]["valueFrom"]["secretKeyRef"]["name"]
    import base64

    redis = urlsplit(base64.b64decode(of(objects, "Secret", secret)["data"]["url"]).decode())
    for host, port in (settings.kafka.split(":"), (redis.hostname, str(redis.port))):
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


# numbers


def test_partitions_divide_evenly_among_the_workers(built: list[Object], monkeypatch: pytest.MonkeyPatch) -> None:
    for deployment in workers(built):
        replicas = deployment["spec"]["replicas"]
        partitions = settings_of(built, deployment, monkeypatch).partitions
        assert 1 <= replicas <= partitions
        assert partitions % replicas == 0


def test_scaling_stops_at_the_partitions_and_leaves_the_number_to_one_owner(
    everything: list[Object], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len([o for o in everything if o["kind"] == "ScaledObject"]) == len(workers(everything))
    for deployment in workers(everything):
        name = deployment["metadata"]["name"]
        scaled = of(everything, "ScaledObject", name)["spec"]
        settings = settings_of(everything, deployment, monkeypatch)
        assert scaled["scaleTargetRef"]["name"] == name
        assert "replicas" not in deployment["spec"]
        assert 1 <= scaled["minReplicaCount"] <= scaled["maxReplicaCount"] == settings.partitions
        (trigger,) = scaled["triggers"]
        metadata = trigger["metadata"]
        assert metadata["bootstrapServersFromEnv"] == "STREAMER_KAFKA"
        assert metadata["consumerGroup"] == settings.consumer_group
        assert metadata.get("topic") == (settings.topic(TOPIC_WINDOWS) if role(deployment) == "infer" else None)
        assert all(isinstance(value, str) for value in metadata.values())


RECORDS = K8S / "components/keda/scaledobject/scaledobject.yaml"
WINDOWS = K8S / "components/keda-split/infer/scaledobject.yaml"


def lag_threshold(path: Path) -> int:
    (scaled,) = read(path)
    (trigger,) = scaled["spec"]["triggers"]
    return int(trigger["metadata"]["lagThreshold"])


def prose_of_comments(path: Path) -> str:
    return " ".join(re.sub(r"^ *#", "", path.read_text("utf-8"), flags=re.MULTILINE).split())


def test_lag_that_scales_is_twice_what_open_windows_hold() -> None:
    comment = prose_of_comments(RECORDS)
    feeds, rate, held_s = map(int, re.findall(r"(\d+) feeds x (\d+) records/s x (\d+) s", comment)[0])
    settings = Settings.load()
    longest = max(settings.sensors[name].max_delay_ms for name in settings.sensors)
    assert held_s * 1000 == settings.window_ms + longest + settings.session_gap_ms
    assert lag_threshold(RECORDS) == 2 * feeds * rate * held_s


def test_lag_of_windows_that_scales_is_the_time_that_results_may_be_late() -> None:
    (found,) = re.findall(
        r"(\d+) feeds x (\d+) window/s x (\d+) s that results may be late = ([\d,]+)", prose_of_comments(WINDOWS)
    )
    feeds, rate, late_s, windows = (int(number.replace(",", "")) for number in found)
    assert rate == 1_000_000 // Settings.load().hop_us
    assert lag_threshold(WINDOWS) == windows == feeds * rate * late_s


def quantity(text: str) -> int:
    ((number, unit),) = re.findall(r"^(\d+)([KMG]i)$", text)
    return int(number) << {"Ki": 10, "Mi": 20, "Gi": 30}[unit]


def test_memory_holds_every_buffer_even_where_one_worker_has_all_partitions(
    built: list[Object], monkeypatch: pytest.MonkeyPatch
) -> None:
    for deployment in workers(built):
        settings = settings_of(built, deployment, monkeypatch)
        process = (160 if role(deployment) == "align" else 800) * MIB  # k8s/README.md
        fifos = len(settings.source_topics) * settings.partitions * settings.fifo_bytes
        overshoot = len(settings.source_topics) * settings.partitions * settings.max_message_bytes
        needed = process + fifos + overshoot + settings.max_open_bytes + settings.max_inflight_bytes
        assert quantity(pod(deployment)["containers"][0]["resources"]["limits"]["memory"]) >= needed


# Kafka's objects


def strimzi(kind: str) -> list[Object]:
    folders = (K8S / "components/strimzi", K8S / "components/strimzi-split")
    return [o for folder in folders for path in folder.rglob("*.yaml") for o in read(path) if o["kind"] == kind]


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
            name,
            spec["partitions"],
            config[topics.TIMESTAMP_TYPE],
            int(config[topics.MAX_BYTES]),
            retention_ms=-1,  # the cluster's default, which no manifest of ours knows
            replicas=spec["replicas"],
            min_in_sync=int(config[topics.MIN_IN_SYNC]),
        )
    assert {topic.min_in_sync for topic in existing.values()} == {settings.replication - 1}
    topics._refuse_misfits(existing, settings, settings.partitions)
    assert {topic.partitions for topic in existing.values()} == {settings.partitions}


@pytest.mark.parametrize(
    ("user", "group", "reads", "writes"),
    [
        ("streamer-worker", "streamer", [], ["late", "deadletter"]),
        ("streamer-worker-align", "streamer", [], ["windows", "late", "deadletter"]),
        ("streamer-worker-infer", "streamer-infer", ["windows"], ["deadletter"]),
    ],
)
def test_a_workers_rights_are_what_it_does_and_no_more(
    user: str, group: str, reads: list[str], writes: list[str]
) -> None:
    settings = Settings.load()
    (spec,) = [o["spec"] for o in strimzi("KafkaUser") if o["metadata"]["name"] == user]
    assert spec["authentication"] == {"type": "scram-sha-512"}
    rules = spec["authorization"]["acls"]
    granted = {(rule["resource"]["type"], rule["resource"]["name"]): set(rule["operations"]) for rule in rules}
    assert len(granted) == len(rules)
    assert all(rule["resource"].get("patternType", "literal") == "literal" for rule in rules)
    looks = {"Describe", "DescribeConfigs"}
    expected: dict[tuple[str, str], set[str]] = {
        ("topic", topic.name): set(looks) for topic in topics._wanted(settings)
    }
    for name in [*settings.source_topics, *map(settings.topic, reads)]:
        expected["topic", name] |= {"Read"}
    for suffix in writes:
        expected["topic", settings.topic(suffix)] |= {"Write"}
    expected["group", group] = {"Describe", "Read"}
    assert granted == expected


def test_a_workers_rights_are_those_that_it_asks_for_at_its_start() -> None:
    class Broker:
        """Grants what the manifest of a user grants."""

        def __init__(self, user: Object) -> None:
            rules = user["spec"]["authorization"]["acls"]
            self.granted = {rule["resource"]["name"]: [o.upper() for o in rule["operations"]] for rule in rules}

        def describe_topics(self, names: list[str]) -> list[Object]:
            return [{"name": name, "authorized_operations": self.granted.get(name, [])} for name in names]

        def describe_groups(self, names: list[str]) -> dict[str, Object]:
            return {name: {"error": None, "authorized_operations": self.granted.get(name, [])} for name in names}

    users = {user["metadata"]["name"]: user for user in strimzi("KafkaUser")}
    assert set(users) == {"streamer-worker", "streamer-worker-align", "streamer-worker-infer"}
    for name, user in users.items():
        settings = Settings.load(role=name.removeprefix("streamer-worker").removeprefix("-") or "all")
        assert topics.missing_rights(Broker(user), settings) == []
        broker = Broker(user)
        del broker.granted[settings.consumer_group]
        broker.granted[settings.topic("deadletter")].remove("WRITE")
        assert topics.missing_rights(broker, settings) == [
            f"write topic {settings.topic('deadletter')}",
            f"read group {settings.consumer_group}",
        ]


# TLS and passwords


@pytest.mark.parametrize("name", ["cpu", "gpu", "split"])
def test_each_worker_has_tls_and_a_user_of_its_own_at_kafka(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = with_operators(name, *SECURED)
    for deployment in workers(objects):
        user = deployment["metadata"]["name"]
        settings = settings_of(objects, deployment, monkeypatch)
        assert settings.kafka_security_protocol == "SASL_SSL"
        declared = of(objects, "KafkaUser", user)["spec"]["authentication"]["type"]
        assert settings.kafka_sasl_mechanism.lower() == declared
        assert settings.kafka_user == user
        worker = pod(deployment)["containers"][0]
        (password,) = [v["valueFrom"] for v in worker["env"] if v["name"] == "STREAMER_KAFKA_PASSWORD"]
        assert password == {"secretKeyRef": {"name": user, "key": "password"}}  # as Strimzi makes it
        for file, secret in (
            (settings.kafka_ca_file, "kafka-cluster-ca-cert"),
            (settings.redis_ca_file, "streamer-redis"),
        ):
            assert file is not None
            (mount,) = [m for m in worker["volumeMounts"] if m["mountPath"] == str(file.parent)]
            (volume,) = [v["secret"] for v in pod(deployment)["volumes"] if v["name"] == mount["name"]]
            assert mount["readOnly"] is True
            assert volume == {"secretName": secret, "items": [{"key": "ca.crt", "path": file.name}]}
        assert_restricted(pod(deployment))
        assert_careful(pod(deployment))
    policy = of(objects, "NetworkPolicy", "streamer")["spec"]
    assert {port["port"] for rule in policy["egress"] for port in rule["ports"]} == {53, 6379, 9093}


@pytest.mark.parametrize("name", ["gpu", "split"])
def test_keda_asks_kafka_as_the_worker_that_it_scales(name: str) -> None:
    objects = with_operators(name, *SECURED)
    login = of(objects, "TriggerAuthentication")
    asked = {entry["parameter"]: entry["name"] for entry in login["spec"]["env"]}
    assert asked == {"username": "STREAMER_KAFKA_USER", "password": "STREAMER_KAFKA_PASSWORD"}
    for deployment in workers(objects):
        worker, *_ = pod(deployment)["containers"]
        assert set(asked.values()) <= {variable["name"] for variable in worker["env"]}
        (trigger,) = of(objects, "ScaledObject", deployment["metadata"]["name"])["spec"]["triggers"]
        assert trigger["authenticationRef"] == {"name": login["metadata"]["name"]}
        assert (trigger["metadata"]["tls"], trigger["metadata"]["sasl"]) == ("enable", "scram_sha512")
    (authority,) = login["spec"]["secretTargetRef"]
    assert (authority["parameter"], authority["name"]) == ("ca", "kafka-cluster-ca-cert")


def test_topics_are_made_before_workers_of_either_role() -> None:
    for deployment in workers(with_components("split", "create-topics")):
        (before,) = pod(deployment)["initContainers"]
        assert before["args"] == ["topics", "create"]


# containers on one machine


def test_kafka_and_redis_are_all_that_compose_starts_without_a_profile() -> None:
    services = COMPOSE["services"]
    assert {name for name, service in services.items() if not service.get("profiles")} == {"kafka", "redis"}
    assert {p for service in services.values() for p in service.get("profiles", [])} == {
        "worker",
        "demo",
        "split",
        "transcribe",
        "describe",
        "gateway",
        "capture",
        *SINKS,
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


def test_settings_of_all_containers_are_lines_of_one_file() -> None:
    ours = {name: service for name, service in COMPOSE["services"].items() if service["image"].startswith("streamer:")}
    assert {"worker", "align", "infer", "simulator", "dashboard", "describe", "transcribe", "topics"} <= ours.keys()
    for service in ours.values():
        assert service["env_file"] == [{"path": "streamer.env", "required": False}]


def test_the_containers_find_one_another() -> None:
    services = COMPOSE["services"]
    ours = {name: service for name, service in services.items() if "build" in service}
    beside = {"transcribe", "describe", "gateway", "capture", *SINKS}
    assert set(ours) == {"topics", "worker", "align", "infer", "simulator", "dashboard"} | beside
    advertised = re.findall(r"PLAINTEXT://([\w.:]+)", services["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"])
    for name, service in ours.items():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["environment"]["STREAMER_KAFKA"] in advertised
        if name not in ("transcribe", "gateway", "capture"):  # they need Kafka alone
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
        return {re.findall(r"^[\w.-]+", requirement)[0].lower() for requirement in requirements}

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
    decisions = [path for number in ("0007", "0011") for path in (ROOT / "docs/decisions").glob(f"{number}-*.md")]
    documents = [K8S / "README.md", ROOT / "docs/runbook.md", *decisions]
    assert len(documents) == 4
    for document in documents:
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text("utf-8")):
            assert (document.parent / link).exists(), f"{document.name}: {link}"


def test_files_that_comments_and_documents_name_exist() -> None:
    files = [*yaml_files(), ROOT / "Dockerfile", K8S / "README.md", ROOT / "docs/runbook.md"]
    pattern = r"(?<![\w/.-])((?:docs|k8s|ops|streamer|overlays|components)/[\w/.-]*\w\.(?:md|ya?ml|py|env|json))"
    for path in files:
        for name in re.findall(pattern, path.read_text("utf-8")):
            assert any((place / name).exists() for place in (ROOT, K8S)), f"{path.name}: {name}"


def test_keda_reckons_with_the_records_that_a_simulated_feed_was_measured_to_send() -> None:
    measured = costs.load()  # the table of sizes itself is held to them in test_sizing.py
    records = round(measured.usual_fps + measured.others.records)
    assert f"x {records} records/s x" in (K8S / "components/keda/scaledobject/scaledobject.yaml").read_text("utf-8")


def test_the_sum_of_the_readme_is_the_arithmetic_of_the_settings() -> None:
    text = (K8S / "README.md").read_text("utf-8")
    settings = Settings.load()
    rows = re.findall(r"^\| [^|]*\| (\d+) \| (\d+) \|$", text, re.MULTILINE)
    assert len(rows) == 6
    topics = len(settings.source_topics)
    spread, alone = settings.partitions // int(BASE["spec"]["replicas"]), settings.partitions
    # process, FIFOs, one more message a partition, open windows, windows in flight, and their sum
    for column, groups in enumerate((spread, alone)):
        values = [int(row[column]) for row in rows]
        assert values[1:5] == [
            groups * topics * settings.fifo_bytes // MIB,
            groups * topics * settings.max_message_bytes // MIB,
            settings.max_open_bytes // MIB,
            settings.max_inflight_bytes // MIB,
        ]
        assert values[5] == sum(values[:5])
