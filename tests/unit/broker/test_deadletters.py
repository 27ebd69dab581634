"""Letters: the record untouched, with headers that say why and from where."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from streamer.broker import deadletters
from streamer.broker.deadletters import KafkaMessage, Letter
from streamer.clients.batches import FAULT, FIRST_OFFSET, LAST_OFFSET
from streamer.errors import Reason, UsageError
from streamer.events import HEADER_BYTES, RECORD_BYTES, Record
from streamer.settings import Settings

OWN = (("ce_id", b"1"), ("x", b"\xff"), ("x", b"twice"))
RECORD = Record(
    row=1, partition=7, offset=42, log_time_us=1_700_000_000_123_000, key=b"car", value=b"\x00v", headers=OWN
)
ORIGIN = ("deadletter_origin", b"streamer.audio/7/42/1700000000123000")


def message(letter: Letter) -> KafkaMessage:
    return KafkaMessage(letter.key, letter.value, list(letter.headers))


def test_a_dead_letter_is_the_record_with_why_and_from_where() -> None:
    letter = deadletters.dead_letter(RECORD, Reason.BAD_PAYLOAD, "odd bytes – 3", "streamer.audio")
    assert (letter.key, letter.value) == (b"car", b"\x00v")
    assert letter.headers == (
        *OWN,
        ("deadletter_reason", b"bad_payload"),
        ("deadletter_detail", "odd bytes – 3".encode()),
        ORIGIN,
    )


def test_a_late_record_says_how_late_and_from_where() -> None:
    letter = deadletters.late(RECORD, 1_500, "streamer.audio")
    assert (letter.key, letter.value) == (b"car", b"\x00v")
    assert letter.headers == (*OWN, ("late_by_us", b"1500"), ORIGIN)


def test_a_detail_is_cut_and_always_encodes() -> None:
    letter = deadletters.dead_letter(RECORD, Reason.BAD_JSON, "\udcff" + "x" * 5000, "t")
    detail = dict(letter.headers)["deadletter_detail"]
    assert detail == b"?" + b"x" * (deadletters.DETAIL_MAX - 1)


def test_a_letter_too_large_for_its_topic_keeps_all_but_its_value() -> None:
    letter = deadletters.dead_letter(RECORD, Reason.BAD_PAYLOAD, "", "streamer.audio")
    short = letter.without_value()
    assert (short.key, short.value) == (b"car", b"")
    assert short.headers == (*letter.headers, ("deadletter_truncated_bytes", b"2"))


def test_a_letter_is_read_back_with_the_reason_that_was_given_last() -> None:
    again = Record(
        0, 1, 2, 3, None, b"abc", deadletters.dead_letter(RECORD, Reason.BAD_JSON, "old", "old.topic").headers
    )
    letter = deadletters._parsed(message(deadletters.dead_letter(again, Reason.NO_KEY, "new", "a/b.frames")))
    assert letter == deadletters.DeadLetter(
        reason="no_key",
        detail="new",
        topic="a/b.frames",
        partition=1,
        offset=2,
        log_time_us=3,
        key=None,
        ce_id="1",
        ce_type=None,
        size_bytes=3,
    )


def test_a_letter_for_a_batch_tells_its_offsets_and_cannot_be_sent_back() -> None:
    headers = ((FAULT, b"lz4: it ends early"), (FIRST_OFFSET, b"11"), (LAST_OFFSET, b"17"))
    settings = Settings.load()
    topic = settings.source_topics[0]
    record = Record(0, 1, 17, 3, None, b"batch", headers)
    made = deadletters.dead_letter(record, Reason.UNREADABLE_BATCH, "lz4: it ends early", topic)
    assert made.bare().headers == made.headers  # they all say what the letter is about
    letter = deadletters._parsed(message(made))
    assert letter == deadletters.DeadLetter(
        reason="unreadable_batch",
        detail="lz4: it ends early",
        topic=topic,
        partition=1,
        offset=17,
        log_time_us=3,
        key=None,
        ce_id=None,
        ce_type=None,
        size_bytes=5,
        first_offset=11,
    )
    assert not deadletters._can_return(letter, settings)
    assert deadletters._can_return(msgspec.structs.replace(letter, first_offset=None), settings)


def test_a_record_s_headers_do_not_hide_its_letter() -> None:
    headers = ((FIRST_OFFSET, b"7"), ("deadletter_truncated_bytes", b"many"))
    record = Record(0, 1, 17, 3, b"car", b"value", headers)
    letter = deadletters._parsed(message(deadletters.dead_letter(record, Reason.BAD_JSON, "", "t")))
    assert letter is not None
    assert (letter.first_offset, letter.truncated, letter.size_bytes) == (None, False, 5)


def test_a_truncated_letter_tells_the_size_of_what_is_not_there() -> None:
    short = deadletters.dead_letter(RECORD, Reason.BAD_PAYLOAD, "", "t").without_value()
    letter = deadletters._parsed(message(short))
    assert letter is not None
    assert (letter.truncated, letter.size_bytes) == (True, 2)


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("deadletter_reason", b"no_key")],
        [("deadletter_reason", b"no_key"), ("deadletter_detail", b""), ("deadletter_origin", b"nowhere")],
        [("deadletter_reason", b"no_key"), ("deadletter_detail", b""), ("deadletter_origin", b"t/1/x/3")],
        [("deadletter_reason", b"no_key"), ("deadletter_detail", b""), ("deadletter_origin", None)],
        [("deadletter_detail", b""), ("deadletter_origin", b"t/1/2/3")],
    ],
)
def test_what_somebody_else_put_on_the_topic_is_no_letter(headers: list[tuple[str, bytes]]) -> None:
    assert deadletters._parsed(KafkaMessage(b"k", b"v", headers)) is None


def test_a_header_without_a_value_has_no_length_and_goes_along() -> None:
    headers: Any = (("empty", None), ("ce_id", b"1"))
    record = Record(0, 0, 0, 0, b"k", b"v", headers)
    assert record.nbytes == 1 + len("empty") + len("ce_id1") + RECORD_BYTES + 2 * HEADER_BYTES
    assert deadletters.dead_letter(record, Reason.BAD_HEADER, "", "t").headers[:2] == headers


@pytest.mark.parametrize(
    "call", [lambda s: list(deadletters.read(s, "nonsense")), lambda s: deadletters.requeue(s, "")]
)
def test_a_reason_that_there_is_not_is_refused_before_anything_is_asked(call: object) -> None:
    nowhere = Settings.load(kafka="127.0.0.1:1")
    with pytest.raises(UsageError, match=r"^no reason '(nonsense)?'; there are: no_key, bad_key, .*unreadable_batch$"):
        call(nowhere)  # type: ignore[operator]
