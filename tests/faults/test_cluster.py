"""Three brokers, every partition on all of them, and their faults: the windows are those of the log.

Each scenario starts workers, sends a feed of sparse text and dying sensors in real time, so that partitions are idle
again and again, and does something to the brokers. Then three must agree: what the workers published live, what a
worker publishes that reads the same log from its start while nothing happens, and what the verifier works out.
``make faults-cluster`` runs all, ``make faults`` those of ``SHORT``; one: ``STREAMER_TEST_FAULTS=full pytest
tests/faults/test_cluster.py -k NAME``.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
from kafka import KafkaProducer

from streamer.broker import topics as topic_admin
from streamer.events import TELEMETRY, TEXT
from streamer.local.stack import Stack
from streamer.settings import Settings
from streamer.worker.intake import SEND_S
from tests import harness
from tests.faults import handovers, rig, verifier
from tests.faults.cluster import BROKERS, OFFSETS, SESSION_TIMEOUT_MS, Broker, Cluster, fill
from tests.faults.feed import Car, Feed, feeding
from tests.faults.rig import FULL, MAX_MESSAGE_BYTES, Supervised
from tests.faults.standstill import watched
from tests.faults.verifier import Rules, Snapshot
from tests.harness import wait_for
from tests.monitor import monitoring

pytestmark = [
    pytest.mark.integration,
    pytest.mark.faults,
    pytest.mark.skipif(not FULL, reason="at length only"),
]

Say = Callable[[object], None]
NewSettings = Callable[..., Settings]

PARTITIONS = 6
SLACK_MS = 250  # the suite's usual, see rig.new_settings
STALL_S = 6.0  # short of the time for which a dead broker counts as alive
DISK_BYTES = 256 << 20


@pytest.fixture(scope="module")
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three brokers; the parameter is their session timeout in ms."""
    with Cluster(tmp_path_factory.mktemp("cluster"), MAX_MESSAGE_BYTES, request.param) as brokers:
        yield brokers


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a Redis that stays up."""
    stack = Stack(tmp_path_factory.mktemp("results"), MAX_MESSAGE_BYTES)
    stack.start_redis()
    yield stack.redis_url
    stack.stop()


@dataclass
class Run:
    """A scenario while it runs.

    Attributes:
        running: What ends with it.
        disks: Brokers' file systems that may be filled, by node.
        workers: Those of now.
        started: All that there were.
        slowest_start_s: The longest that one of those which took another's place needed to be ready.
    """

    scenario: Scenario
    cluster: Cluster
    settings: Settings
    folder: Path
    running: ExitStack
    disks: dict[int, Path] = field(default_factory=dict)
    workers: list[Supervised] = field(default_factory=list)
    started: list[Supervised] = field(default_factory=list)
    slowest_start_s: float = 0.0

    def why(self) -> str:
        return "\n".join(worker.why() for worker in self.workers)

    def new_worker(self, number: int) -> Supervised:
        """Start the worker with this number, or the next one with it; it takes a while to be ready."""
        instance = {"instance_id": f"worker-{number}"} if self.scenario.instance_ids else {}
        log = self.folder / f"worker-{len(self.started)}.log"
        role = self.scenario.roles[number]
        worker = self.running.enter_context(rig.supervised(self.settings, log, role=role, **instance))
        self.started.append(worker)
        return worker

    def replace_worker(self, number: int) -> Supervised:
        """Start the next worker with this number and wait until it is ready."""
        began_s = time.monotonic()
        self.workers[number] = self.new_worker(number).wait_ready()
        self.slowest_start_s = max(self.slowest_start_s, time.monotonic() - began_s)
        return self.workers[number]

    @property
    def outage_s(self) -> float:
        """Past the time for which a dead broker counts as alive."""
        return self.cluster.session_timeout_ms / 1000 + 6

    def flows(self, more: int = 15) -> None:
        """Wait for this many more results."""
        rig.wait_for_more(self.settings, more, 120, self.why)

    def leader(self, but: int = 0) -> Broker:
        """The broker that leads the first partition of the first topic that another one than ``but`` leads."""
        leaders = self.cluster.leaders(self.settings.source_topics)
        return self.cluster.brokers[next(node for _, node in sorted(leaders.items()) if node != but)]

    def back(self, *nodes: int) -> None:
        """Start brokers that have ended, and wait until all is as before."""
        self.cluster.start(*nodes)
        self.cluster.wait_whole()
        self.flows()


def spread(settings: Settings) -> Callable[[str, int], int]:
    """Every broker leads some partitions of every topic; which, differs by topic."""
    return turned(settings, 0)


def turned(settings: Settings, steps: int) -> Callable[[str, int], int]:
    """The same, with every leader ``steps`` brokers further."""
    names = list(settings.source_topics)
    return lambda topic, partition: BROKERS[(names.index(topic) + partition + steps) % len(BROKERS)]


# what happens


def rolling_restart(run: Run) -> None:
    for broker in run.cluster.brokers.values():
        broker.stop()
        run.back(broker.node)


def follower_stalls(run: Run) -> None:
    """One that leads nothing, and is not the active controller, whose loss would be another fault."""
    cluster = run.cluster
    node = next(node for node in reversed(BROKERS) if node != cluster.controller())
    others = [other for other in BROKERS if other != node]
    cluster.lead(every_topic(run), lambda topic, partition: others[(len(topic) + partition) % len(others)])
    run.flows()
    for _ in range(2):
        with cluster.brokers[node].paused():
            time.sleep(STALL_S)
        run.flows(30)


def every_topic(run: Run) -> list[str]:
    """Those of the scenario, and the groups' offsets."""
    return [OFFSETS, *topic_names(run.settings)]


