"""Recordings: what was written is read back in merge order, whatever it is and wherever the file was cut off."""

from __future__ import annotations

import contextlib
from pathlib import Path

import mcap.reader
import msgspec
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from streamer.errors import UsageError
from streamer.events import KIND_NAMES
from streamer.golden import recording
from streamer.golden.recording import About, Recorded, Writer

ABOUT = About(
    kinds=KIND_NAMES,
    topics=("t.frames", "t.audio", "t.transcripts", "t.telemetry"),
    partitions=3,
    first_offsets=((5, 0, 7),) * 4,
    start_us=(1_000, 0, 2_000),
    sessions=("räume/7",),
)
T_US = 1_780_000_000_000_000

headers = st.lists(st.tuples(st.text(max_size=12), st.none() | st.binary(max_size=12)), max_size=4).map(tuple)
bare = st.tuples(
    st.integers(0, 3),
    st.integers(0, 2),
    st.integers(-3, 20),  # ms to the record before: brokers' clocks may step back
    st.none() | st.binary(max_size=12),
    st.none() | st.binary(max_size=300),
    headers,
)


def records_of(drawn: list[tuple[int, int, int, bytes | None, bytes | None, object]]) -> list[Recorded]:
    found: list[Recorded] = []
    offsets: dict[tuple[int, int], int] = {}
    time_us = T_US
    for row, partition, step_ms, key, value, names in drawn:
        offset = offsets[row, partition] = offsets.get((row, partition), 4_294_967_290) + 1 + (step_ms > 15)
        time_us += step_ms * 1000
        found.append(Recorded(row, partition, offset, time_us, key, value, names))  # type: ignore[arg-type]
    return found


def merged(records: list[Recorded]) -> list[Recorded]:
    """By log time, but never past an older offset of the same partition."""
    newest: dict[tuple[int, int], int] = {}
    keyed = []
    for r in records:
        newest[r.row, r.partition] = max(r.log_time_us, newest.get((r.row, r.partition), 0))
        keyed.append((newest[r.row, r.partition], r.row, r.partition, r.offset, r))
    return [r for *_, r in sorted(keyed, key=lambda item: item[:4])]


def write(path: Path, records: list[Recorded], end_us: int | None = T_US) -> None:
    with Writer(path, ABOUT, force=True) as writer:
        for record in records:
            writer.write(record)
        if end_us is not None:
            writer.end(end_us)


@given(drawn=st.lists(bare, max_size=60), chunk_bytes=st.sampled_from([1, 200, 1 << 20]))
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_what_is_written_is_read_back_in_merge_order(
    drawn: list[tuple[int, int, int, bytes | None, bytes | None, object]],
    chunk_bytes: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recording, "CHUNK_BYTES", chunk_bytes)
    path, records = tmp_path / "r.mcap", records_of(drawn)
    write(path, records)
    assert list(recording.read(path)) == merged(records)
    assert recording.describe(path) == msgspec.structs.replace(ABOUT, end_us=T_US)
    assert recording.is_recording(path)


@given(drawn=st.lists(bare, min_size=20, max_size=40), share=st.floats(0, 1))
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_file_that_was_cut_off_anywhere_is_read_up_to_there(
    drawn: list[tuple[int, int, int, bytes | None, bytes | None, object]],
    share: float,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recording, "CHUNK_BYTES", 200)
    path, records = tmp_path / "r.mcap", records_of(drawn)
    write(path, records)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    if not recording.is_recording(path):
        assert len(whole) * share < 60
        return
    try:
        about = recording.describe(path)
    except UsageError:
        assert len(whole) * share < 1500  # the metadata that say what it is
        return
    assert about.end_us in (None, T_US)
    found = list(recording.read(path))
    assert found == merged(records[: len(found)])


