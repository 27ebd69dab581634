"""Both clients read every batch, or one record that stands for it, and go on after it."""

import inspect
import re
import struct
from collections.abc import Callable, Sequence
from typing import Any

import hypothesis.strategies as st
import kafka
import pytest
from aiokafka.consumer import fetcher as aiokafka_fetcher
from aiokafka.record.default_records import DefaultRecordBatch as AiokafkaBatch
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.structs import TopicPartition
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from kafka.consumer import fetcher as kafka_python_fetcher
from kafka.record import MemoryRecords

from streamer.clients.batches import (
    CHECKSUM_TRIES,
    EXPANSION,
    FAULT,
    FIRST_OFFSET,
    HEADER,
    LAST_OFFSET,
    Batches,
    Reading,
    limit_bytes,
    unreadable,
)
from streamer.clients.kafka import _PartitionRecords
from streamer.settings import Settings
from tests.broker import as_stored, batch_with

LIMIT_BYTES = 1 << 20
FRAMES = TopicPartition("frames", 3)
CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
FIRST, SECOND, THIRD = ([b"a" * 300, b"b"], [b"c", b"d", b"e"], [b"f"])

Read = Callable[..., tuple[list[Any], int]]  # of an answer: records, and the offset to fetch from next


def by_aiokafka(answer: bytes, from_offset: int = 0, reading: Reading | None = None) -> tuple[list[Any], int]:
    reading = reading or Reading(LIMIT_BYTES)
    parts = aiokafka_fetcher.PartitionRecords(FRAMES, None, [], from_offset, None, None, False, 1)
    parts._records = Batches(answer, tuple(FRAMES), from_offset, AiokafkaBatch, reading, reading.budget())
    return list(parts), parts.next_fetch_offset


def by_kafka_python(answer: bytes, from_offset: int = 0, reading: Reading | None = None) -> tuple[list[Any], int]:
    reading = reading or Reading(LIMIT_BYTES)
    place = kafka.TopicPartition(*FRAMES)
    committed = kafka_python_fetcher.IsolationLevel.READ_COMMITTED
    parts = _PartitionRecords(reading, from_offset, place, MemoryRecords(answer), isolation_level=committed)
    return parts.take(), parts.next_fetch_offset


@pytest.fixture(params=[by_aiokafka, by_kafka_python], ids=["aiokafka", "kafka-python"])
def read(request: pytest.FixtureRequest) -> Read:
    found: Read = request.param
    return found


def values(records: Sequence[Any]) -> list[bytes]:
    return [record.value for record in records]


def place_of(stand_in: Any) -> tuple[int, int, int]:
    """Its offset, and the first and last offset that it stands for."""
    headers = dict(stand_in.headers)
    return stand_in.offset, int(headers[FIRST_OFFSET]), int(headers[LAST_OFFSET])


every_codec = pytest.mark.parametrize("codec", CODECS)
compressed = pytest.mark.parametrize("codec", [name for name in CODECS if name != "none"])


@every_codec
def test_each_codec_is_read_with_all_that_a_record_has(codec: str, read: Read) -> None:
    answer = batch_with(FIRST, CODECS[codec]) + batch_with(SECOND, CODECS[codec], base_offset=2)
    records, next_offset = read(answer)
    assert next_offset == 5
    assert [
        (record.offset, record.timestamp, record.key, record.value, tuple(record.headers)) for record in records
    ] == [
        (offset, 1_000 + (offset if offset < 2 else offset - 2), b"car", value, (("ce_type", b"frame"),))
        for offset, value in enumerate(FIRST + SECOND)
    ]


@every_codec
def test_reading_may_begin_within_a_batch_and_the_last_one_may_be_cut_off(codec: str, read: Read) -> None:
    answer = batch_with(FIRST, CODECS[codec]) + batch_with(SECOND, CODECS[codec], base_offset=2)
    records, next_offset = read(answer[:-1], from_offset=1)
    assert (values(records), next_offset) == ([b"b"], 2)


