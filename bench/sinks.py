"""Sinks and rules beside a worker: what a result costs those who read it.

    python -m bench.sinks
    python -m bench.sinks --sessions 200 --seconds 20

A worker reads simulated drives as fast as it can: its CPU time for a window. Then results of so many sessions are
published in real time, one a second each, a tenth of the sessions at a time, and each sink takes them: its CPU time for
a result, user and system, of all its threads, from when it is idle; the webhook's receiver is another process. Beside
it a reader that does nothing with them. Rules: 1000 expressions on each window, in one process, as fast as it can.
"""

from __future__ import annotations

import base64
import sys
import time
from collections.abc import Iterable, Sequence

import msgspec
from rich.progress import track

from bench import rig
from bench.rig import Figure, Report, Rig, Spread
from streamer.local.program import Program
from streamer.local.worker import environment
from streamer.result import Result
from streamer.rules.engine import Engine, Memory
from streamer.rules.table import Rule
from streamer.settings import Settings
from streamer.store.results import Keys

S_US = 1_000_000
TENTHS = 10  # of a second
IDLE_S = 5.0
READING_AIM = 0.02  # of a worker's CPU time
RULES, RULE_WINDOWS = 1000, 300
RULES_AIM = 1_000_000.0  # rules × windows a second
KEY = base64.b64encode(bytes(32)).decode()
KINDS = ("nothing", "kafka", "webhook", "parquet")
LABELS = ("proceed", "creep", "brake", "hold", "pull_over", "emergency_stop")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the rounds and report."""
    parser = rig.parser(__doc__, rounds=3)
    parser.add_argument("--sessions", type=int, default=100, help="sessions whose results are published (100)")
    parser.add_argument("--seconds", type=int, default=15, help="for so long (15)")
    options = rig.parse(parser, arguments)
    seconds = 5 if options.quick else options.seconds
    costs_ms: dict[str, list[float]] = {kind: [] for kind in ("worker", *KINDS)}
    rates: list[float] = []
    with Rig(options.device) as bench:
        load = bench.preload(sessions=4, seconds=10 if options.quick else 40)
        for number in rig.rounds(options):
            costs_ms["worker"].append(bench.worker(load).cpu_ms_per_window)
            for kind in KINDS:
                costs_ms[kind].append(sink_ms(bench, load.fresh(), kind, options.sessions, seconds))
            rates.append(rules_a_second())
            rig.console.log(f"round {number}: ms of CPU a result: " + shown(costs_ms) + f"; {rates[-1]:,.0f} rules/s")
    figures = [
        Figure(f"{label} ÷ worker, CPU of a result", rig.ratios(costs_ms[kind], costs_ms["worker"]), aim=aim)
        for kind, label, aim in (
            ("nothing", "a sink that drops them", READING_AIM),
            ("kafka", "sink kafka", None),
            ("webhook", "sink webhook", None),
            ("parquet", "sink parquet", None),
        )
    ]
    figures += [Figure(f"{kind}, CPU of a result", Spread.of(found), "ms") for kind, found in costs_ms.items()]
    figures.append(Figure(f"{RULES} rules, rules × windows a second", Spread.of(rates), better="higher", aim=RULES_AIM))
    rig.finish(Report("sinks", figures), options)


def shown(costs_ms: dict[str, list[float]]) -> str:
    """The newest figure of each, for progress."""
    return ", ".join(f"{kind} {found[-1]:.2f}" for kind, found in costs_ms.items())


def sink_ms(bench: Rig, settings: Settings, kind: str, sessions: int, seconds: int) -> float:
    """CPU milliseconds of a sink for a result, at one result a session and second."""
    receiver = rig.started([sys.executable, "-m", "bench.programs.receiver"], {}, bench.folder / "receiver.log", None)
    with receiver:
        receiver.wait_for(lambda: "http" in receiver.text(), rig.READY_WITHIN_S, "listen")
        given = {
            "sink_port": 0,
            "webhook_url": receiver.text().strip(),
            "webhook_key": KEY,
            "parquet_dir": bench.folder / f"files-{settings.key_prefix}",
        }
        env = environment(Settings.load(**settings.model_dump(exclude_unset=True) | given))
        command = (
            [sys.executable, "-m", "bench.programs.dropping"]
            if kind == "nothing"
            else [sys.executable, "-m", "streamer", "sink", kind]
        )
        with rig.started(command, env, bench.folder / f"{kind}.log") as program:
            program.wait_for(lambda: "waiting for results" in program.text(), rig.READY_WITHIN_S, "be ready")
            publish(bench, settings, range(sessions), 0)  # sessions are new to it once
            time.sleep(1.0)
            before_s = run_s(program)
            time.sleep(IDLE_S)
            idle = (run_s(program) - before_s) / IDLE_S
            before_s, began_s = run_s(program), time.monotonic()
            for number in track(range(1, seconds + 1), kind, console=rig.console, transient=True):
                for tenth in range(TENTHS):
                    publish(bench, settings, range(tenth, sessions, TENTHS), number)
                    time.sleep(max(0.0, began_s + number - 1 + (tenth + 1) / TENTHS - time.monotonic()))
            time.sleep(1.0)  # until it has looked for what came last
            spent_s = run_s(program) - before_s - idle * (time.monotonic() - began_s)
    return 1000 * spent_s / (sessions * seconds)


def run_s(program: Program) -> float:
    """CPU seconds of a program with its ended threads; other clocks have ticks of 10 ms: clock_getcpuclockid(3)."""
    return time.clock_gettime(~program.pid << 3 | 2) if sys.platform == "linux" else rig.cpu_s(program)


def publish(bench: Rig, settings: Settings, sessions: Iterable[int], number: int) -> None:
    """A result of each session, as a worker publishes it."""
    keys = Keys(settings.key_prefix)
    with bench.redis.pipeline(transaction=False) as pipe:
        for session in sessions:
            one = result(f"{settings.key_prefix}-{session}", number)  # Kafka still has the cursors of other rounds
            pipe.xadd(keys.results(one.session), one.to_fields(), id=f"{one.end_us}-0")
            pipe.zadd(keys.sessions, {one.session: one.end_us})
        pipe.execute()


def result(session: str, number: int) -> Result:
    """A result with as much in it as one of models/driving."""
    label = LABELS[number % len(LABELS)]
    end_us = (1_750_000_000 + number) * S_US
    scores = dict.fromkeys(LABELS, 0.1) | {label: 0.5}
    outputs = {
        "action": {"label": label, "score": 0.5, "scores": scores},
        "tags": {"labels": ["hazard"], "scores": {"hazard": 0.9, "siren": 0.1}},
    }
    present = ("image", "audio", "text", "telemetry")
    return Result(
        session,
        end_us - S_US,
        end_us,
        "complete",
        present,
        dict.fromkeys(present, 1.0),
        {"frames": ((number * 10, number * 10 + 9),)},
        outputs,
        bytes(256),
        "driving",
        "1",
        "ok",
        dict.fromkeys(("merge", "align", "batch", "decode", "infer", "publish", "total"), 1000),
    )


def rules_a_second() -> float:
    """Rules × windows in a second, memory as JSON after each window; half of the rules look back at five windows."""
    when = 'tags.hazard && action.score > 0.{} && action.label == "brake"'
    rules = {
        f"rule-{n}": Rule(when.format(n % 9 + 1), of=(3, 5) if n % 2 else (1, 1), again_after_s=60)
        for n in range(RULES)
    }
    engine, memory = Engine(rules), Memory()
    results = [result("car", number) for number in range(RULE_WINDOWS)]
    began_s = time.process_time()
    for one in results:
        engine.see(one, memory)
        memory = msgspec.json.decode(msgspec.json.encode(memory), type=Memory)
    return RULES * RULE_WINDOWS / (time.process_time() - began_s)


if __name__ == "__main__":
    rig.run(main)