def topic_names(settings: Settings) -> list[str]:
    side = [settings.topic(name) for name in ("windows", "late", "deadletter")]
    return [*settings.source_topics, *side]


def coordinator_killed(run: Run) -> None:
    node = run.cluster.coordinator(run.settings.group)
    run.cluster.brokers[node].kill()
    time.sleep(run.outage_s)
    run.back(node)


def leader_killed(run: Run) -> None:
    broker = run.leader(but=run.cluster.coordinator(run.settings.group))
    broker.kill()
    time.sleep(run.outage_s)
    run.back(broker.node)


def leader_stands_still(run: Run) -> None:
    """SIGSTOP, past the session timeout: others lead, and it comes back believing that it still does."""
    broker = run.leader(but=run.cluster.coordinator(run.settings.group))
    with broker.paused():
        time.sleep(run.outage_s)
    run.back(broker.node)


def leader_is_gone_for_long(run: Run) -> None:
    """As when a machine loses its power: no connection ends, and what was sent is never acknowledged."""
    broker = run.leader(but=run.cluster.coordinator(run.settings.group))
    with broker.paused():
        time.sleep(run.outage_s + 2 * SEND_S)
        run.flows()
    run.back(broker.node)


def leaders_move(run: Run) -> None:
    for steps in range(1, 5):
        run.cluster.lead(run.settings.source_topics, turned(run.settings, steps))
        run.flows()


def leaders_move_and_workers_die(run: Run) -> None:
    """A restart reads on where records are stamped below what is committed."""
    for steps in range(1, 5):
        run.cluster.lead(run.settings.source_topics, turned(run.settings, steps))
        run.workers[0].kill()
        run.flows()