@compressed
@pytest.mark.parametrize("damage", ["bytes", "codec"])
def test_a_batch_that_cannot_be_read_is_one_record_and_the_partition_goes_on(
    codec: str, damage: str, read: Read
) -> None:
    whole = batch_with(SECOND, CODECS[codec], base_offset=2)
    broken = {
        "bytes": as_stored(whole, HEADER.size, b"\xee" * (len(whole) - HEADER.size)),
        "codec": as_stored(whole, 22, b"\x07"),
    }[damage]
    records, next_offset = read(batch_with(FIRST) + broken + batch_with(THIRD, base_offset=5))
    assert next_offset == 6
    assert values(records) == [*FIRST, broken, *THIRD]
    stand_in = records[2]
    assert place_of(stand_in) == (4, 2, 4)
    assert (stand_in.key, stand_in.timestamp) == (None, 1_002)
    said = unreadable(stand_in.headers)
    assert said is not None
    assert said.startswith({"bytes": f"{codec}: ", "codec": "codec 7 is unknown"}[damage])
    assert [unreadable(record.headers) for record in records if record is not stand_in] == [None] * 3


def test_records_in_front_of_a_broken_one_are_read(read: Read) -> None:
    whole = batch_with(SECOND, base_offset=2)
    broken = as_stored(whole, whole.index(b"car", whole.index(b"car") + 1) - 1, b"\x7f")  # the second key's length
    records, next_offset = read(broken + batch_with(THIRD, base_offset=5))
    assert (values(records), next_offset) == ([b"c", broken, *THIRD], 6)
    assert place_of(records[1]) == (4, 3, 4)
    assert unreadable(records[1].headers) == "record 1 of 3 ends -18 bytes from where it should"


@pytest.mark.parametrize(("delta", "offset"), [(b"\x01", 1), (b"\x06", 5)])
def test_an_offset_that_is_not_of_the_batch_hides_no_record(delta: bytes, offset: int, read: Read) -> None:
    whole = batch_with(SECOND, base_offset=2)
    broken = as_stored(whole, HEADER.size + 3, delta)  # behind the record's length, attributes and time
    records, next_offset = read(broken + batch_with(THIRD, base_offset=5))
    assert (values(records), next_offset) == ([broken, *THIRD], 6)
    assert place_of(records[0]) == (4, 2, 4)
    assert unreadable(records[0].headers) == f"a record has the offset {offset}, where 2 to 4 can be"


@pytest.mark.parametrize("count", [2, 4])
def test_a_wrong_count_of_records_hides_none_and_takes_no_other_batch_s_offset(count: int, read: Read) -> None:
    broken = as_stored(batch_with(SECOND, base_offset=2), HEADER.size - 4, struct.pack(">i", count))
    records, next_offset = read(broken + batch_with(THIRD, base_offset=5))
    assert [record.offset for record in records] == [2, 3, 4, 5]
    assert [unreadable(record.headers) is None for record in records] == [True, True, count == 4, True]
    assert next_offset == 6


