"""Seconds of imports and of loading the model, run by ``bench.start``; it imports only what a worker imports."""

from __future__ import annotations

import json
import time

import psutil


def main() -> None:
    """Print both as JSON."""
    from streamer.model import reload
    from streamer.settings import Settings

    imports_s = time.time() - psutil.Process().create_time()
    began_s = time.monotonic()
    reload.load(Settings.load())
    print(json.dumps([imports_s, time.monotonic() - began_s]))


if __name__ == "__main__":
    main()
