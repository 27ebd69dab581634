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

    A service may answer some callers and refuse others for as long as those ask for the same, so a caller that repeats
    its call says which: another's success does not end its failure.
    """

    def __init__(self, name: str, on_retry: Callable[[], object] = lambda: None) -> None:
        self.name = name
        self._errors: dict[object, str] = {}
        self._on_retry = on_retry

    @property
    def error(self) -> str | None:
        """Why the longest of the calls that are being repeated failed last; ``None`` if none is."""
        return next(iter(self._errors.values()), None)

    def away(self, error: Exception, what: str = "", of: object = None) -> None:
        """Note that a call failed and will be retried.

        Args:
            what: What the service did not do, unless it just did not answer.
            of: Which call; ``None``: any that is answered ends the failure.
        """
        said = f"{what or f'{self.name} does not answer'}: {error}"
        if not self._errors:
            log.warning("%s; what is in flight is held", said)
        self._errors[of] = said
        self._on_retry()

    def answers(self, of: object = None) -> None:
        """Note that a call was answered, or is no longer repeated."""
        failed = bool(self._errors)
        for one in (None, of):
            self._errors.pop(one, None)
        if failed and not self._errors:
            log.info("%s answers again", self.name)