def transactions_are_open(run: Run) -> None:
    """Words are in transactions of seconds, which end well or badly; meanwhile leaders move, and a worker dies."""
    settings = run.settings
    producer = KafkaProducer(bootstrap_servers=settings.kafka, transactional_id=settings.group, acks="all")
    try:
        producer.init_transactions()
        for number in range(4):
            producer.begin_transaction()
            now_us, words = time.time_ns() // 1000, b'{"text": "stop at the line", "start": 0.0, "end": 0.5}'
            for k in range(PARTITIONS):
                spoken = harness.record(settings, TEXT, f"car-41-{k}", now_us, words, "application/json")
                producer.send(spoken.topic, key=spoken.key, value=spoken.value, headers=spoken.headers)
            producer.flush(timeout=30)
            run.cluster.lead(settings.source_topics, turned(settings, number + 1))
            if number == 2:
                run.workers[0].kill()
            time.sleep(3)
            if number % 2:
                producer.abort_transaction()
            else:
                producer.commit_transaction()
            run.flows()
    finally:
        producer.close()


def one_topic_on_a_slow_broker(run: Run) -> None:
    node = BROKERS[-1]
    topic = run.settings.source_topics[TELEMETRY]
    run.cluster.lead([topic], lambda _, partition: node)
    with run.cluster.brokers[node].slow():
        time.sleep(20)
    run.cluster.wait_whole()


def disks_are_full(run: Run) -> None:
    """A broker ends when it cannot write; the last ones may have nothing to write any more."""
    ballast = [fill(disk) for disk in run.disks.values()]
    wait_for(lambda: not all(run.cluster.brokers[node].runs for node in run.disks), 60)
    time.sleep(run.outage_s)
    for file in ballast:
        file.unlink()
    run.back()


def rolling_update(run: Run) -> None:
    """A worker with an identity ends before the next one with it starts; else the next one is ready before it ends."""
    for number, old in enumerate(list(run.workers)):
        old.note_violations()
        if run.scenario.instance_ids:
            old.stop()
            run.replace_worker(number)
        else:
            run.replace_worker(number)
            old.stop()
        run.flows()


def nothing(run: Run) -> None:
    """The scenario is in the set-up."""
    time.sleep(25)


@dataclass(frozen=True)
class Played:
    """What was seen while a scenario went on.

    Attributes:
        standstill: How long there were no results, in words.
    """

    feed: Feed
    snapshot: Snapshot
    standstill: str


@dataclass(frozen=True)
class Scenario:
    """A line of the table.

    Attributes:
        happens: While the workers work.
        roles: Of the workers; each is one process.
        instance_ids: The workers have one each.
        slack_ms: ``merge_slack_ms``.
        settings: Others.
        connections, acks: Of the feed.
        away: A broker that is not there, from before the workers start until the end.
        clock_ms: How far the clock of the last broker is ahead.
        disks: Brokers whose data are on a small file system each.
        session_timeout_ms: ``broker.session.timeout.ms``.
    """

    name: str
    happens: Callable[[Run], None]
    roles: tuple[str, ...] = ("all",)
    instance_ids: bool = False
    slack_ms: int = SLACK_MS
    settings: Mapping[str, Any] = field(default_factory=dict)
    connections: int = 1
    acks: str | int = "all"
    away: int | None = None
    clock_ms: int = 0
    disks: tuple[int, ...] = ()
    session_timeout_ms: int = SESSION_TIMEOUT_MS