def test_records_of_partitions_that_ran_apart_come_in_merge_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "CHUNK_BYTES", 1000)
    one = [Recorded(0, 0, i, T_US + i * 1000, b"a", b"x" * 50, ()) for i in range(200)]
    other = [Recorded(1, 0, i, T_US + i * 1000, b"a", b"x" * 50, ()) for i in range(200)]
    write(tmp_path / "r.mcap", one + other)
    found = [(r.log_time_us, r.row) for r in recording.read(tmp_path / "r.mcap")]
    assert found == sorted(found)
    assert len(found) == 400
    assert recording.span_us(tmp_path / "r.mcap") == (T_US, T_US + 199_000)


def test_any_reader_of_mcap_finds_topics_times_and_untouched_payloads(tmp_path: Path) -> None:
    payload = bytes(range(256))
    write(tmp_path / "r.mcap", [Recorded(1, 2, 7, T_US, b"car", payload, (("ce_id", b"1"), ("x", None)))])
    with (tmp_path / "r.mcap").open("rb") as file:
        reader = mcap.reader.make_reader(file, validate_crcs=True)
        assert reader.get_header().profile == "streamer"
        ((schema, channel, message),) = reader.iter_messages()
    assert schema is not None
    assert (schema.name, channel.topic, channel.metadata) == ("streamer.Record", "t.audio", {"modality": "audio"})
    assert (message.log_time, message.publish_time, message.sequence) == (T_US * 1000, T_US * 1000, 7)
    assert msgspec.msgpack.decode(message.data) == {
        "partition": 2,
        "offset": 7,
        "key": b"car",
        "headers": [["ce_id", b"1"], ["x", None]],
        "value": payload,
    }
    assert payload in message.data


def test_an_error_in_the_middle_leaves_a_whole_file_that_counts_as_cut_off(tmp_path: Path) -> None:
    records = records_of([(0, 0, 1, b"a", b"x", ())] * 5)
    with contextlib.suppress(RuntimeError), Writer(tmp_path / "r.mcap", ABOUT) as writer:
        for record in records:
            writer.write(record)
        raise RuntimeError
    assert list(recording.read(tmp_path / "r.mcap")) == records
    assert recording.describe(tmp_path / "r.mcap").end_us is None


def test_a_file_that_is_there_is_replaced_only_by_force(tmp_path: Path) -> None:
    (tmp_path / "r.mcap").write_text("mine")
    with pytest.raises(UsageError, match="is there already; --force"):
        Writer(tmp_path / "r.mcap", ABOUT)
    assert (tmp_path / "r.mcap").read_text() == "mine"
    write(tmp_path / "r.mcap", [])
    assert recording.is_recording(tmp_path / "r.mcap")
    with pytest.raises(UsageError, match="cannot write"):
        Writer(tmp_path / "no" / "r.mcap", ABOUT)


@pytest.mark.parametrize("content", [b"", b"hello", recording.MAGIC, recording.MAGIC + b"\1" + b"\xff" * 8])
def test_other_files_are_no_recordings(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    assert not recording.is_recording(path)
    with pytest.raises(UsageError, match="is no recording of `streamer record`"):
        recording.describe(path)


def test_an_mcap_file_of_another_tool_is_no_recording(tmp_path: Path) -> None:
    with (tmp_path / "x.mcap").open("wb") as file:
        writer = mcap.writer.Writer(file)
        writer.start(profile="ros2")
        writer.finish()  # type: ignore[no-untyped-call]  # mcap has no types here
    assert not recording.is_recording(tmp_path / "x.mcap")
    assert not recording.is_recording(tmp_path / "none.mcap")
    with pytest.raises(UsageError, match="is no recording"):
        list(recording.read(tmp_path / "x.mcap"))
    with pytest.raises(UsageError, match=r"cannot read .*none.mcap: No such file"):
        recording.describe(tmp_path / "none.mcap")


def test_damage_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "r.mcap"
    write(path, records_of([(0, 0, 1, b"a", b"payload" * 9, ())] * 50))
    content = bytearray(path.read_bytes())
    place = content.index(b"zstd") + 60
    content[place] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"r\.mcap is damaged at byte \d+"):
        list(recording.read(path))
