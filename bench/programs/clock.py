"""The clock of the programs that ``bench.transport`` compares (``bench/programs/readers.py``)."""

from __future__ import annotations

import os
import time
from typing import Any

from aiokafka.consumer.fetcher import Fetcher


class Clock:
    """CPU seconds of this process from its first fetch to its last record.

    Not from the first record: a client that asks for 50 MB at once has received that by then, all of a small load.
    """

    def __init__(self) -> None:
        self._began_s: float | None = None
        fetch = Fetcher._proc_fetch_request

        async def timed(fetcher: Fetcher, *arguments: Any) -> bool:
            if self._began_s is None:
                self._began_s = time.process_time()
            needs_wakeup: bool = await fetch(fetcher, *arguments)
            return needs_wakeup

        Fetcher._proc_fetch_request = timed  # of all three: they have the same client

    def end(self) -> None:
        """Print the seconds, and end the process at once."""
        assert self._began_s is not None
        print(time.process_time() - self._began_s, flush=True)
        os._exit(0)
