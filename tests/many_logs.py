"""The properties of alignment over many random logs: ``python -m tests.many_logs --logs 100000 --seed 0``."""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter
from time import monotonic

from streamer.events import Window
from tests import logs
from tests.oracle import Oracle

SEEN = ("windows", "early runs", "late events", "repeated events")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--logs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    counts: Counter[str] = Counter()
    began = monotonic()
    for seed in range(options.seed, options.seed + options.logs):
        rng = random.Random(seed)
        rules = logs.rules(rng)
        events = logs.log(rng, rng.randint(1, 120))
        until_us = events[-1].record.log_time_us + 100_000_000
        oracle = Oracle(rules).run(events, until_us)
        outcomes = logs.run(rules, events, until_us, ticks=rng)
        live = [logs.signature(o) for o in outcomes if isinstance(o, Window)]
        counts["live differs"] += live != oracle.closed
        counts["early differs"] += logs.early(outcomes) != oracle.early
        try:
            store = logs.run_with_kills(rules, events, until_us, rng, rng.randint(1, 5))
        except AssertionError as error:
            counts[str(error)] += 1
            print(f"seed {seed}: {error}", file=sys.stderr)
            continue
        restarted = store.published == {(c.session, c.end_us): c for c in oracle.closed}
        counts["restarted differs"] += not restarted
        counts["restarted early differs"] += store.early != set(oracle.early)
        counts["late differs"] += store.late != oracle.late
        counts["repeated differs"] += store.never_joined != oracle.repeated
        if not restarted or store.late != oracle.late or store.never_joined != oracle.repeated:
            print(f"seed {seed}: restarted run differs", file=sys.stderr)
        counts["windows"] += len(oracle.closed)
        counts["early runs"] += len(oracle.early)
        counts["late events"] += len(oracle.late)
        counts["repeated events"] += len(oracle.repeated)
    print(
        f"{options.logs} logs, {counts['windows']} windows, {counts['early runs']} early runs, "
        f"{counts['late events']} late and {counts['repeated events']} repeated events "
        f"in {monotonic() - began:.0f} s; differing: "
        f"{counts['live differs']} live runs, {counts['early differs']} in their early runs, "
        f"{counts['restarted differs']} restarted runs, {counts['restarted early differs']} in their early runs, "
        f"{counts['late differs']} in what was late, {counts['repeated differs']} in what was repeated"
    )
    failed = sum(count for name, count in counts.items() if name not in SEEN)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
