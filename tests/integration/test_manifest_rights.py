"""Workers of every role, on a real Kafka that grants each the rights of its user in k8s and no others."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kafka.admin import (
    ACL,
)

from streamer.broker import deadletters, topics
from streamer.errors import UsageError
from streamer.feeds import Producer
from streamer.kinds.image import reading_order
from streamer.operate import doctor
from streamer.operate.findings import Status
from streamer.settings import Settings
from streamer.store import results
from tests import secure
from tests.harness import ROOT, S_US, WorkerProcess, jpeg, running_worker, wait_for
from tests.secure import PASSWORD, Authority, Broker

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificates with openssl"),
]

MANIFESTS = (ROOT / "k8s/components/strimzi/user.yaml", ROOT / "k8s/components/strimzi-split/users.yaml")
SECONDS = 3
FRAMES = 6  # a window


def users() -> dict[str, list[dict[str, Any]]]:
    """The rules of each KafkaUser, by its name."""
    found = [user for path in MANIFESTS for user in yaml.safe_load_all(path.read_text("utf-8"))]
    return {user["metadata"]["name"]: user["spec"]["authorization"]["acls"] for user in found if user}


def acls(user: str, rules: list[dict[str, Any]]) -> Iterator[ACL]:
    for rule in rules:
        for operation in rule["operations"]:
            yield secure.right(user, operation, rule["resource"]["type"], rule["resource"]["name"])


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.new(tmp_path_factory.mktemp("pki") / "ours")


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Broker]:
    with secure.broker(tmp_path_factory.mktemp("kafka"), authority) as addresses:
        wanted = [acl for user, rules in users().items() for acl in acls(user, rules)]
        secure.grant(addresses.inner, users(), wanted)
        yield addresses


@pytest.fixture
def base(broker: Broker, authority: Authority, redis_url: str, model_folder: Path) -> Settings:
    """The operator's settings, who makes the topics."""
    settings = Settings.load(
        kafka=broker.secure,
        kafka_security_protocol="SASL_SSL",
        kafka_user="operator",
        kafka_password=PASSWORD,
        kafka_ca_file=authority.ca,
        partitions=2,
        max_message_bytes=1 << 20,
        redis=redis_url,
        key_prefix="rights",
        model=model_folder,
        port=0,
        sensors={name: {"max_delay_ms": 3000} for name in ("image", "audio", "text", "telemetry")},
    )
    topics.create(settings)
    return settings


def drive(settings: Settings, session: str, start_us: int) -> None:
    """Whole windows; of each the frame that the model opens first is broken, so that another has to take its place."""
    broken, *_ = reading_order(FRAMES, 2)
    with Producer(settings) as producer:
        for second in range(SECONDS):
            at_us = start_us + second * S_US
            producer.audio(session, b"\0\0" * 16_000, rate_hz=16_000, time_us=at_us)
            producer.telemetry(session, {"speed": [1.0] * 10}, rate_hz=10, time_us=at_us)
            for number in range(FRAMES):
                image = b"no image" if number == broken else jpeg(number)
                producer.frame(session, image, time_us=at_us + number * 100_000)


def everything(base: Settings, session: str, worker: WorkerProcess) -> None:
    """What makes a worker use each of its rights: windows, dead letters, and a record that is late."""
    viewer, device = as_user(base, "viewer"), as_user(base, "device")
    start_us = (int(time.time()) - 5) * S_US
    before = len(list(deadletters.read(viewer)))
    drive(device, session, start_us)
    with results.connected(viewer) as (client, keys):
        wait_for(lambda: len(list(results.results(client, keys, session))) == SECONDS, 60.0)
    with Producer(device) as producer:
        producer.telemetry(session, {"speed": [1.0]}, rate_hz=10, time_us=start_us)
    wait_for(lambda: worker.metric("streamer_events_total", outcome="late") == 1, 30.0)
    wait_for(lambda: len(list(deadletters.read(viewer))) == before + SECONDS, 30.0)


def as_user(settings: Settings, user: str, **changes: Any) -> Settings:
    return settings.model_copy(update={"kafka_user": user, **changes})


def test_workers_apart_by_role_do_everything_with_the_rights_of_their_users(base: Settings, tmp_path: Path) -> None:
    align = as_user(base, "streamer-worker-align", role="align")
    infer = as_user(base, "streamer-worker-infer", role="infer")
    with (
        running_worker(align, tmp_path / "align.log") as aligner,
        running_worker(infer, tmp_path / "infer.log") as inferring,
    ):
        everything(base, "apart", aligner)
        assert inferring.metric("streamer_refetched_windows_total") > 0
        for settings in (align, infer):
            assert [found for found in doctor.examine(settings) if found.status is Status.FAIL] == []


def test_a_worker_does_everything_with_the_rights_of_its_user(base: Settings, tmp_path: Path) -> None:
    with running_worker(as_user(base, "streamer-worker"), tmp_path / "all.log") as worker:
        everything(base, "alone", worker)


@pytest.mark.parametrize(("user", "role"), [("streamer-worker-align", "infer"), ("streamer-worker-infer", "align")])
def test_a_user_of_one_role_may_not_do_the_others_work(user: str, role: str, base: Settings) -> None:
    with pytest.raises(UsageError, match=f"does not let user '{user}' .*SECURITY.md"):
        topics.check_for_worker(as_user(base, user, role=role))