TWO, FOUR = ("all",) * 2, ("all",) * 4
ROLES = ("align", "infer")
# Windows are those of the log whatever the brokers' clocks are.
EXACT: dict[str, Any] = {"merge_proof": "ticks"}
SCENARIOS = [
    Scenario("rolling-restart", rolling_restart),
    Scenario("follower-stalls", follower_stalls, slack_ms=100),
    Scenario("coordinator-killed-2-workers", coordinator_killed, TWO),
    Scenario("leader-killed", leader_killed),
    Scenario("leader-killed-2-workers", leader_killed, TWO),
    Scenario("leaders-move", leaders_move),
    Scenario("leader-stands-still", leader_stands_still),
    Scenario("leader-is-gone-for-long-ticks", leader_is_gone_for_long, settings=EXACT),
    Scenario("one-of-three-away", nothing, away=BROKERS[-1]),
    Scenario("one-topic-on-a-slow-broker", one_topic_on_a_slow_broker),
    Scenario("transactions", transactions_are_open),
    Scenario("transactions-ticks", transactions_are_open, settings=EXACT),
    Scenario("clock-behind-within-slack", leaders_move, clock_ms=-150),
    Scenario("clock-behind-300-ms", leaders_move, clock_ms=-300, settings=EXACT),
    Scenario("clock-behind-3-s", leaders_move, clock_ms=-3000, settings=EXACT),
    Scenario("clock-behind-3-s-worker-killed", leaders_move_and_workers_die, clock_ms=-3000, settings=EXACT),
    Scenario("clock-behind-3-s-align-killed", leaders_move_and_workers_die, ROLES, clock_ms=-3000, settings=EXACT),
    Scenario("clock-ahead-3-s", leaders_move, clock_ms=3000, settings=EXACT),
    Scenario("follower-stalls-many-connections", follower_stalls, slack_ms=100, connections=12),
    Scenario("follower-stalls-acks-1", follower_stalls, slack_ms=100, acks=1),
    Scenario("leader-killed-many-connections", leader_killed, connections=12),
    Scenario("leader-killed-acks-1", leader_killed, acks=1),
    Scenario("leader-killed-short-session", leader_killed, session_timeout_ms=3000),
    Scenario("a-full-disk", disks_are_full, disks=BROKERS[-1:]),
    Scenario("all-disks-full", disks_are_full, disks=BROKERS),
    Scenario("rolling-update", rolling_update, FOUR),
    Scenario("rolling-update-instance-ids", rolling_update, FOUR, instance_ids=True),
    Scenario("rolling-restart-both-roles", rolling_restart, ROLES),
    Scenario("leader-killed-both-roles", leader_killed, ROLES),
]
SHORT = {"follower-stalls", "leader-killed-short-session"}  # a minute each, and the first faults that were found


def fleet(seed: int) -> list[Car]:
    """A car for each partition, or nearly. Four lose a sensor on the way.

    Of each another sensor comes 400 ms late, so that at any moment there are windows which wait for it.
    """
    dying = {1: ("telemetry", 8.0), 2: ("audio", 12.0), 3: ("camera_rear", 10.0), 4: ("image", 20.0)}
    lagging = ("audio", "image", "telemetry", "cabin_mic")
    return [
        Car(f"car-{seed}-{k}", seed * 100 + k, dies=dying.get(k), lags=(lagging[k % len(lagging)], 400.0))
        for k in range(PARTITIONS)
    ]


@pytest.fixture
def settings_of(cluster: Cluster, results: str, model_folder: Path) -> Iterator[NewSettings]:
    """Makes settings whose topics exist, each partition on all brokers; the brokers run and agree before and after."""
    made: list[Settings] = []

    def make(**given: Any) -> Settings:
        values = {"kafka": cluster.bootstrap, "redis": results, "replication": 3, "partitions": PARTITIONS}
        settings = rig.new_settings(model=model_folder, **values | given)
        made.append(settings)
        topic_admin.create(settings)
        if settings.replication > 1:
            cluster.lead(settings.source_topics, spread(settings))
        cluster.wait_whole()
        return settings

    at_peace(cluster)
    yield make
    at_peace(cluster)
    with cluster.admin() as client:
        for settings in made:
            client.delete_topics(topic_names(settings))


def at_peace(cluster: Cluster) -> None:
    for broker in cluster.brokers.values():
        broker.resume()
    cluster.start()
    for node in BROKERS:
        cluster.set_clock(node, 0)
    cluster.wait_whole()


@pytest.mark.parametrize(
    ("scenario", "cluster"),
    [
        pytest.param(
            scenario,
            scenario.session_timeout_ms,
            id=scenario.name,
            marks=[] if scenario.name in SHORT else pytest.mark.cluster,
        )
        for scenario in SCENARIOS
    ],
    indirect=["cluster"],
)
def test_the_windows_are_those_of_the_log(
    scenario: Scenario, cluster: Cluster, settings_of: NewSettings, tmp_path: Path, say: Say
) -> None:
    settings = settings_of(merge_slack_ms=scenario.slack_ms, **scenario.settings)
    with ExitStack() as running:
        run = Run(scenario, cluster, settings, tmp_path, running)
        say(judged(run, played(run)))


