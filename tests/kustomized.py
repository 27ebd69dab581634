"""The manifests of k8s/ as kustomize builds them."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

K8S = Path(__file__).parents[1] / "k8s"
OVERLAYS = ("dev", "cpu", "gpu", "split")
EXTENSIONS = {"monitoring.coreos.com", "keda.sh", "kafka.strimzi.io"}  # groups that a plain cluster does not know
Object = dict[str, Any]


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


@cache
def with_components(name: str, *components: str) -> list[Object]:
    """An overlay with components added, as in a user's overlay."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made).resolve()
        kustomization = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [os.path.relpath(K8S / "overlays" / name, folder)],
            "components": [os.path.relpath(K8S / "components" / component, folder) for component in components],
        }
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization), "utf-8")
        return build(folder)


def workloads(objects: list[Object]) -> list[Object]:
    return [o for o in objects if o["kind"] in {"Deployment", "StatefulSet", "Job", "DaemonSet"}]


def pod(workload: Object) -> Object:
    spec: Object = workload["spec"]["template"]["spec"]
    return spec