@compressed
def test_a_batch_that_unpacks_to_more_than_the_limit_is_one_record_too(codec: str, read: Read) -> None:
    large = batch_with([bytes(LIMIT_BYTES // 4)] * 5, CODECS[codec])
    records, next_offset = read(large + batch_with(THIRD, base_offset=5))
    assert (next_offset, values(records)) == (6, [large, *THIRD])
    assert place_of(records[0]) == (4, 0, 4)
    assert unreadable(records[0].headers) == f"{codec}: it unpacks to more than {LIMIT_BYTES} bytes"


@compressed
def test_an_answer_unpacks_little_more_than_the_limit_and_the_rest_is_fetched_again(codec: str, read: Read) -> None:
    large = [bytes(LIMIT_BYTES // 3)] * 2
    answer = b"".join(batch_with(large, CODECS[codec], base_offset=2 * number) for number in range(4))
    records, next_offset = read(answer)
    assert (values(records), next_offset) == (2 * large, 4)
    records, next_offset = read(answer[len(answer) // 2 :], from_offset=4)
    assert (values(records), next_offset) == (2 * large, 8)


def test_a_wrong_checksum_is_fetched_again_before_it_is_believed(read: Read) -> None:
    broken = bytearray(batch_with(SECOND, base_offset=2))
    broken[-1] ^= 1
    answer, reading = bytes(batch_with(FIRST) + broken + batch_with(THIRD, base_offset=5)), Reading(LIMIT_BYTES)
    assert read(answer, 0, reading) == read(batch_with(FIRST))
    for _ in range(CHECKSUM_TRIES - 2):
        assert read(answer[-len(broken) - len(batch_with(THIRD)) :], 2, reading) == ([], 2)
    records, next_offset = read(answer[-len(broken) - len(batch_with(THIRD)) :], 2, reading)
    assert (values(records), next_offset) == ([bytes(broken), *THIRD], 6)
    assert place_of(records[0]) == (4, 2, 4)
    assert records[0].timestamp == 0  # the checksum covers it
    assert unreadable(records[0].headers) == "its checksum is wrong"
    again, _ = read(answer[-len(broken) - len(batch_with(THIRD)) :], 2, Reading(LIMIT_BYTES))
    assert again == []  # another consumer asks again itself


def test_one_good_copy_is_enough(read: Read) -> None:
    whole, reading = batch_with(FIRST), Reading(LIMIT_BYTES)
    assert read(whole[:-1] + b"\xff", 0, reading) == ([], 0)
    assert values(read(whole, 0, reading)[0]) == FIRST


def test_where_a_batch_ends_is_not_believed_to_a_wrong_checksum(read: Read) -> None:
    """Its last offset is in what the checksum covers; without a next batch, an offset at a time is passed."""
    broken, reading = bytearray(batch_with(SECOND, base_offset=2)), Reading(LIMIT_BYTES)
    broken[23:27] = struct.pack(">i", 1 << 30)
    for _ in range(CHECKSUM_TRIES - 1):
        assert read(bytes(broken), 2, reading) == ([], 2)
    for offset in (2, 3, 4):
        records, next_offset = read(bytes(broken), offset, reading)
        assert [place_of(record) for record in records] == [(offset, 2, offset)]
        assert next_offset == offset + 1


@pytest.mark.parametrize("length", [-5, 0, 3, 40])
def test_a_length_that_no_batch_has_stops_nothing(length: int, read: Read) -> None:
    broken = bytearray(batch_with(FIRST))
    broken[8:12] = struct.pack(">i", length)
    reading = Reading(LIMIT_BYTES)
    for _ in range(CHECKSUM_TRIES - 1):
        assert read(bytes(broken), 0, reading) == ([], 0)
    records, next_offset = read(bytes(broken), 0, reading)
    suffix = " in Kafka's format 2" if length == 40 else ""
    assert unreadable(records[0].headers) == f"a length of {length} bytes{suffix}"
    assert next_offset > 0


@pytest.mark.parametrize("magic", [0, 1])
def test_messages_from_before_kafka_0_11_are_set_aside(magic: int, read: Read) -> None:
    builder = LegacyRecordBatchBuilder(magic, 0, 1 << 16)
    builder.append(9, 1_234, b"car", b"jpeg")
    records, next_offset = read(bytes(builder.build()) + batch_with(THIRD, base_offset=10), 9)
    assert place_of(records[0]) == (9, 9, 9)
    assert records[0].timestamp == (1_234 if magic else 0)
    assert unreadable(records[0].headers) == (
        f"messages in Kafka's format {magic}, from before version 0.11, have no headers"
    )
    assert (values(records[1:]), next_offset) == (THIRD, 11)


@every_codec
def test_the_name_of_a_header_need_not_be_utf_8(codec: str, read: Read) -> None:
    """Kafka takes any bytes; both clients raise at these, before they hand out the record."""
    plain = batch_with([b"a", b"b", b"c"])
    assert plain.count(b"ce_type") == 3
    second = plain.index(b"ce_type", plain.index(b"ce_type") + 1)
    odd = as_stored(plain, second, b"ce_\xff\xfepe")
    builder_codec = CODECS[codec]
    if builder_codec:
        packed = batch_with([b"x"], builder_codec)
        packers = {1: "gzip", 2: "snappy", 3: "lz4", 4: "zstd"}
        pack = getattr(__import__("kafka.codec", fromlist=["codec"]), f"{packers[builder_codec]}_encode")
        odd = as_stored(plain[: HEADER.size] + pack(odd[HEADER.size :]), 21, packed[21:23])
    records, next_offset = read(odd)
    assert (values(records), next_offset) == ([b"a", b"b", b"c"], 3)
    assert [record.timestamp for record in records] == [1_000, 1_001, 1_002]
    assert [list(record.headers) for record in records] == [
        [("ce_type", b"frame")],
        [("ce_��pe", b"frame")],
        [("ce_type", b"frame")],
    ]


@compressed
def test_an_unreadable_batch_of_an_aborted_transaction_is_never_seen(codec: str) -> None:
    whole = batch_with(SECOND, CODECS[codec], is_transactional=True)
    broken = as_stored(whole, HEADER.size, b"\xee" * (len(whole) - HEADER.size))
    reading = Reading(LIMIT_BYTES)
    parts = aiokafka_fetcher.PartitionRecords(FRAMES, None, [(7, 0)], 0, None, None, False, 1)
    parts._records = Batches(
        broken + batch_with(THIRD, base_offset=3), tuple(FRAMES), 0, AiokafkaBatch, reading, reading.budget()
    )
    assert (values(list(parts)), parts.next_fetch_offset) == (THIRD, 4)


changes = st.lists(
    st.tuples(st.integers(0, 999), st.integers(0, 255) | st.sampled_from([0x7F, 0x80, 0xFF])), min_size=1, max_size=3
)


@hypothesis_settings(max_examples=500, deadline=None)
@given(st.sampled_from(sorted(CODECS.values())), st.lists(st.binary(max_size=40), min_size=1, max_size=4), changes)
def test_both_clients_read_the_same_of_any_bytes_and_lose_no_offset(
    codec: int, payloads: list[bytes], changed: list[tuple[int, int]]
) -> None:
    whole = batch_with(payloads, codec, base_offset=2)
    for at, byte in changed:
        whole = as_stored(whole, HEADER.size + at % (len(whole) - HEADER.size), bytes([byte]))
    end = 2 + len(payloads)
    answer = batch_with(FIRST) + whole + batch_with(THIRD, base_offset=end)
    found = []
    for read in (by_aiokafka, by_kafka_python):
        records, next_offset = read(answer)
        offsets = [record.offset for record in records]
        assert offsets == sorted(set(offsets))
        assert (values(records[:2]), values(records[-1:]), next_offset) == (FIRST, THIRD, end + 1)
        if any(unreadable(record.headers) is not None for record in records):
            offset, first_offset, last_offset = place_of(records[-2])
            assert offsets == [*range(first_offset), offset, end]
            assert offset == last_offset == end - 1
        found.append([(r.offset, r.timestamp, r.key, r.value, tuple(map(tuple, r.headers))) for r in records])
    assert found[0] == found[1]


def test_the_clients_ask_a_batch_for_nothing_else() -> None:
    of_aiokafka = inspect.getsource(aiokafka_fetcher.PartitionRecords)
    of_kafka_python = inspect.getsource(kafka_python_fetcher.Fetcher.PartitionRecords)
    asked = {
        attribute
        for name, source in ((r"next_batch", of_aiokafka), (r"(?:last_)?batch", of_kafka_python))
        for attribute in re.findall(rf"(?<!_)\b{name}\.([a-z]\w*)", source)
    }
    assert {"is_control_batch", "producer_id", "next_offset", "has_producer_id"} <= asked
    reading = Reading(LIMIT_BYTES)
    given = Batches(batch_with(FIRST), tuple(FRAMES), 0, AiokafkaBatch, reading, reading.budget()).next_batch()
    assert {name for name in asked if not hasattr(given, name)} == {"validate_crc"}  # not where check_crcs is off


def test_the_limit_follows_from_the_largest_message() -> None:
    settings = Settings(max_message_bytes=100_000)
    assert limit_bytes(settings) == EXPANSION * 100_000 == 800_000
    assert FAULT == "unreadable_batch"
