"""What the doctor reports of topics with replicas, of brokers that are away, and of clocks that differ."""

from __future__ import annotations

from time import time
from typing import Any

import pytest
from kafka import TopicPartition

from streamer.broker.topics import LOG_APPEND_TIME, Topic
from streamer.operate import kafka_checks
from streamer.operate.findings import Finding, Status
from streamer.operate.leader_clocks import Clock, Watched
from streamer.settings import Settings

ALL = {1, 2, 3}
PLACE = TopicPartition("frames", 0)


def topic(replicas: int, min_in_sync: int, name: str = "frames") -> Topic:
    return Topic(name, 1, LOG_APPEND_TIME, 1 << 20, -1, replicas, min_in_sync)


def partition(replicas: set[int], in_sync: set[int], leader: int) -> dict[str, Any]:
    return {"replica_nodes": sorted(replicas), "isr_nodes": sorted(in_sync), "leader_id": leader}


def replication(
    found: Topic, described: dict[str, Any] | None = None, present: set[int] = ALL
) -> list[tuple[Status, str, str]]:
    described = described or partition({*range(1, found.replicas + 1)}, {*range(1, found.replicas + 1)}, 1)
    findings = kafka_checks.replication([found], {PLACE: described}, present)
    return [(finding.status, finding.found, finding.remedy) for finding in findings]


@pytest.mark.parametrize(("replicas", "min_in_sync"), [(3, 2), (2, 1)])
def test_topics_as_topics_create_makes_them_are_right(replicas: int, min_in_sync: int) -> None:
    assert replication(topic(replicas, min_in_sync)) == [
        (Status.OK, f"3 brokers, {replicas} replicas, all in sync", "")
    ]


def test_one_replica_is_right_where_there_is_one_broker() -> None:
    assert replication(topic(1, 1), present={1}) == [(Status.OK, "1 broker, 1 replica", "")]


@pytest.mark.parametrize(
    ("replicas", "min_in_sync", "says", "remedy"),
    [
        (1, 1, "one replica, although there are 3 brokers", "kafka-reassign-partitions"),
        (3, 1, "what one broker alone acknowledged may be lost", "--add-config min.insync.replicas=2"),
        (3, 3, "one broker away stops all producers", "--add-config min.insync.replicas=2"),
        (2, 2, "one broker away stops all producers", "--add-config min.insync.replicas=1"),
    ],
)
def test_replicas_that_do_not_serve_are_a_warning(replicas: int, min_in_sync: int, says: str, remedy: str) -> None:
    ((status, found, how),) = replication(topic(replicas, min_in_sync))
    assert status is Status.WARN
    assert says in found
    assert "frames" in found
    assert remedy in how


def test_topics_with_the_same_fault_are_one_finding() -> None:
    found = [topic(3, 1, name) for name in ("frames", "audio")] + [topic(3, 2, "text")]
    described = {PLACE: partition(ALL, ALL, 1)}
    (finding,) = kafka_checks.replication(found, described, ALL)
    assert finding.found.endswith(": frames, audio")


def test_a_broker_that_is_away_or_behind_is_named() -> None:
    ((status, found, remedy),) = replication(topic(3, 2), partition(ALL, {1, 2}, 1), present={1, 2})
    assert (status, remedy) == (Status.WARN, "start it")
    assert found == "broker 3 is away: 1 of 1 partitions lack this replica"
    ((status, found, _),) = replication(topic(3, 2), partition(ALL, {1, 2}, 1))
    assert (status, found) == (Status.WARN, "broker 3 is not in sync: 1 of 1 partitions lack this replica")


def test_partitions_that_refuse_records_are_counted() -> None:
    away_2, away_3, refusing = replication(topic(3, 2), partition(ALL, {1}, 1), present={1})
    assert (away_2[1].split(":")[0], away_3[1].split(":")[0]) == ("broker 2 is away", "broker 3 is away")
    assert refusing[0] is Status.WARN
    assert refusing[1].startswith("1 partitions have fewer replicas in sync than min.insync.replicas")


