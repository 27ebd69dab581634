"""What the command of every benchmark has: its options, a console for progress, an error as one line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from bench.rig.host import ROOT, device_name
from streamer.errors import StreamerError

console = Console(stderr=True)


def parser(doc: str | None, *, rounds: int = 5) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--quick", action="store_true", help="less of everything: to see that it runs, not for figures")
    made.add_argument("--rounds", type=int, help=f"repetitions, interleaved ({rounds}; with --quick 1)")
    made.add_argument("--device", default="cpu", help="where the model runs, if one does: cpu, cuda, cuda:1 (cpu)")
    made.add_argument(
        "--record",
        action="store_true",
        help="add a line to bench/history.jsonl and write docs/benchmarks.md, or benchmarks-cuda.md",
    )
    made.add_argument("--out", type=Path, default=ROOT / "runs" / "bench", help="folder for JSON, tables and plots")
    made.set_defaults(usual_rounds=rounds)
    return made


def parse(made: argparse.ArgumentParser, arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Options with the number of rounds filled in."""
    options = made.parse_args(arguments)
    if options.rounds is None:
        options.rounds = 1 if options.quick else options.usual_rounds
    if options.rounds < 1:
        made.error(f"--rounds is 1 or more, not {options.rounds}")
    if options.device != "cpu" and not device_name(options.device):
        made.error(f"--device: PyTorch finds no {options.device} here")
    return options


def rounds(options: argparse.Namespace) -> range:
    """Numbers of the rounds."""
    return range(1, options.rounds + 1)


def run(main: Callable[[], None]) -> None:
    """Run a benchmark as a program: an error is one line and exit code 1."""
    try:
        main()
    except StreamerError as error:
        sys.exit(f"bench: {error}")
