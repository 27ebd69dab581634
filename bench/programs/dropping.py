"""A sink that drops what it reads, for ``bench.sinks``: what reading alone costs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from streamer.result import Result
from streamer.settings import Settings
from streamer.sinks import process
from streamer.sinks.sink import AtLeastOnce


class Dropping(AtLeastOnce):
    """Does nothing."""

    async def deliver(self, session: str, results: Sequence[Result]) -> None:
        return None


if __name__ == "__main__":
    asyncio.run(process.serve(Settings.load(), Dropping, "dropping", say=lambda line: print(line, flush=True)))
