"""The tree of errors, and what each means: the record or window is dropped, the call repeated, or the process stopped.

    StreamerError
    ├── BadRecord    drop: the record goes to the dead-letter topic with its reason; the stream goes on
    ├── LeftBehind   retry: role infer reads a payload from its source topic first
    ├── ModelFault   retry: the batch is run again window by window; a window that fails alone is dropped
    ├── DeviceLost   stop: the device answers nothing any more; only a new process gets it back
    ├── Stalled      stop: there is work, and nothing gets done; a new process starts from the last commit
    ├── Stop         stop: going on would be wrong; one line says what is wrong and how to fix it
    │   ├── UsageError   a command or setting that cannot be carried out as given
    │   └── ModelError   a model folder that cannot be loaded as it is
    ├── BuildError   becomes a ModelError, which names the folder
    ├── RowError     becomes a BadRow: a row of a data set that cannot be trained on
    ├── Unavailable  a page: Kafka or Redis does not answer now, or too many ask; the same call may succeed later
    ├── NoAnswer     a language model did not answer, or not as asked: what it was asked is told without it
    ├── OverBudget   likewise: it was not asked, since this minute's tokens are used up
    ├── Problem      the gateway: what a request's answer says is wrong with it; the sender may do better
    └── Gone         a page: what is asked for is not in Kafka or Redis, or not any more

Where on the data path they are raised:

    record ─decode─► event ─merge─► align ─► window ─batch─► infer ─► result ─publish─► Redis
           BadRecord                                         BadRecord, LeftBehind (a payload)
                                                             ModelFault, DeviceLost (the model)

UsageError and ModelError are raised at the start, Stalled by the worker's watchdog, Stop also where Redis refuses us.
While Kafka or Redis does not answer, a worker raises nothing: it holds what is in flight, backs off and tries again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum


class StreamerError(Exception):
    """Root of every error that this package raises on purpose."""


class Reason(StrEnum):
    """Why a record was dead-lettered; the value travels in the ``deadletter_reason`` header."""

    NO_KEY = "no_key"
    BAD_KEY = "bad_key"
    WRONG_PARTITION = "wrong_partition"
    UNKNOWN_TYPE = "unknown_type"
    UNKNOWN_SENSOR = "unknown_sensor"
    BAD_HEADER = "bad_header"
    BAD_CONTENT_TYPE = "bad_content_type"
    TOO_LARGE = "too_large"
    TOO_LONG = "too_long"
    CLOCK_AHEAD = "clock_ahead"
    BAD_JSON = "bad_json"
    BAD_PAYLOAD = "bad_payload"
    IMAGE_BOMB = "image_bomb"
    DATAREF_REFUSED = "dataref_refused"
    POISON = "poison"
    UNREADABLE_BATCH = "unreadable_batch"


class BadRecord(StreamerError):
    """This record can never be processed: dead-letter it and go on.

    Args:
        reason: The machine-readable class of the fault.
        detail: One sentence for a person: what is wrong with this record.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class LeftBehind(StreamerError):
    """A payload is needed that did not travel with its window: fetch it from its source topic and go on."""


class Unavailable(StreamerError):
    """A service does not answer now; the same call may succeed later."""


class DeviceLost(StreamerError):
    """The device answers nothing any more: only a new process gets it back."""


class Stalled(StreamerError):
    """Nothing gets done although there is work: a stuck consumer, or a window that the model does not finish."""


class Stop(StreamerError):
    """The process must end: one line that says what is wrong and how to fix it."""


class UsageError(Stop):
    """A command or a setting that cannot be carried out as given."""


class ModelError(Stop):
    """A model folder that is missing, truncated, foreign or inconsistent."""


def one_line(error: BaseException) -> str:
    """An exception's text as one line of at most 200 characters; the name of its class if it has no text."""
    return (" ".join(str(error).split()).rstrip(".") or type(error).__name__)[:200]


@contextmanager
def extra(name: str, doing: str) -> Iterator[None]:
    """Around imports that need an optional dependency group: if it is not installed, the error names the group."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise UsageError(f"{doing} needs {error.name}: pip install 'streamer-multimodal[{name}]'") from None
