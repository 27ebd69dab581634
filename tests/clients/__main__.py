"""What clients of other languages send as they are, and what the decoder says: ``python -m tests.clients [CLIENT …]``.

Builds each client's program in a temporary folder, lets it send the same events to an embedded Kafka, reads them back
and decodes them. Writes the table of ``docs/clients.md``; ``--print`` only prints it. A client that cannot be built
here keeps no row of figures: it is listed with the reason.
"""

from __future__ import annotations

import argparse
import base64
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from streamer.align.decode import Decoder
from streamer.broker import topics
from streamer.errors import BadRecord
from streamer.events import AUDIO, END_TYPE, IMAGE, KINDS, TELEMETRY, TEXT, Record
from streamer.local.stack import Stack
from streamer.settings import Settings
from tests.harness import jpeg, read_topic

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "clients.md"
START, END = "<!-- clients: written by `make clients` -->", "<!-- /clients -->"
PARTITIONS = 6
KEYS = ("car-7", "car-8", "cab-10", "drone-21", "Gerät-ü")  # the last one has bytes above 127
BUILD_S, SEND_S, ARRIVE_S = 1200, 180, 10
MAX_MESSAGE_BYTES = 8 << 20


class Way(NamedTuple):
    """One way to use a client: the argument of its program, and the option or call in words."""

    argument: str
    words: str


class Client(NamedTuple):
    """A client library, and a program in a folder here that sends by it.

    Attributes:
        builds: Commands that install pinned packages, in a copy of the folder.
        run: The program; broker, file of messages and way are added.
        ways: Each becomes a row.
    """

    name: str
    folder: str
    tool: str
    builds: tuple[str, ...]
    run: str
    ways: tuple[Way, ...]


PYTHON = ("python3 -m venv venv", "venv/bin/pip install --quiet --disable-pip-version-check -r requirements.txt")
NODE = "$(dirname $(dirname $(readlink -f $(command -v node))))"  # its own headers, for clients that are compiled
NPM = (f"npm install --no-audit --no-fund --nodedir={NODE}",)
GO = ("go build -o send .",)
JARS = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
JAVA = (f"mvn -q -B {JARS} -DoutputDirectory=jars", "javac -cp 'jars/*' -d classes Send.java")
CARGO = ("cargo build --quiet --release",)

