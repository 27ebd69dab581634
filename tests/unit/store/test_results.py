"""Results as they lie in Redis: fields, JSON, names of keys."""

from __future__ import annotations

import base64
import json
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.events import KIND_NAMES, MAX_SESSION_BYTES
from streamer.result import Result, ranges
from streamer.store.results import Keys

# JSON carries what a model says; text is UTF-8, so without lone surrogates
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
sessions = text.filter(lambda name: 0 < len(name.encode()) <= MAX_SESSION_BYTES)
times = st.integers(0, 7_258_118_400_000_000)
shares = st.floats(0, 1)
said: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False), text
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(text, inner, max_size=3)),
    max_leaves=8,
)
offsets = st.lists(st.tuples(st.integers(0, 2**62), st.integers(0, 2**62)), max_size=3).map(tuple)
results = st.builds(
    Result,
    session=sessions,
    start_us=times,
    end_us=times,
    closed_by=st.sampled_from(["complete", "deadline", "end", "memory"]),
    present=st.lists(st.sampled_from(KIND_NAMES), unique=True).map(tuple),
    coverage=st.dictionaries(st.sampled_from(KIND_NAMES), shares),
    members=st.dictionaries(text, offsets, max_size=4),
    outputs=st.dictionaries(text, said, max_size=3),
    embedding=st.binary(max_size=32),
    model=text,
    version=text,
    status=st.sampled_from(["ok", "partial", "failed", "empty"]),
    latencies_us=st.dictionaries(text, st.integers(0, 2**53), max_size=4),
    final=st.booleans(),
)
RESULT = Result(
    session="räume/7",
    start_us=1_000_000,
    end_us=2_000_000,
    closed_by="complete",
    present=("image", "text"),
    coverage={"image": 0.5},
    members={"streamer.frames": ((3, 5), (9, 9))},
    outputs={"action": {"label": "stop", "score": 0.75}},
    embedding=b"\x00\x3c\xff\x00",
    model="driving",
    version="1-abc",
    status="ok",
    latencies_us={"total": 1234},
)


def as_stored(result: Result) -> dict[bytes, bytes]:
    return {name.encode(): value for name, value in result.to_fields().items()}


@given(results)
def test_what_is_stored_is_read_back(result: Result) -> None:
    assert Result.from_fields(as_stored(result)) == result


def test_fields_are_plain_to_any_reader_of_redis() -> None:
    assert RESULT.to_fields() == {
        "id": "räume/7/2000000".encode(),
        "session": "räume/7".encode(),
        "start_us": b"1000000",
        "end_us": b"2000000",
        "closed_by": b"complete",
        "present": b"image,text",
        "coverage": b'{"image":0.5}',
        "members": b'{"streamer.frames":[[3,5],[9,9]]}',
        "outputs": b'{"action":{"label":"stop","score":0.75}}',
        "embedding": b"\x00\x3c\xff\x00",
        "model": b"driving",
        "version": b"1-abc",
        "status": b"ok",
        "latencies_us": b'{"total":1234}',
        "novelty": b"{}",
        "final": b"true",
    }


def test_a_field_of_a_newer_version_is_passed_over() -> None:
    assert Result.from_fields(as_stored(RESULT) | {b"mood": b"good"}) == RESULT


def test_results_from_before_there_were_early_ones_are_final() -> None:
    fields = as_stored(RESULT)
    del fields[b"final"]
    assert Result.from_fields(fields) == RESULT


@pytest.mark.parametrize("name", sorted(set(RESULT.to_fields()) - {"id", "novelty", "final"}))
def test_fields_without_one_of_a_results_are_none(name: str) -> None:
    fields = as_stored(RESULT)
    del fields[name.encode()]
    with pytest.raises(ValueError, match=r"^not a result: ") as wrong:
        Result.from_fields(fields)
    assert name in str(wrong.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"end_us", b"soon"),
        (b"start_us", b""),
        (b"session", b"\xff"),
        (b"present", b"\xff"),
        (b"coverage", b"{"),
        (b"coverage", b'{"image": "half"}'),
        (b"members", b'{"frames": [[1]]}'),
        (b"outputs", b"[]"),
        (b"latencies_us", b'{"total": 0.5}'),
    ],
)
def test_fields_that_do_not_parse_are_no_result(name: bytes, value: bytes) -> None:
    with pytest.raises(ValueError, match=r"^not a result: "):
        Result.from_fields(as_stored(RESULT) | {name: value})


@given(results)
def test_json_is_one_line_with_everything_but_the_embedding(result: Result) -> None:
    line = result.to_json()
    assert b"\n" not in line
    plain = json.loads(line)
    assert plain.pop("id") == f"{result.session}/{result.end_us}"
    assert msgspec.convert(plain | {"embedding": base64.b64encode(result.embedding).decode()}, Result) == result


def test_the_embedding_is_base64_where_it_is_wanted() -> None:
    assert json.loads(RESULT.to_json(embedding=True))["embedding"] == "ADz/AA=="
    assert "embedding" not in json.loads(RESULT.to_json())


def test_offsets_become_inclusive_ranges() -> None:
    assert ranges([]) == ()
    assert ranges([7]) == ((7, 7),)
    assert ranges([5, 3, 9, 4]) == ((3, 5), (9, 9))


@given(st.sets(st.integers(0, 60)))
def test_ranges_hold_exactly_the_offsets_and_are_as_few_as_can_be(offsets: set[int]) -> None:
    found = ranges(offsets)
    assert [o for first, last in found for o in range(first, last + 1)] == sorted(offsets)
    assert all(last + 1 < first for (_, last), (first, _) in pairwise(found))


@given(sessions, sessions)
def test_sessions_never_share_a_key_and_each_has_one_hash_tag(one: str, other: str) -> None:
    keys = Keys("p")
    mine = [keys.results(one), keys.latest(one), keys.state(one), keys.closings(one)]
    assert len({*mine, keys.sessions, keys.channel}) == 6
    # Redis Cluster hashes what stands between the first { and the } after it
    tags = {key.partition("{")[2].partition("}")[0] for key in mine}
    assert len(tags) == 1
    assert all(key.count("{") == key.count("}") == 1 and key.isascii() for key in mine)
    assert (one == other) == (keys.results(one) == keys.results(other))
