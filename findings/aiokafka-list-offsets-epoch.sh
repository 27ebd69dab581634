#!/usr/bin/env bash
# aiokafka 0.14.0: OffsetRequest_v4 and _v5 (Kafka's ListOffsets with the current leader epoch, KIP-320) encode
# current_leader_epoch as int64; Kafka's message format has int32 (ListOffsetsRequest.json, as kafka-python 3.0.12 ships
# it). Four bytes too many a partition: a broker would read the epoch as 0, and a timestamp that nobody gave. aiokafka
# itself stops at version 3, so only those who use its protocol classes for a newer request meet it.
#
# Seen on Python 3.11:
#   aiokafka      41 bytes  ffffffff 00 … 00000003 0000000000000007 ffffffffffffffff
#   kafka-python  37 bytes  ffffffff 00 … 00000003 00000007 ffffffffffffffff
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check aiokafka==0.14.0 kafka-python==3.0.12
mkdir "$folder/work" && cd "$folder/work"
"$folder/venv/bin/python" - <<'PYTHON'
import aiokafka
import kafka
from aiokafka.protocol.offset import OffsetRequest_v4, OffsetRequest_v5
from kafka.protocol.consumer.offsets import ListOffsetsRequest

Topic, Partition = ListOffsetsRequest.ListOffsetsTopic, ListOffsetsRequest.ListOffsetsTopic.ListOffsetsPartition
print("aiokafka", aiokafka.__version__, "kafka-python", kafka.__version__)
for version, struct in ((4, OffsetRequest_v4), (5, OffsetRequest_v5)):
    theirs = struct(-1, 0, [("frames", [(3, 7, -1)])]).encode()
    partition = Partition(version=version, partition_index=3, current_leader_epoch=7, timestamp=-1)
    topic = Topic(version=version, name="frames", partitions=[partition])
    right = ListOffsetsRequest(version=version, replica_id=-1, isolation_level=0, topics=[topic]).encode(version=version)
    print(f"version {version}: aiokafka {len(theirs)} bytes {theirs.hex()}")
    print(f"version {version}: kafka-python {len(right)} bytes {right.hex()}")
    head = right[: right.index(b"frames") + 6 + 4 + 4]  # up to the partition's number
    assert theirs.startswith(head), "the two differ elsewhere too"
    assert right == head + (7).to_bytes(4) + b"\xff" * 8
    assert theirs == head + (7).to_bytes(8) + b"\xff" * 8, "aiokafka has changed"
print("as described")
PYTHON