SDK_KEY = "`partitionkey` for the key"
CLIENTS = (
    Client("kafka-python 3.0.12", "python", "python3", PYTHON, "venv/bin/python send.py", (Way("kafka-python", "—"),)),
    Client("aiokafka 0.14.0", "python", "python3", PYTHON, "venv/bin/python send.py", (Way("aiokafka", "—"),)),
    Client(
        "confluent-kafka 2.16.1 (Python, librdkafka)",
        "python",
        "python3",
        PYTHON,
        "venv/bin/python send.py",
        (Way("confluent", "—"), Way("murmur2", "`partitioner=murmur2_random`")),
    ),
    Client(
        "cloudevents 2.2.0 (Python) with confluent-kafka",
        "python",
        "python3",
        PYTHON,
        "venv/bin/python send.py",
        (
            Way("murmur2+binary", f"`to_binary`, {SDK_KEY}, `partitioner=murmur2_random`"),
            Way("murmur2+structured", "`to_structured`, the rest as above"),
        ),
    ),
    Client(
        "kafkajs 2.2.4",
        "node",
        "npm",
        NPM,
        "node send.js",
        (Way("default", "—"), Way("legacy", "`Partitioners.LegacyPartitioner`")),
    ),
    Client(
        "cloudevents 10.0.0 (JavaScript) with kafkajs",
        "node",
        "npm",
        NPM,
        "node send.js",
        (
            Way("default+binary", f"`Kafka.binary`, {SDK_KEY}, JSON as objects, headers as they come"),
            Way("default+text", "the same, JSON as a `Buffer`, headers without `undefined` and as texts"),
            Way("default+structured", f"`Kafka.structured`, {SDK_KEY}"),
        ),
    ),
    Client(
        "@confluentinc/kafka-javascript 1.10.1 (librdkafka)",
        "node_confluent",
        "npm",
        NPM,
        "node send.js",
        (Way("default", "—"), Way("murmur2", '`partitioner: "murmur2_random"`')),
    ),
    Client(
        "node-rdkafka 3.6.1 (librdkafka)",
        "node_rdkafka",
        "npm",
        NPM,
        "node send.js",
        (Way("default", "—"), Way("murmur2", '`"partitioner": "murmur2_random"`')),
    ),
    Client(
        "segmentio/kafka-go 0.4.51",
        "go",
        "go",
        GO,
        "./send",
        (
            Way("kafka-go", "—"),
            Way("kafka-go:hash", "`Balancer: &kafka.Hash{}`"),
            Way("kafka-go:murmur2", "`Balancer: kafka.Murmur2Balancer{}`, `RequiredAcks: kafka.RequireAll`"),
        ),
    ),
    Client(
        "IBM/sarama 1.61.1",
        "go",
        "go",
        GO,
        "./send",
        (Way("sarama", "—"), Way("sarama:murmur2", "`Producer.Partitioner = sarama.NewMurmur2Partitioner`")),
    ),
    Client("twmb/franz-go 1.22.3", "go", "go", GO, "./send", (Way("franz-go", "—"),)),
    Client(
        "cloudevents/sdk-go 2.16.2, kafka_sarama",
        "go",
        "go",
        GO,
        "./send",
        (
            Way("sdk", f"{SDK_KEY}"),
            Way("sdk:murmur2", f"{SDK_KEY}, `sarama.NewMurmur2Partitioner`"),
            Way("sdk:murmur2+structured", "`binding.WithForceStructured`, the rest as above"),
        ),
    ),
    Client(
        "Apache kafka-clients 4.3.1 (Java)",
        "java",
        "mvn",
        JAVA,
        "java -cp classes:jars/* Send",
        (Way("plain", "—"),),
    ),
    Client(
        "cloudevents-kafka 4.0.1 (Java)",
        "java",
        "mvn",
        JAVA,
        "java -cp classes:jars/* Send",
        (
            Way("sdk", "`CloudEventSerializer`, key of the `ProducerRecord`"),
            Way("sdk-structured", "the same, `cloudevents.serializer.encoding=STRUCTURED`"),
        ),
    ),
    Client(
        "spring-kafka 4.1.1 (Java)",
        "java",
        "mvn",
        JAVA,
        "java -cp classes:jars/* Send",
        (
            Way("spring", "`KafkaTemplate`, a `Message` with texts as headers, `ByteArraySerializer`"),
            Way("spring-types", "the same, `OffsetDateTime` and `Integer` as headers"),
            Way("spring-quoted", "the same, texts, `setEncodeStrings(true)` of its `JsonKafkaHeaderMapper`"),
            Way("spring-json", "texts as headers, `JacksonJsonSerializer` for the bytes"),
        ),
    ),
    Client(
        "rdkafka 0.38.0 (Rust, librdkafka)",
        "rust",
        "cargo",
        CARGO,
        "target/release/send",
        (Way("plain", "—"), Way("plain-murmur2", "`partitioner=murmur2_random`")),
    ),
    Client(
        "cloudevents-sdk 0.9.0 (Rust) with rdkafka",
        "rust",
        "cargo",
        CARGO,
        "target/release/send",
        (
            Way("sdk-murmur2", "`MessageRecord::from_event`, `partitioner=murmur2_random`"),
            Way("sdk-murmur2-structured", "`StructuredDeserializer`, the rest as above"),
        ),
    ),
)
NOT_TRIED = {"Confluent.Kafka (.NET)": "dotnet"}


