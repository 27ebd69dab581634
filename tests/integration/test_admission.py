"""A real API server that enforces the restricted Pod Security level takes every overlay, and the pods of it.

Needs kubectl, etcd and kube-apiserver: on PATH, or in the folder KUBEBUILDER_ASSETS, as ``setup-envtest use`` makes it.
Without the operators' resource definitions: what is for KEDA, Prometheus or Strimzi is left out.
"""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import yaml

from streamer.local.process import free_port
from tests.harness import wait_for
from tests.kustomized import EXTENSIONS, Object, with_components, workloads

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

START_S = 60
TOKEN = "admin-of-this-test"
ENFORCED = {
    "apiVersion": "apiserver.config.k8s.io/v1",
    "kind": "AdmissionConfiguration",
    "plugins": [
        {
            "name": "PodSecurity",
            "configuration": {
                "apiVersion": "pod-security.admission.config.k8s.io/v1",
                "kind": "PodSecurityConfiguration",
                "defaults": {"enforce": "restricted", "warn": "restricted"},
            },
        }
    ],
}
# An overlay and what lies on top; dev makes its topics by itself, and its servers have no passwords.
OVERLAYS = [
    ("dev", "monitoring"),
    *(
        (name, *components)
        for name in ("cpu", "gpu", "split")
        for components in ((), ("create-topics",), ("monitoring", "kafka-tls", "redis-tls"))
    ),
]
Kubectl = Callable[..., "subprocess.CompletedProcess[str]"]


def program(name: str) -> str:
    found = shutil.which(name, path=os.pathsep.join((os.environ.get("KUBEBUILDER_ASSETS", ""), os.environ["PATH"])))
    if found is None:
        pytest.skip(f"there is no {name} on PATH or in KUBEBUILDER_ASSETS (`setup-envtest use` gets it)")
    return found


@contextmanager
def process(log: Path, *command: str | Path) -> Iterator[None]:
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT) as running:
        try:
            yield
        finally:
            running.terminate()


@pytest.fixture(scope="module")
def kubectl(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubectl]:
    """kubectl as the administrator of an API server of its own."""
    client, api_server, etcd = map(program, ("kubectl", "kube-apiserver", "etcd"))
    folder = tmp_path_factory.mktemp("cluster")
    peers, clients, port = (free_port() for _ in range(3))
    store = f"http://127.0.0.1:{clients}"
    (folder / "tokens.csv").write_text(f'{TOKEN},admin,1,"system:masters"\n', "utf-8")
    (folder / "admission.yaml").write_text(yaml.safe_dump(ENFORCED), "utf-8")
    key = folder / "accounts.key"
    subprocess.run([program("openssl"), "genrsa", "-out", key, "2048"], check=True, capture_output=True)
    login = ["--server", f"https://127.0.0.1:{port}", "--insecure-skip-tls-verify", "--token", TOKEN]

    def run(*arguments: str, objects: list[Object] | None = None) -> subprocess.CompletedProcess[str]:
        given = None if objects is None else yaml.safe_dump_all(objects)
        command = [client, *login, "--cache-dir", str(folder / "cache"), *arguments]
        return subprocess.run(command, input=given, capture_output=True, text=True, timeout=60)

    with ExitStack() as stack:
        stack.enter_context(
            process(
                folder / "etcd.log", etcd, "--data-dir", folder / "etcd",
                "--listen-client-urls", store, "--advertise-client-urls", store,
                "--listen-peer-urls", f"http://127.0.0.1:{peers}",
            )
        )  # fmt: skip
        stack.enter_context(
            process(
                folder / "api.log", api_server, "--etcd-servers", store, "--cert-dir", folder / "certs",
                "--bind-address", "127.0.0.1", "--secure-port", str(port), "--advertise-address", "10.0.0.1",
                "--service-cluster-ip-range", "10.96.0.0/16", "--service-account-issuer", "https://test.invalid",
                "--service-account-key-file", key, "--service-account-signing-key-file", key,
                "--token-auth-file", folder / "tokens.csv", "--authorization-mode", "RBAC",
                "--admission-control-config-file", folder / "admission.yaml",
                "--disable-admission-plugins", "ServiceAccount",  # no controller makes the account of a namespace
            )
        )  # fmt: skip
        wait_for(
            lambda: run("get", "--raw", "/readyz").returncode == 0,
            START_S,
            lambda: (folder / "api.log").read_text()[-2000:],
        )
        yield run


def pods(objects: list[Object]) -> Iterator[Object]:
    """A pod of each template, as its controller would make it."""
    for workload in workloads(objects):
        made = {"apiVersion": "v1", "kind": "Pod", **copy.deepcopy(workload["spec"]["template"])}
        made["metadata"] |= {key: workload["metadata"][key] for key in ("name", "namespace")}
        for claim in workload["spec"].get("volumeClaimTemplates", []):
            name = claim["metadata"]["name"]
            made["spec"].setdefault("volumes", []).append({"name": name, "persistentVolumeClaim": {"claimName": name}})
        yield made


@pytest.mark.parametrize("overlay", OVERLAYS, ids=" ".join)
def test_the_server_takes_every_overlay_and_its_pods(kubectl: Kubectl, overlay: tuple[str, ...]) -> None:
    objects = [o for o in with_components(*overlay) if o["apiVersion"].partition("/")[0] not in EXTENSIONS]
    namespaces = [o for o in objects if o["kind"] == "Namespace"]
    assert len(namespaces) == 1
    kubectl("apply", "-f", "-", objects=namespaces)  # without, a dry run finds no place for the rest
    for given in (objects, list(pods(objects))):
        done = kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", objects=given)
        assert (done.returncode, done.stderr) == (0, "")  # no warning either
        assert len(done.stdout.splitlines()) == len(given) > 0


def test_the_server_refuses_a_pod_that_may_be_root(kubectl: Kubectl) -> None:
    container = {"name": "any", "image": "streamer"}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "any"}, "spec": {"containers": [container]}}
    done = kubectl("apply", "--dry-run=server", "-f", "-", objects=[pod])
    assert done.returncode == 1
    assert 'violates PodSecurity "restricted' in done.stderr
