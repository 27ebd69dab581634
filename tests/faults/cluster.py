"""Three brokers of the real Apache Kafka on this machine, which a test may stop, kill, pause, slow and put out of step.

Each is broker and controller, a process with a folder and ports of its own, started as ``streamer.local.kafka`` starts
one; what differs is appended to its configuration, where the last line of a name counts.
"""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError

from streamer.local import kafka
from streamer.local.process import Daemon, free_port, listens
from tests.harness import wait_for

BROKERS = (1, 2, 3)
CLUSTER_ID = "c3RyZWFtZXItY2x1c3Rlcg"
SESSION_TIMEOUT_MS = 9000  # Kafka's default: how long a dead broker leads and counts as in sync
START_S, STOP_S, WHOLE_S = 120.0, 60.0, 120.0
OFFSETS, OFFSETS_PARTITIONS = "__consumer_offsets", 4
HEAP = "-Xmx384m"
CLOCK_SOURCE = Path(__file__).with_name("clock.c")

# Everything else is as in streamer.local.kafka, or Kafka's default: replica.lag.time.max.ms 30 s, for one.
PROPERTIES = """
node.id={node}
controller.quorum.voters={voters}
broker.session.timeout.ms={session_timeout_ms}
broker.heartbeat.interval.ms={heartbeat_ms}
default.replication.factor=3
min.insync.replicas=2
offsets.topic.replication.factor=3
offsets.topic.num.partitions={offsets_partitions}
transaction.state.log.replication.factor=3
transaction.state.log.min.isr=2
share.coordinator.state.topic.replication.factor=3
share.coordinator.state.topic.min.isr=2
"""

Partition = tuple[str, int]