class Build(NamedTuple):
    """A client's folder with its packages, or why there is none."""

    folder: Path | None
    failure: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clients", nargs="*", help="parts of their names; all if none is given")
    parser.add_argument("--print", action="store_true", help="print the table, leave the page as it is")
    parser.add_argument("--keep", type=Path, help="build here, and take what an earlier run built here")
    given = parser.parse_args()
    chosen = [c for c in CLIENTS if not given.clients or any(part in c.name for part in given.clients)]
    if given.clients and not given.print:
        parser.error("the page has all clients; add --print")
    with tempfile.TemporaryDirectory() as temporary:
        lines = []
        for line in rows(chosen, given.keep or Path(temporary), Path(temporary)):
            print(line, flush=True)
            lines.append(line)
    if not given.print:
        table = "\n".join(lines)
        before, rest = PAGE.read_text("utf-8").split(START)
        PAGE.write_text(f"{before}{START}\n\n{table}\n\n{END}{rest.split(END)[1]}", "utf-8")


def rows(chosen: Sequence[Client], builds: Path, work: Path) -> Iterator[str]:
    """The lines of the table."""
    yield "| client | options | of 25 events | no key | empty key | dead letters |"
    yield "|---|---|---|---|---|---|"
    made: dict[str, Build] = {}
    with Stack(work / "stack", MAX_MESSAGE_BYTES) as stack:
        settings = Settings.load(kafka=stack.kafka_address, partitions=PARTITIONS)
        topics.create(settings)
        numbers = itertools.count()
        for client in chosen:
            if client.folder not in made:
                made[client.folder] = build(client, builds)
            folder, failure = made[client.folder]
            if folder is None:
                yield f"| {client.name} | — | not run | | | {failure} |"
                continue
            for way in client.ways:
                print(f"{client.name}: {way.argument}", file=sys.stderr)
                yield row(client, way, folder, messages(settings, next(numbers)), settings)
    for name, tool in NOT_TRIED.items():
        if shutil.which(tool) is None:
            yield f"| {name} | — | not run | | | `{tool}` is not installed |"


def build(client: Client, builds: Path) -> Build:
    """Install what a client's program needs, in a copy of its folder."""
    if shutil.which(client.tool) is None:
        return Build(None, f"`{client.tool}` is not installed")
    folder = builds / client.folder
    shutil.copytree(HERE / client.folder, folder, dirs_exist_ok=True)
    built = folder / ".built"
    if built.exists():
        return Build(folder)
    for command in client.builds:
        print(f"{client.folder}: {command}", file=sys.stderr)
        try:
            done = subprocess.run(["sh", "-c", command], cwd=folder, capture_output=True, text=True, timeout=BUILD_S)
        except subprocess.TimeoutExpired:
            return Build(None, f"`{command}` took more than {BUILD_S} s")
        if done.returncode:
            print(done.stdout[-3000:], done.stderr[-3000:], file=sys.stderr)
            return Build(None, f"`{command.split(' --')[0]}` failed here: {cause(done.stdout + done.stderr)}")
    built.touch()
    return Build(folder)


