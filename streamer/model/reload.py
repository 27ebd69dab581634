"""A new version of the model in its folder: found, loaded beside the old one, and served from the next batch on.

Files are only polled (``stat``) until they have changed and then stayed the same for one more poll: weights and
tokenizer are two files, and copying them may take long. A version that cannot be loaded, that fails on an empty window,
or that other parts of the system depend on is refused once, with its reason, and the old one continues.

May change: weights, tokenizer, version, outputs, architecture, sizes of the inputs. May not: the name (results are
stored under it), the windows' length, which sensors the model reads and how many frames (they decide what is put
into a window, perhaps by another process). To change those, restart the workers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from streamer.errors import ModelError, StreamerError, one_line
from streamer.model import forms
from streamer.model.calibration import CALIBRATION_FILE
from streamer.model.predictor import Predictor
from streamer.model.spec import (
    CODE_FILE,
    SPEC_FILE,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    ImageInput,
    ModelSpec,
    check_sensors,
)
from streamer.observe.metrics import Metrics
from streamer.settings import Settings

FILES = (
    SPEC_FILE,
    WEIGHTS_FILE,
    CALIBRATION_FILE,
    TOKENIZER_FILE,
    CODE_FILE,
    forms.MAPPING_FILE,
    *forms.ARCHIVES.values(),
)

State = tuple[tuple[int, int, int] | None, ...]

log = logging.getLogger(__name__)


def load(settings: Settings) -> Predictor:
    """Load the model of the settings and run it once, so that no window waits for its set-up.

    Raises:
        ModelError: It cannot be loaded, reads a sensor that is not declared, or fails on an empty window.
        UsageError: There is no such device.
    """
    predictor = Predictor.load(settings.model, device=settings.device, settings=settings)
    check_sensors(predictor.spec, settings.sensor_set)
    predictor.warm_up()
    return predictor


def state_of(folder: Path) -> State:
    """Inode, size and modification time of each file of a model (``None`` if absent), to see whether one changed."""
    return tuple(_stat(folder / name) for name in FILES)


def _stat(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def check_successor(old: Predictor, new: Predictor) -> None:
    """Check that a model may replace another while windows are in flight.

    Raises:
        ModelError: It may not; one line says why.
    """
    for what, before, after in zip(
        ("name", "window_ms", "inputs", "frames"), _contract(old.spec), _contract(new.spec), strict=True
    ):
        if before != after:
            raise ModelError(f"{what} was {before} and is {after}; restart the workers to change it")
    if new.version == old.version and new.spec != old.spec:
        raise ModelError(f"{SPEC_FILE} has changed and its version is still {new.spec.version}: give it another")


def _contract(spec: ModelSpec) -> tuple[object, ...]:
    inputs = spec.inputs.all
    frames = [f"{name} {one.frames}" for name, one in inputs.items() if isinstance(one, ImageInput)]
    return spec.name, spec.window_ms, ", ".join(inputs), ", ".join(frames)


class Reloader:
    """Watches the model's folder.

    Args:
        state: State of the folder before ``predictor`` was loaded.
        swap: Called on the event loop with each new version.
    """

    def __init__(
        self,
        settings: Settings,
        predictor: Predictor,
        state: State,
        metrics: Metrics,
        swap: Callable[[Predictor], None],
    ) -> None:
        self._settings = settings
        self._predictor = predictor
        self._state = state  # of the version last loaded or refused
        self._metrics = metrics
        self._swap = swap

    async def run(self) -> None:
        """Poll every ``model_poll_ms``, for ever; return at once if that is 0."""
        if not self._settings.model_poll_ms:
            return
        loop = asyncio.get_running_loop()
        thread = ThreadPoolExecutor(1, thread_name_prefix="reload")
        last = self._state
        try:
            while True:
                await asyncio.sleep(self._settings.model_poll_ms / 1000)
                now = await loop.run_in_executor(thread, state_of, self._settings.model)
                if now == last and now != self._state:
                    self._state = now
                    self._take(await loop.run_in_executor(thread, self._load))
                last = now
        finally:
            thread.shutdown(wait=False, cancel_futures=True)  # a stop does not wait for a model to load

    def _load(self) -> Predictor | Exception:
        """The folder's model if it may be served, else the error that says why not."""
        try:
            predictor = load(self._settings)
            check_successor(self._predictor, predictor)
        except StreamerError as error:
            return error
        except Exception as error:  # noqa: BLE001 - such as a device without room for two models
            return ModelError(f"{type(error).__name__}: {one_line(error)}")
        return predictor

    def _take(self, found: Predictor | Exception) -> None:
        if isinstance(found, Exception):
            self._metrics.model_reloads.labels("refused").inc()
            log.error("new model refused, %s continues: %s", self._predictor.version, found)
        elif found.version != self._predictor.version:
            log.info("model %s: version %s replaces %s", found.name, found.version, self._predictor.version)
            self._metrics.model_reloads.labels("loaded").inc()
            self._metrics.model.info({"name": found.name, "version": found.version})
            self._predictor = found
            self._swap(found)
