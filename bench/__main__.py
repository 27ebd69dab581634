"""All benchmarks, one after another, each in a separate process: ``python -m bench [--quick] [--record]``."""

from __future__ import annotations

import subprocess
import sys
import time

from rich.console import Console

from bench import rig

MODULES = ("pipeline", "transport", "batching", "start", "latency")


def main() -> None:
    """Run them with the options given; exit code 1 if one of them fails."""
    rig.parse(rig.parser(__doc__))  # an unknown option is refused before the first one runs
    console = Console(stderr=True)
    failed = []
    for name in MODULES:
        began_s = time.monotonic()
        console.rule(name)
        code = subprocess.run([sys.executable, "-m", f"bench.{name}", *sys.argv[1:]], check=False).returncode
        console.log(f"{name} took {time.monotonic() - began_s:.0f} s")
        if code:
            failed.append(name)
    if failed:
        sys.exit(f"bench: failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
