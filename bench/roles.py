"""What it costs to align and to infer in separate processes: two roles beside a worker that does both.

    python -m bench.roles

*Together*: a worker of role all on full topics, as in ``bench.pipeline``. *Apart*: a worker of role align and one of
role infer, with the windows topic between them. Both on one core, in turns; Kafka and Redis have the other, and carry
each window once more where the roles are apart. Both are measured from the moment when every worker is ready; role
align starts last.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from kafka import TopicPartition

from bench import rig
from bench.rig import Figure, Report, Rig, Run, Spread
from streamer.broker import topics
from streamer.clients import kafka as kafka_clients
from streamer.events import TOPIC_WINDOWS
from streamer.settings import MIB, Settings

SESSIONS, SECONDS, QUICK_SECONDS = 16, 100, 20
ROLES = ("align", "infer")
ADMIN_MS = 10_000


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the rounds and report."""
    options = rig.parse(rig.parser(__doc__, rounds=3), arguments)
    together: list[Run] = []
    apart: list[Sequence[Run]] = []
    with Rig(options.device) as bench:
        load = bench.preload(SESSIONS, QUICK_SECONDS if options.quick else SECONDS)
        for number in rig.rounds(options):
            together += bench.together(load, [load.fresh()])
            settings = load.fresh()
            empty(settings)
            align, infer = (settings.model_copy(update={"role": role}) for role in ROLES)
            # an aligner is ready much earlier, and would be done before the clock begins
            with bench.worker_process(infer) as second, bench.worker_process(align) as first:
                apart.append(bench.to_the_end(load, settings, [first, second]))
            if (handed_over := records(settings)) != load.windows:
                raise RuntimeError(f"{handed_over} windows were handed over, {load.windows} were sent")
            parts = ", ".join(f"{role} {rig.described(run)}" for role, run in zip(ROLES, apart[-1], strict=True))
            rig.console.log(f"round {number}: together {rig.described(together[-1])}; {parts}")
    note = f"{load.windows:,} windows of {load.records:,} records, {load.payload_bytes / 1e6:.0f} MB, a round."
    rig.finish(Report("roles", figures(together, apart), [note]), options)


def empty(settings: Settings) -> None:
    """Delete and create the windows topic: role infer would read the windows of the round before."""
    name = settings.topic(TOPIC_WINDOWS)
    with kafka_clients.admin(settings, ADMIN_MS) as admin:
        admin.delete_topics([name])
        while name in admin.list_topics():
            time.sleep(rig.POLL_S)
    topics.create(settings)


def records(settings: Settings) -> int:
    """The number of records in the windows topic."""
    consumer = kafka_clients.consumer(settings)
    try:
        parts = [TopicPartition(settings.topic(TOPIC_WINDOWS), number) for number in range(settings.partitions)]
        return sum(consumer.end_offsets(parts).values())
    finally:
        consumer.close()


def figures(together: Sequence[Run], apart: Sequence[Sequence[Run]]) -> list[Figure]:
    """Ratios first, then what they are of."""
    cost = [run.cpu_ms_per_window for run in together]
    costs = [[run.cpu_ms_per_window for run in runs] for runs in apart]
    speed = [[run.windows_per_s for run in runs] for runs in ([runs[0] for runs in apart], together)]
    return [
        Figure("apart ÷ together, windows a second", rig.ratios(*speed), better="higher"),
        Figure("apart ÷ together, CPU s a window", rig.ratios([sum(each) for each in costs], cost)),
        Figure("together, CPU a window", Spread.of(cost), "ms"),
        *(
            Figure(f"{role}, CPU a window", Spread.of([each[at] for each in costs]), "ms")
            for at, role in enumerate(ROLES)
        ),
        *(
            Figure(f"{role}, most memory", Spread.of([runs[at].peak_bytes / MIB for runs in apart]), "MiB")
            for at, role in enumerate(ROLES)
        ),
        *rig.busy({"together": together, "apart": [runs[-1] for runs in apart]}),
    ]


if __name__ == "__main__":
    rig.run(main)
