"""The log of a program that runs on: lines on standard error."""

from __future__ import annotations

import logging
import sys

from streamer.settings import Settings

# What the Kafka clients meet is raised to us, and we report it once; they would write two dozen lines a second.
LEAST = {"kafka": logging.CRITICAL, "aiokafka": logging.CRITICAL, "faust": logging.ERROR, "mode": logging.ERROR}


def begin(settings: Settings) -> None:
    """Begin the log at ``log_level``; of libraries only what is of use, unless that is ``debug``."""
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)-7s %(name)s: %(message)s", stream=sys.stderr
    )
    if settings.log_level != "debug":
        for name, level in LEAST.items():
            logging.getLogger(name).setLevel(level)