@pytest.mark.cluster
@pytest.mark.parametrize("cluster", [SESSION_TIMEOUT_MS], indirect=True)
def test_an_order_that_no_proof_without_ticks_can_keep_is_counted(
    cluster: Cluster, settings_of: NewSettings, tmp_path: Path, say: Say
) -> None:
    """Alerts depend on it: a leader whose clock is 3 s behind stamps below what alignment was given."""
    scenario = Scenario("clock-behind-3-s-by-default", leaders_move, slack_ms=0, clock_ms=-3000)
    settings = settings_of(merge_slack_ms=scenario.slack_ms)
    with ExitStack() as running:
        run = Run(scenario, cluster, settings, tmp_path, running)
        played(run)
        wait_until_over(run)
        counted = violations(run)
        say(f"{counted:.0f} violations counted; {verifier.differences(verifier.read(settings), Rules.of(settings))}")
        assert counted > 0


@pytest.mark.cluster
@pytest.mark.parametrize("cluster", [SESSION_TIMEOUT_MS], indirect=True)
@pytest.mark.parametrize("clock_ms", [0, -3000], ids=["right-clocks", "clock-behind-3-s"])
def test_the_alert_fires_where_clocks_differ_and_not_where_leaders_only_move(
    clock_ms: int, cluster: Cluster, settings_of: NewSettings, tmp_path: Path, say: Say
) -> None:
    scenario = Scenario("alert", leaders_move, slack_ms=SLACK_MS if clock_ms == 0 else 0, clock_ms=clock_ms)
    settings = settings_of(merge_slack_ms=scenario.slack_ms)
    with ExitStack() as running:
        monitor = running.enter_context(monitoring(tmp_path))
        run = Run(scenario, cluster, settings, tmp_path, running)
        played(run, lambda: monitor.watch(*(worker.worker.port for worker in run.workers)))
        wait_until_over(run)
        wait_for(lambda: monitor.scraped() == len(run.workers), 30)
        time.sleep(3)  # the last counts are scraped, and the rules evaluated
        say(f"{violations(run):.0f} violations counted; fired: {', '.join(sorted(monitor.fired())) or 'nothing'}")
        assert ("StreamerMergeOrderViolations" in monitor.fired()) == (clock_ms != 0)


@pytest.mark.cluster
@pytest.mark.parametrize("cluster", [SESSION_TIMEOUT_MS], indirect=True)
@pytest.mark.parametrize(
    "given",
    [
        pytest.param({"replication": 1}, id="one-replica"),
        pytest.param({"replication": 3}, id="three-replicas"),
        pytest.param({"replication": 3, **EXACT}, id="three-replicas-ticks"),
    ],
)
def test_what_a_proof_costs_where_nothing_happens(
    given: Mapping[str, Any], cluster: Cluster, settings_of: NewSettings, tmp_path: Path, say: Say
) -> None:
    """With the slack that users have. A busy machine may stop a broker in an append for longer: members may differ."""
    scenario = Scenario("undisturbed", nothing, slack_ms=20)
    settings = settings_of(merge_slack_ms=scenario.slack_ms, **given)
    with ExitStack() as running:
        run = Run(scenario, cluster, settings, tmp_path, running)
        played(run)
        wait_until_over(run)
        differences = verifier.differences(verifier.read(settings), Rules.of(settings))
        say(f"{merge_delays(settings)}; {violations(run):.0f} violations counted; {differences}")
        assert not differences.lost
        assert not differences.invented


