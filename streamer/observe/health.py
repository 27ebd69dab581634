"""Whether a server answers: reported by its clients, asked by readiness."""

from __future__ import annotations

import logging
from collections.abc import Callable

log = logging.getLogger(__name__)


class Service:
    """Kafka or Redis, as its callers see it.

    Args:
        name: For people: ``Redis``.
        on_retry: Called for each call that will be repeated.

    Attributes:
        error: Why the last call failed; ``None`` if it was answered.
    """

    def __init__(self, name: str, on_retry: Callable[[], object] = lambda: None) -> None:
        self.name = name
        self.error: str | None = None
        self._on_retry = on_retry

    def away(self, error: Exception, what: str = "") -> None:
        """Note that a call failed and will be retried.

        Args:
            what: What the service did not do, unless it just did not answer.
        """
        said = f"{what or f'{self.name} does not answer'}: {error}"
        if self.error is None:
            log.warning("%s; what is in flight is held", said)
        self.error = said
        self._on_retry()

    def answers(self) -> None:
        """Note that a call was answered."""
        if self.error is not None:
            log.info("%s answers again", self.name)
            self.error = None
