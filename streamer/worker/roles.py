"""What a worker does with its records: one class per role joins the stages.

    all     source topics ─► PartitionGroup ─► Pipeline ─► Redis (results)
    align   source topics ─► PartitionGroup ─► Outbox ─► windows topic, Redis (emissions)
    infer   windows topic ─► WindowGroup ─► Pipeline ─► Redis (results)

The worker knows topics, groups and a sink, whatever the role.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import redis.asyncio

from streamer.settings import Settings
from streamer.worker.ports import Host, Role


def load(settings: Settings, partitions: int, client: redis.asyncio.Redis) -> Callable[[Host], Role]:
    """Load what the configured role needs, its model above all; takes seconds.

    Only the roles that run a model import PyTorch.

    Args:
        partitions: Of every topic that is read.

    Returns:
        Makes the role for its worker.

    Raises:
        ModelError: The model cannot be loaded, or fails on an empty window.
        UsageError: There is no such device.
    """
    if settings.role == "align":
        from streamer.worker.role_align import Align

        return partial(Align, partitions=partitions, client=client)
    from streamer.worker import role_infer

    return role_infer.load(settings, partitions, client)
