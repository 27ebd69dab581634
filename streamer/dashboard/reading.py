"""What reads for the page goes on after a failure, and logs it once."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod

from kafka.errors import KafkaError
from redis.exceptions import RedisError

from streamer.errors import StreamerError, one_line

BACKOFF_S = 1.0

log = logging.getLogger(__name__)


class Trouble:
    """A failure that goes on, logged when it begins and when it is over.

    Args:
        what: What cannot be read meanwhile.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._lasts = False

    def met(self, error: Exception) -> None:
        """It failed; with a traceback where nobody foresaw it."""
        if not self._lasts:
            foreseen = isinstance(error, StreamerError | KafkaError | RedisError | OSError)
            cause = None if foreseen else error
            log.warning("%s cannot be read, trying again: %s", self._what, one_line(error), exc_info=cause)
        self._lasts = True

    def over(self) -> None:
        """It has been read."""
        if self._lasts:
            log.info("%s can be read again", self._what)
        self._lasts = False


class Reader(threading.Thread, ABC):
    """Reads step by step until it is closed.

    Args:
        what: What it reads, for the log.
    """

    def __init__(self, name: str, what: str) -> None:
        super().__init__(name=name, daemon=True)
        self.stop_asked = threading.Event()
        self.trouble = Trouble(what)

    @abstractmethod
    def step(self) -> None:
        """Read what there is, or wait for it for a while."""

    def failed(self) -> None:
        """A step failed."""

    def release(self) -> None:
        """Close what was opened; called once."""

    def run(self) -> None:
        while not self.stop_asked.is_set():
            try:
                self.step()
            except Exception as error:  # noqa: BLE001 - else the thread would end, and the page show old data as new
                self.trouble.met(error)
                self.failed()
                self.stop_asked.wait(BACKOFF_S)
            else:
                self.trouble.over()
        self.release()

    def close(self) -> None:
        """Stop reading."""
        self.stop_asked.set()
        if self.is_alive():
            self.join()
        else:
            self.release()