def test_a_partition_without_a_leader_stands_still() -> None:
    findings = replication(topic(1, 1), partition({3}, {3}, -1), present={1, 2})
    assert any(
        status is Status.WARN and "frames 0" in found and "no leader" in found and "start the brokers" in how
        for status, found, how in findings
    )
    assert findings[-1][2].endswith(": 3")


# clocks


def clock(least_s: float, most_s: float, records: int = 50) -> Clock:
    return Clock(records, least_s, most_s)


AGREES, QUIET = clock(-0.004, 0.012), Clock()
AHEAD, BEHIND = clock(0.3, 0.32), clock(-0.33, -0.3)


def of_clocks(*clocks: Clock, newest_s: float | None = None, **settings: Any) -> list[Finding]:
    newest = {PLACE: time() - 60 if newest_s is None else newest_s}
    return list(kafka_checks.clocks(Watched(dict(enumerate(clocks, 1)), newest), Settings.load(**settings)))


def test_clocks_that_agree_fit_the_default() -> None:
    agree, mode = of_clocks(AGREES, AGREES)
    assert agree.status is mode.status is Status.OK
    assert agree.found == (
        "no clock of brokers 1, 2 differs from this machine's by more than 20 ms (seen to within 16 ms)"
    )
    assert mode.found == "merge_proof=replicas with merge_slack_ms=20 fits these clocks"


@pytest.mark.parametrize(
    ("wrong", "says", "enough_ms"),
    [
        (AHEAD, "broker 2's clock is at least 300 ms ahead of this machine's", 320),
        (BEHIND, "broker 2's clock is at least 300 ms behind this machine's", 330),
    ],
)
def test_a_clock_that_differs_by_more_than_the_slack_is_a_warning(wrong: Clock, says: str, enough_ms: int) -> None:
    differs, agrees, mode = of_clocks(AGREES, wrong)
    assert (differs.status, differs.found, differs.remedy) == (Status.WARN, says, "run NTP on both")
    assert agrees.status is Status.OK
    assert agrees.found.startswith("no clock of broker 1 differs")
    assert mode.status is Status.WARN
    for remedy in ("NTP", f"STREAMER_MERGE_SLACK_MS={enough_ms},", "STREAMER_MERGE_PROOF=ticks", "right to write"):
        assert remedy in mode.remedy


def test_the_slack_that_is_named_is_enough() -> None:
    for wrong, enough_ms in ((AHEAD, 320), (BEHIND, 330)):
        findings = of_clocks(wrong, merge_slack_ms=enough_ms)
        assert {finding.status for finding in findings} == {Status.OK}


def test_ticks_fit_clocks_that_differ_but_not_by_seconds() -> None:
    assert {finding.status for finding in of_clocks(AHEAD, BEHIND, merge_proof="ticks")} == {Status.OK}
    differs, mode = of_clocks(clock(3.0, 3.1), merge_proof="ticks")
    assert (differs.status, mode.status) == (Status.WARN, Status.OK)


def test_clocks_that_were_not_judged_are_no_warning() -> None:
    agree, quiet, mode = of_clocks(AGREES, QUIET)
    assert {agree.status, quiet.status, mode.status} == {Status.OK}
    assert quiet.found == "too few records came in 2 s to judge the clock of broker 2"
    assert mode.found.endswith("fits if no clock differs by more")


def test_without_any_record_no_clock_is_checked() -> None:
    findings = list(kafka_checks.clocks(Watched({1: QUIET}, {}), Settings.load()))
    assert [finding.status for finding in findings] == [Status.OK] * 2
    assert findings[0].found.startswith("Kafka holds no record yet")


def test_a_record_of_the_future_is_a_warning_although_no_new_one_came() -> None:
    _, stamped, mode = of_clocks(QUIET, newest_s=time() + 30)
    assert stamped.status is mode.status is Status.WARN
    assert "frames 0 has a record stamped" in stamped.found


def test_a_role_that_merges_nothing_needs_no_mode() -> None:
    assert [finding.status for finding in of_clocks(AGREES, role="infer")] == [Status.OK]