def cause(output: str) -> str:
    """The line of a failed command's output that gives a reason, the last of several, without addresses."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    reasons = [line for line in lines if re.search(r"reason: \S|fatal error: |^error", line)]
    said = (reasons or lines or ["no output"])[-1]
    return re.sub(r"\S*://\S+|(?<=ENOTFOUND )\S+", "…", said)


def messages(settings: Settings, number: int) -> list[dict[str, Any]]:
    """A right event of each kind under each key, then a frame without a key and one with an empty key.

    Args:
        number: In their ids, which differ from run to run: a client may send after its program has ended.
    """
    pcm = (np.sin(np.arange(1600) / 9) * 9000).astype(">i2").tobytes()
    block = {"channels": {"speed": {"unit": "m/s", "values": [10.0, 10.5]}}, "rate_hz": 20.0}
    kinds = (
        ("frame", IMAGE, KINDS[IMAGE].ce_type, "image/jpeg", jpeg()),
        ("audio", AUDIO, KINDS[AUDIO].ce_type, "audio/L16;rate=16000;channels=1", pcm),
        ("words", TEXT, KINDS[TEXT].ce_type, "application/json", json.dumps({"text": "straight on"}).encode()),
        ("block", TELEMETRY, KINDS[TELEMETRY].ce_type, "application/json", json.dumps(block).encode()),
        ("end", TELEMETRY, END_TYPE, "application/json", b""),
    )
    sent: list[tuple[str, str | None, Any]] = [
        (f"{number}-{k[0]}-{n}", key, k) for n, key in enumerate(KEYS) for k in kinds
    ]
    sent += [(f"{number}-no-key", None, kinds[0]), (f"{number}-empty-key", "", kinds[0])]
    made = []
    for sequence, (event_id, key, (_, topic, ce_type, content_type, payload)) in enumerate(sent):
        attributes = {"id": event_id, "source": "/devices/7", "type": ce_type, "time": datetime.now(UTC).isoformat()}
        headers = {"ce_specversion": "1.0"} | {f"ce_{name}": text for name, text in attributes.items()}
        headers |= {"ce_sequence": str(sequence), "content-type": content_type}
        own = {"topic": settings.source_topics[topic], "key": key, "data": base64.b64encode(payload).decode()}
        made.append(attributes | own | {"contentType": content_type, "sequence": sequence, "headers": headers})
    return made


def row(client: Client, way: Way, folder: Path, given: list[dict[str, Any]], settings: Settings) -> str:
    """Send, read back, decode, and say what became of it."""
    file = folder / "messages.json"
    file.write_text(json.dumps(given), "utf-8")
    command = [*client.run.split(), settings.kafka, str(file), way.argument]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SEND_S, env=environment)
    if done.returncode:
        raise SystemExit(f"{client.name}, {way.argument}: {done.stdout[-2000:]}{done.stderr[-4000:]}")
    refused = dict(line.split("\t", 1) for line in done.stdout.splitlines())
    outcomes = {event_id: f"the client refuses it: {words}" for event_id, words in refused.items()}
    decoder = Decoder(settings, PARTITIONS)
    ids = [message["id"] for message in given]
    deadline = time.monotonic() + ARRIVE_S
    while len(outcomes) < len(ids) and time.monotonic() < deadline:
        outcomes |= {event_id: outcome(decoder, record) for event_id, record in arrived(settings, set(ids))}
    return table_row(client, way, [outcomes.get(event_id, "never came") for event_id in ids])


def arrived(settings: Settings, ids: set[str]) -> Iterator[tuple[str, Record]]:
    """Records whose event has one of the ids, wherever the client put it."""
    for row, topic in enumerate(settings.source_topics):
        for got in read_topic(settings, topic):
            headers, value = tuple(got.headers), got.value or b""
            texts = {(text or b"").decode(errors="replace").strip('"') for _, text in headers}
            found = ids & texts or {event_id for event_id in ids if f'"{event_id}"'.encode() in value}
            for event_id in found:
                yield event_id, Record(row, got.partition, got.offset, got.timestamp * 1000, got.key, value, headers)


def outcome(decoder: Decoder, record: Record) -> str:
    """``right``, or the reason and the words of the dead letter."""
    try:
        decoder.decode(record)
    except BadRecord as error:
        return f"`{error.reason}`: {error.detail}"
    return "right"


def table_row(client: Client, way: Way, outcomes: Sequence[str]) -> str:
    """A line, from what became of the messages in order; words that differ only in numbers are quoted once."""
    *keyed, without, empty = outcomes
    first: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for found in keyed:
        if found != "right":
            kind = re.sub(r"\d+", "0", found)
            first.setdefault(kind, found)
            counts[kind] += 1
    letters = "<br>".join(f"{count} × {first[kind]}" for kind, count in counts.items()).replace("|", "\\|")
    reasons = f"{without.partition(':')[0]} | {empty.partition(':')[0]}"
    return f"| {client.name} | {way.words} | {keyed.count('right')} right | {reasons} | {letters} |"


if __name__ == "__main__":
    main()