def played(run: Run, on_ready: Callable[[], None] = lambda: None) -> Played:
    """Set a scenario up, send a feed, do what the scenario does, and end the feed."""
    scenario, settings, running = run.scenario, run.settings, run.running
    set_up_brokers(run)
    run.workers = [run.new_worker(number) for number in range(len(scenario.roles))]
    for worker in run.workers:
        worker.wait_ready()
    on_ready()
    feed = running.enter_context(feeding(settings, fleet(41), scenario.connections, scenario.acks))
    watch = running.enter_context(watched(settings))
    run.flows(30)
    scenario.happens(run)
    snapshot = handovers.snapshot(settings) if has_roles(run) else verifier.snapshot(settings)
    run.flows(30)
    watch.end()
    feed.finish()
    return Played(feed, snapshot, str(watch))


def set_up_brokers(run: Run) -> None:
    if run.scenario.clock_ms and shutil.which("cc") is None:
        pytest.skip("no C compiler (cc) on PATH, which a broker's other clock needs")
    run.cluster.set_clock(BROKERS[-1], run.scenario.clock_ms)
    for node in run.scenario.disks:
        try:
            run.disks[node] = run.running.enter_context(run.cluster.small_disk(node, DISK_BYTES))
        except subprocess.CalledProcessError as error:
            pytest.skip(f"a file system of its own cannot be mounted here: {error}")
    if run.scenario.away is not None:
        run.cluster.brokers[run.scenario.away].stop()


def has_roles(run: Run) -> bool:
    return "infer" in run.scenario.roles


def judged(run: Run, seen: Played) -> str:
    """Wait for the end, compare live and replay with the log, and say how they differ.

    Raises:
        AssertionError: Either is not as the log says.
    """
    settings, rules = run.settings, Rules.of(run.settings)
    wait_until_over(run)
    found = verifier.read(settings)
    wrong: verifier.WrongRun | None = None
    try:
        live = str(verifier.verify(found, rules, [seen.snapshot]))
    except verifier.WrongRun as error:
        wrong, live = error, str(error.differences)
    again = verifier.differences(replace(found, results=replayed(run)), rules)
    counted = violations(run)
    exits = [code for worker in run.started for code in worker.exits]
    starts = f", slowest start {run.slowest_start_s:.1f} s" if run.slowest_start_s else ""
    said = (
        f"live: {live}; replayed: {again}; {counted:.0f} violations counted, worker exits {exits}; "
        f"{seen.standstill}{starts}; {merge_delays(settings)}; {seen.feed.resent} records sent again"
    )
    if wrong is not None:
        raise AssertionError(f"{said}\n{wrong}")
    assert not again, said
    return said


def wait_until_over(run: Run) -> None:
    """Until all is done; ticks end when no window is open."""
    ends = None
    while ends != (ends := rig.end_offsets(run.settings)):
        rig.wait_until_committed(run.settings, 180, run.why)
        if has_roles(run):
            handovers.wait_until_committed(run.settings, 120, run.why)


def violations(run: Run) -> float:
    """Records below what alignment was given, as the workers count them."""
    for worker in run.workers:
        worker.note_violations()
    return sum(worker.violations for worker in run.started)


def merge_delays(settings: Settings) -> str:
    """How long after the log time that closes a window it was closed: ``streamer_stage_seconds`` of stage merge."""
    with redis.Redis.from_url(settings.redis) as client:
        keys = list(client.scan_iter(f"{settings.key_prefix}:{{*}}:results", count=1000))
        fields = [fields for key in keys for _, fields in client.xrange(key)]
    delays_ms = [json.loads(result[b"latencies_us"])["merge"] / 1000 for result in fields]
    p50, p99 = np.percentile(delays_ms, (50, 99))
    return f"merge delay p50 {p50:.0f} ms, p99 {p99:.0f} ms"


def replayed(run: Run) -> dict[str, list[verifier.Published]]:
    """What a worker publishes that reads the log from its start, with nothing happening."""
    name = f"again-{run.settings.group}"
    other = run.settings.model_copy(update={"group": name, "key_prefix": name})
    with rig.supervised(other, run.folder / "replay.log") as worker:
        rig.wait_until_committed(other, 180, worker.why)
    return verifier.read_results(other)
