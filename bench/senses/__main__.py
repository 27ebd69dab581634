"""Measures the senses that are asked for, all without a name: see the package."""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path

import bench.senses
from bench import rig
from streamer.errors import Stop
from streamer.settings import Settings

MEASURED = ("objects", "sounds", "sentences", "letters", "speech", "voice", "few_shot")  # modules of this package
PAGE = rig.ROOT / "docs" / "senses.md"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.senses", description=bench.senses.__doc__)
    parser.add_argument("role", nargs="*", choices=[*MEASURED, []], metavar="ROLE", help=", ".join(MEASURED))
    parser.add_argument(
        "--data", type=Path, default=rig.ROOT.parent / "shared" / "data", help="recordings of the tests"
    )
    parser.add_argument("--record", action="store_true", help=f"write the tables into {PAGE.relative_to(rig.ROOT)}")
    options = parser.parse_args()
    if not options.data.is_dir():
        raise Stop(f"{options.data} is no folder: --data names that with the recordings of the tests")
    settings = Settings.load()
    for role in options.role or MEASURED:
        table = import_module(f"bench.senses.{role}").measure(settings, options.data)
        text = f"`python -m bench.senses {role}`: {table.markdown()}"
        print(text, end="\n\n", flush=True)
        if options.record:
            PAGE.write_text(rig.between(PAGE.read_text("utf-8"), role, text), "utf-8")


if __name__ == "__main__":
    rig.run(main)
