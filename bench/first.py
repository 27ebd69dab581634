"""How soon a window has a first result where words come late: ``python -m bench.first --sessions 4 --seconds 60``.

Two workers read one feed of simulated drives in real time, with words in every second that come ``WORDS_LATE_MS`` after
it, so that every window is run twice: one with early runs, one without (``early_ms`` 0). Reported are, over all
windows, median and quartiles, and 99th percentile, of the time from the log time at which a window is due to the moment
at which its first result is read from the channel; then what early runs cost: CPU seconds of both workers while the
feed lasts. When windows are due is worked out from the topics, once all is over. The feed begins at its first window's
border, so that event times are those of the clock.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from bench import rig
from bench.programs import bare
from bench.rig import Figure, Report, Rig, Spread
from streamer.events import TEXT
from streamer.feeds import pace, simulate
from streamer.feeds.producer import JSON, Outgoing, Producer
from streamer.settings import Settings
from streamer.store import results

WORDS_LATE_MS = 1800  # less than max_delay_ms, so that they join their windows
PATIENCE_S = 20.0  # for the last results, once the feed has ended
USUAL_S, QUICK_S = 60, 5

Name = tuple[str, int]  # of a window: session and end


def main(arguments: Sequence[str] | None = None) -> None:
    """Send, listen, report."""
    parser = rig.parser(__doc__, rounds=1)
    parser.add_argument("--sessions", type=int, default=4, help="cars")
    parser.add_argument("--seconds", type=int, help=f"length of their drives, s ({USUAL_S}; with --quick {QUICK_S})")
    options = rig.parse(parser, arguments)
    seconds = options.seconds or (QUICK_S if options.quick else USUAL_S)
    with Rig(options.device) as bench:
        early = bench.settings()
        late = early.model_copy(
            update={"group": f"{early.group}-late", "key_prefix": f"{early.key_prefix}-late", "early_ms": 0}
        )
        with bench.worker_processes([early, late]) as workers:
            ears = [Ear(settings, options.sessions * seconds) for settings in (early, late)]
            before = [rig.cpu_s(worker) for worker in workers]
            send(early, options.sessions, seconds)
            for ear in ears:
                ear.join(PATIENCE_S)
            due_us = due(early)
            cpu = [rig.cpu_s(worker) - spent for worker, spent in zip(workers, before, strict=True)]
            runs = {
                outcome: workers[0].metric("streamer_early_runs_total", outcome=outcome)
                for outcome in ("again", "reused", "dropped", "failed")
            }
    note = (
        f"{len(ears[0].first_us)} windows of {options.sessions} cars, words {WORDS_LATE_MS} ms late. Early runs: "
        + ", ".join(f"{count:.0f} {outcome}" for outcome, count in runs.items())
    )
    rig.finish(Report("first", figures([first_ms(ear, due_us) for ear in ears], cpu, runs["again"]), [note]), options)


class Ear(threading.Thread):
    """Listens to a worker's channel until all windows have a final result.

    Attributes:
        first_us: Session and end of a window -> when its first result was read.
    """

    def __init__(self, settings: Settings, windows: int) -> None:
        super().__init__(daemon=True)
        self.first_us: dict[Name, int] = {}
        self._settings = settings
        self._windows = windows
        self._listens = threading.Event()
        self.start()
        self._listens.wait()

    def run(self) -> None:
        """See the class."""
        final: set[Name] = set()
        with results.connected(self._settings) as (client, keys):
            heard = results.listen(client, keys)
            self._listens.set()
            while len(final) < self._windows:
                result = next(heard)
                if result is not None:
                    window = (result.session, result.end_us)
                    self.first_us.setdefault(window, time.time_ns() // 1000)
                    final |= {window} if result.final else set()


def send(settings: Settings, sessions: int, seconds: int) -> None:
    """Send drives in real time, with late words in every second in place of their own."""
    drives = simulate.fleet(sessions, seconds, 5, 0, "first")
    # All drawn before any is sent: who draws while he sends is late.
    own = [one for one in simulate.outgoing(drives) if one.row != TEXT and one.ce_type is None]
    words = [spoken(drive.session, second * simulate.S_US) for second in range(seconds) for drive in drives]
    with Producer(settings) as producer:
        start_us = pace.start_us(1.0, seconds * simulate.S_US, settings.hop_us)
        time.sleep(max(0.0, start_us / 1e6 - time.time()))
        feed = heapq.merge(own, words, key=lambda record: record.due_us)
        pace.send((later(record, start_us) for record in feed), producer, speed=1.0)


def later(record: Outgoing, by_us: int) -> Outgoing:
    """The record of a feed that begins so much later."""
    return msgspec.structs.replace(record, time_us=record.time_us + by_us, due_us=record.due_us + by_us)


def spoken(session: str, start_us: int) -> Outgoing:
    """The words of a second, which are sent late."""
    end_us = start_us + simulate.S_US
    payload = msgspec.json.encode({"text": "keep going straight on", "end": 1.0})
    return Outgoing(TEXT, session, start_us, payload, JSON, end_us + WORDS_LATE_MS * 1000)


def due(settings: Settings) -> dict[Name, int]:
    """Session and end of a window -> the log time at which it was due, worked out from the topics."""
    found = bare.aligned(settings, bare.records(settings))
    return {(window.session, window.end_us): window.due_us for window in found if window.due_us}


def first_ms(ear: Ear, due_us: Mapping[Name, int]) -> list[float]:
    """From when a window was due to its first result, of all windows that were due before their session ended."""
    return [(ear.first_us[window] - at_us) / 1000 for window, at_us in due_us.items() if window in ear.first_us]


def figures(ms: Sequence[Sequence[float]], cpu: Sequence[float], again: float) -> list[Figure]:
    """The ratios, and what is behind them."""
    p99 = [float(np.percentile(of, 99)) for of in ms]
    ratio = [Figure("first result p99, with early runs ÷ without", Spread.of([p99[0] / p99[1]]), aim=0.1)]
    ratio.append(Figure("CPU in real time, with early runs ÷ without", Spread.of([cpu[0] / cpu[1]]), aim=1.1))
    ratio.append(Figure("share of windows run twice", Spread.of([again / max(1, len(ms[0]))])))
    for name, of, high, spent in zip(("with early runs", "without"), ms, p99, cpu, strict=True):
        ratio.append(Figure(f"due to first result, {name}", Spread.of(of), "ms"))
        ratio.append(Figure(f"p99, {name}", Spread.of([high]), "ms"))
        ratio.append(Figure(f"CPU, {name}", Spread.of([spent]), "s"))
    return ratio


if __name__ == "__main__":
    rig.run(main)