class Broker:
    """One of the three.

    Attributes:
        node: Its id.
        directory: Holds its configuration, log and data.
        clock_ms: By how much its clock is ahead at the next start.
    """

    def __init__(self, node: int, directory: Path) -> None:
        self.node = node
        self.directory = directory
        self.port, self.controller_port = free_port(), free_port()
        self.clock_ms = 0
        self._daemon = Daemon(f"kafka-{node}", directory)

    @property
    def data(self) -> Path:
        return self.directory / "kafka-data"

    @property
    def log(self) -> Path:
        return self._daemon.log

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def runs(self) -> bool:
        return self._daemon.process is not None

    def start(self, max_message_bytes: int, properties: str, clock: Path | None) -> None:
        """Start it unless it runs; returns when it takes connections.

        Args:
            properties: What differs from a broker that is alone.
            clock: The library that shifts its clock; needed where ``clock_ms`` is not 0.
        """
        if self.runs:
            return
        jars = kafka.jars(print)
        java, *rest = kafka.command(self.directory, self.port, self.controller_port, max_message_bytes, jars)
        meta = self.data / "meta.properties"
        meta.write_text(_replaced(meta.read_text(), {"cluster.id": CLUSTER_ID, "node.id": str(self.node)}))
        with (self.directory / "kafka.properties").open("a") as file:
            file.write(properties)
        at = rest.index("-cp")
        command = [java, *rest[:at], HEAP, *rest[at:]]
        if self.clock_ms:
            command = [
                str(shutil.which("env")),
                f"LD_PRELOAD={clock}",
                f"SHIFT_MS={self.clock_ms}",
                *command,
            ]
        self._daemon.start(command, lambda: listens(self.address), START_S)

    def stop(self) -> None:
        """SIGTERM: it hands over what it leads, then ends."""
        self._daemon.stop(STOP_S)

    def kill(self) -> None:
        """SIGKILL, also if it is paused."""
        self._daemon.kill()

    def pause(self) -> None:
        """SIGSTOP: every connection stays open and nothing answers."""
        self._daemon.pause()

    def resume(self) -> None:
        self._daemon.resume()

    @contextmanager
    def paused(self) -> Iterator[None]:
        self.pause()
        try:
            yield
        finally:
            self.resume()

    @contextmanager
    def slow(self, runs_s: float = 0.02, stands_s: float = 0.08) -> Iterator[None]:
        """It runs and stands still in turns, as on a machine that is too busy."""
        over = threading.Event()

        def take_turns() -> None:
            while not over.is_set():
                with self.paused():
                    over.wait(stands_s)
                over.wait(runs_s)

        thread = threading.Thread(target=take_turns, name=f"slow-{self.node}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def _replaced(properties: str, values: Mapping[str, str]) -> str:
    lines = [line for line in properties.splitlines() if line.partition("=")[0] not in values]
    return "\n".join([*lines, *(f"{name}={value}" for name, value in values.items())]) + "\n"


class Cluster:
    """Three brokers; a context manager: all run inside the ``with`` block and none after it.

    Args:
        directory: Holds a folder for each.
        max_message_bytes: Largest record that a producer may send.
        session_timeout_ms: ``broker.session.timeout.ms``.
    """

    def __init__(self, directory: Path, max_message_bytes: int, session_timeout_ms: int = SESSION_TIMEOUT_MS) -> None:
        self.directory = directory
        self.session_timeout_ms = session_timeout_ms
        self.brokers = {node: Broker(node, directory / f"broker-{node}") for node in BROKERS}
        self._max_message_bytes = max_message_bytes
        self._clock: Path | None = None

    def __enter__(self) -> Cluster:
        try:
            self.start()
            self._make_offsets_topic()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()

    @property
    def bootstrap(self) -> str:
        return ",".join(broker.address for broker in self.brokers.values())

    def start(self, *nodes: int) -> None:
        """Start these, or all, unless they run; a majority must be among them or run already."""
        with ThreadPoolExecutor(len(BROKERS)) as pool:
            for _ in pool.map(self._start, nodes or BROKERS):
                pass

    def _start(self, node: int) -> None:
        broker = self.brokers[node]
        broker.start(self._max_message_bytes, self._properties(node), self._clock)

    def _properties(self, node: int) -> str:
        voters = ",".join(f"{b.node}@127.0.0.1:{b.controller_port}" for b in self.brokers.values())
        return PROPERTIES.format(
            node=node,
            voters=voters,
            session_timeout_ms=self.session_timeout_ms,
            heartbeat_ms=self.session_timeout_ms // 5,
            offsets_partitions=OFFSETS_PARTITIONS,
        )

    def kill(self) -> None:
        """End all at once."""
        for broker in self.brokers.values():
            broker.kill()

    def set_clock(self, node: int, ahead_ms: int) -> None:
        """Restart one broker with its clock that much ahead, or behind where that is negative.

        Raises:
            FileNotFoundError: There is no C compiler here.
        """
        if ahead_ms and self._clock is None:
            self._clock = compile_clock(self.directory)
        broker = self.brokers[node]
        if broker.clock_ms != ahead_ms or not broker.runs:
            broker.stop()
            broker.clock_ms = ahead_ms
            self.start(node)

    # what the cluster says of itself

    @contextmanager
    def admin(self) -> Iterator[KafkaAdminClient]:
        client = KafkaAdminClient(
            bootstrap_servers=[broker.address for broker in self.brokers.values() if broker.runs],
            bootstrap_timeout_ms=60_000,
            request_timeout_ms=20_000,
        )
        try:
            yield client
        finally:
            client.close()

    def partitions(self, topics: Sequence[str] | None = None) -> dict[Partition, dict[str, Any]]:
        """What Kafka says of each partition of these topics, or of all."""
        with self.admin() as client:
            described = client.describe_topics(None if topics is None else list(topics))
        return {
            (topic["name"], partition["partition_index"]): partition
            for topic in described
            for partition in topic["partitions"]
        }

    def leaders(self, topics: Sequence[str]) -> dict[Partition, int]:
        """Node that leads each partition; -1: none does."""
        return {name: partition["leader_id"] for name, partition in self.partitions(topics).items()}

    def in_sync(self, topics: Sequence[str]) -> dict[Partition, list[int]]:
        """Nodes of each partition's ISR."""
        return {name: partition["isr_nodes"] for name, partition in self.partitions(topics).items()}

    def wait_whole(self, within_s: float = WHOLE_S) -> None:
        """Until every replica of every partition is in sync, each has a leader, and all brokers are known."""
        last: dict[str, Any] = {}

        def whole() -> bool:
            try:
                partitions = self.partitions()
            except KafkaError as error:
                last["error"] = error
                return False
            last["lacking"] = {
                name: p["isr_nodes"]
                for name, p in partitions.items()
                if p["leader_id"] < 0 or set(p["isr_nodes"]) != set(p["replica_nodes"])
            }
            return not last["lacking"]

        wait_for(whole, within_s, lambda: f"replicas are not in sync: {last}")

    def controller(self) -> int:
        """Node of the active controller."""
        with self.admin() as client:
            quorum: dict[str, Any] = client.describe_metadata_quorum()
        leader: int = quorum["topics"][0]["partitions"][0]["leader_id"]
        return leader

    def coordinator(self, group: str) -> int:
        """Node that coordinates a consumer group: it leads the partition that keeps the group's offsets."""
        code = 0
        for letter in group.encode():  # String.hashCode
            code = (31 * code + letter) & 0xFFFFFFFF
        return self.leaders([OFFSETS])[OFFSETS, (code & 0x7FFFFFFF) % OFFSETS_PARTITIONS]

    def _make_offsets_topic(self) -> None:
        """Kafka makes it for the first group that asks, which must not be in the middle of a fault."""
        consumer = KafkaConsumer(bootstrap_servers=self.bootstrap, group_id="first", enable_auto_commit=False)
        try:
            consumer.committed(TopicPartition("none", 0))
        finally:
            consumer.close()
        self.wait_whole()

    # who leads

    def lead(self, topics: Sequence[str], leader: Callable[[str, int], int], within_s: float = 30.0) -> None:
        """Give each partition the leader that ``leader(topic, partition)`` names; the replicas stay where they are."""
        wanted = {name: leader(*name) for name in self.partitions(topics)}
        with self.admin() as client:
            refused = client.alter_partition_reassignments(
                {
                    TopicPartition(*name): [first, *(node for node in BROKERS if node != first)]
                    for name, first in wanted.items()
                }
            )
            assert not any(refused.values()), refused
            wait_for(lambda: not client.list_partition_reassignments(), within_s)
            by_topic: dict[str, list[int]] = {}
            for topic, partition in wanted:
                by_topic.setdefault(topic, []).append(partition)
            client.elect_leaders(0, by_topic, raise_errors=False)
        wait_for(lambda: self.leaders(topics) == wanted, within_s, lambda: f"{self.leaders(topics)} is not {wanted}")

    # full disks

    @contextmanager
    def small_disk(self, node: int, size_bytes: int) -> Iterator[Path]:
        """A broker's data on a file system of this size, which the test may fill; needs the right to mount one.

        Raises:
            subprocess.CalledProcessError: It cannot be mounted.
        """
        broker = self.brokers[node]
        aside = broker.directory / "data-on-disk"
        broker.stop()
        broker.data.rename(aside)
        broker.data.mkdir()
        mounted = False
        try:
            subprocess.run(
                ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", broker.data], check=True, timeout=30
            )
            mounted = True
            _copy_sparse(aside, broker.data)
            self.start(node)
            self.wait_whole()
            yield broker.data
        finally:
            broker.kill()
            if mounted:
                shutil.rmtree(aside)
                _copy_sparse(broker.data, aside)
                subprocess.run(["umount", broker.data], check=True, timeout=30)
            broker.data.rmdir()
            aside.rename(broker.data)
            self.start(node)


def _copy_sparse(source: Path, target: Path) -> None:
    """Kafka's indexes are 10 MiB each, nearly all of it holes."""
    subprocess.run(["cp", "-a", "--sparse=always", f"{source}/.", str(target)], check=True, timeout=120)


def fill(disk: Path) -> Path:
    """Leave no byte free; returns the file that did it."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue
    return ballast


def compile_clock(directory: Path) -> Path:
    """The library that shifts a process's calendar clock.

    Raises:
        FileNotFoundError: There is no C compiler here.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        raise FileNotFoundError("no C compiler (cc) on PATH")
    directory.mkdir(parents=True, exist_ok=True)
    library = directory / "clock.so"
    subprocess.run(
        [compiler, "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", library, CLOCK_SOURCE, "-ldl"],
        check=True,
        timeout=60,
    )
    return library
