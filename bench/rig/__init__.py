"""What benchmarks share: servers and programs on separate cores, preloaded topics, figures with their spread.

    options = rig.parse(rig.parser(__doc__))          # --quick, --rounds, --device, --record, --out
    with rig.Rig(options.device) as bench:            # Kafka and Redis, pinned to the first core
        load = bench.preload(sessions=8, seconds=100) # simulated drives that end: every window of them closes
        for _ in rig.rounds(options):                 # interleave what is compared: ABAB, never AABB
            before.append(bench.worker(load, tree=old))  # `streamer worker`, pinned to the last core
            after.append(bench.worker(load))
    cost = [[run.cpu_ms_per_window for run in runs] for runs in (after, before)]
    rig.finish(rig.Report("trees", [rig.Figure("after ÷ before, CPU s a window", rig.ratios(*cost))]), options)

A reader of a load gets its settings as ``STREAMER_…`` variables (addresses, topics, an unused consumer group and key
prefix; ``Settings.load()`` reads them), reads the topics from their beginning and adds one entry for each window to the
stream ``Keys(settings.key_prefix).results(session)``. It is measured from the moment it is ready until
Redis holds all windows: wall time, and CPU seconds (user and system, of all its threads and children).

A figure is a :class:`Figure`: median and quartiles over rounds. Only ratios of two things that were measured side by
side hold on another day or machine, so :func:`finish` compares ratios with ``bench/history.jsonl``, no absolute
figures. Outside Linux nothing is pinned, and the report says so.
"""

from bench.rig.figures import Curve, Figure, Plot, Report, Spread, ratios, regression, table
from bench.rig.host import PROGRAM_CORE, ROOT, SERVERS_CORE, Utilization, machine, pin, versions
from bench.rig.options import console, parse, parser, rounds, run
from bench.rig.programs import DONE_WITHIN_S, POLL_S, READY_WITHIN_S, cpu_s, idle_cores, one_thread, says_ready, started
from bench.rig.report import between, finish, regressions
from bench.rig.servers import DRIVES, PARTITIONS, Bare, Load, Rig, Run, busy, described, published

__all__ = [
    "DONE_WITHIN_S",
    "DRIVES",
    "PARTITIONS",
    "POLL_S",
    "PROGRAM_CORE",
    "READY_WITHIN_S",
    "ROOT",
    "SERVERS_CORE",
    "Bare",
    "Curve",
    "Figure",
    "Load",
    "Plot",
    "Report",
    "Rig",
    "Run",
    "Spread",
    "Utilization",
    "between",
    "busy",
    "console",
    "cpu_s",
    "described",
    "finish",
    "idle_cores",
    "machine",
    "one_thread",
    "parse",
    "parser",
    "pin",
    "published",
    "ratios",
    "regression",
    "regressions",
    "rounds",
    "run",
    "says_ready",
    "started",
    "table",
    "versions",
]
