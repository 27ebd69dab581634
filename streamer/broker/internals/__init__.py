"""What Faust, mode and aiokafka do not document, and streamer uses: nowhere but here.

``broker.consumer`` and ``broker.fetch`` change how these libraries fetch, deliver and commit, and there is no public
way to do so. Here each internal name that they need gets a name of ours, with the reason, so that an upgrade of the
libraries is one package to read. ``INTERNALS`` lists the names: a test looks for each in the installed versions, and
``make canary`` looks in the newest ones.
"""

from streamer.broker.internals.connection import (
    BytesReader,
    Connection,
    awaited,
    broken,
    connect,
    connection_to,
    protocol_of,
    read_by,
    take_answer,
    take_answer_in_place,
)
from streamer.broker.internals.consumer import (
    Fetch,
    OpenConsumer,
    OpenThread,
    batches_of,
    is_fetch,
    read_all_batches,
    read_batches,
    start_tables,
    under_way,
    wait_at_broker,
)
from streamer.broker.internals.names import (
    INTERNALS,
)

__all__ = [
    "INTERNALS",
    "BytesReader",
    "Connection",
    "Fetch",
    "OpenConsumer",
    "OpenThread",
    "awaited",
    "batches_of",
    "broken",
    "connect",
    "connection_to",
    "is_fetch",
    "protocol_of",
    "read_all_batches",
    "read_batches",
    "read_by",
    "start_tables",
    "take_answer",
    "take_answer_in_place",
    "under_way",
    "wait_at_broker",
]
