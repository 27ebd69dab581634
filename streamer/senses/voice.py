"""Voice activity: how likely it is that somebody speaks, frame by frame (Silero VAD, MIT, through onnxruntime)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamer.errors import extra

RATE_HZ = 16_000
FRAME_SAMPLES = 512  # 32 ms, what the network was trained on at 16 kHz
CONTEXT_SAMPLES = 64  # of the frame before, which it sees again
STATE_SHAPE = (2, 1, 128)


class VoiceNetwork:
    """The network; it has no memory of its own, so one serves any number of sounds.

    Args:
        model: ``silero_vad.onnx`` of the package silero-vad.

    Raises:
        UsageError: onnxruntime is not installed.
    """

    def __init__(self, model: Path) -> None:
        with extra("senses", "voice activity"):
            import onnxruntime
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._rate = np.array(RATE_HZ, np.int64)

    def run(
        self, input_1S: NDArray[np.float32], state: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Probability [1, 1] and next state of a frame with its context, [1, CONTEXT_SAMPLES + FRAME_SAMPLES]."""
        probability, after = self._session.run(None, {"input": input_1S, "state": state, "sr": self._rate})
        return probability, after


class VoiceActivity:
    """A sound from its beginning, as it comes.

    The network is recurrent: each frame's probability depends on all frames since the beginning, and on nothing else.
    """

    def __init__(self, network: VoiceNetwork) -> None:
        self._network = network
        self._state = np.zeros(STATE_SHAPE, np.float32)
        self._input_1S = np.zeros((1, CONTEXT_SAMPLES + FRAME_SAMPLES), np.float32)

    def probability(self, frame_S: NDArray[np.float32]) -> float:
        """How likely the next frame is speech, 0 to 1.

        Args:
            frame_S: float32 [FRAME_SAMPLES] at 16 kHz, in [-1, 1].
        """
        self._input_1S[0, :CONTEXT_SAMPLES] = self._input_1S[0, -CONTEXT_SAMPLES:]
        self._input_1S[0, CONTEXT_SAMPLES:] = frame_S
        found, self._state = self._network.run(self._input_1S, self._state)
        return float(found[0, 0])
