"""What models do with sound: one waveform of the window, mono, at the model's rate."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache

import numpy as np
import torch
import torchaudio
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn

from streamer.errors import BadRecord
from streamer.events import Event
from streamer.kinds.audio import AudioInput
from streamer.model import payloads
from streamer.model.handling import Cut, Cutting, Handling, covered
from streamer.model.kinds.stacking import masks, stacked
from streamer.model.nets import architecture as named
from streamer.model.nets.architecture import either
from streamer.model.nets.build import Plan, grouped
from streamer.model.nets.encoders.audio import AudioCnn, AudioCrnn, AudioTransformer, wav2vec2_encoder
from streamer.model.sample import Mismatch, Sample
from streamer.model.sounds import sample_index

# The largest denominator of a resampling ratio. The sinc kernel has old × new / gcd² taps: 44,100 → 16,000 is
# 441 × 160, but 44,101 → 16,000 would be 706 million. The nearest simple ratio is off by less than 1 ms in a second.
MAX_RATIO_TERM = 500


class Sounds(Handling[AudioInput]):
    """See the module."""

    fields = ("audio_BS", "audio_mask_BS")

    def cut(self, sensor: str, events: Sequence[Event], wanted: AudioInput | None, cutting: Cutting) -> Cut:
        window = cutting.window
        if wanted is None:
            share = covered(window, events)
            return Cut({}, share > 0, share)
        size_us = window.end_us - window.start_us
        heard: dict[int, tuple[NDArray[np.float32], NDArray[np.bool_]]] = {}  # by rate: one resampling for all chunks
        for event in events:
            try:
                rate_hz, first, samples, surplus_us = payloads.audio(event, window.start_us, window.end_us)
            except BadRecord as error:
                cutting.rejects.append((event, error))
                continue
            if surplus_us:
                record, said_us = event.record, event.end_us - event.start_us
                cutting.mismatches.append(Mismatch(record.partition, record.offset, event.sensor, said_us, surplus_us))
            if len(samples):
                length = sample_index(size_us, rate_hz)
                audio_S, mask_S = heard.setdefault(rate_hz, (np.zeros(length, np.float32), np.zeros(length, np.bool_)))
                audio_S[first : first + len(samples)] = samples
                mask_S[first : first + len(samples)] = True
        if not heard:
            return Cut({}, False, 0.0)
        audio_S, mask_S = _one_rate(heard, wanted.rate_hz, sample_index(size_us, wanted.rate_hz))
        share = float(np.count_nonzero(mask_S) / len(mask_S))
        return Cut({"audio_S": audio_S, "audio_mask_S": mask_S}, share > 0, share)

    def collate(self, samples: Sequence[Sample], wanted: AudioInput, tokenizer: Tokenizer | None) -> dict[str, Tensor]:
        audio_S = max((len(sample.audio_S) for sample in samples if sample.audio_S is not None), default=0)
        shape = (audio_S or wanted.rate_hz,)  # no sample has audio: any length will do, all of it is masked
        return {
            "audio_BS": torch.from_numpy(stacked([sample.audio_S for sample in samples], shape, np.float32)),
            "audio_mask_BS": masks([sample.audio_mask_S for sample in samples], shape),
        }

    def lengths(self, wanted: AudioInput, window_ms: int) -> dict[str, int]:
        return dict.fromkeys(self.fields, window_ms * wanted.rate_hz // 1000)

    def dimensions(self, wanted: AudioInput, tokenizer: Tokenizer | None) -> dict[str, object]:
        return {"audio_rate_hz": wanted.rate_hz}

    def encoder(self, plan: Plan) -> nn.Module:
        options, sizes = plan.architecture.options("audio"), plan.sizes
        rate_hz = plan.data.audio_rate_hz
        assert rate_hz is not None
        if isinstance(options, named.Wav2Vec2):
            return wav2vec2_encoder(options, rate_hz, sizes.width, plan.folder, pretrained=plan.pretrained)
        assert isinstance(options, named.AudioCnn)
        mels, channels = either(options.mels, sizes.mels), grouped("audio", either(options.channels, sizes.audio))
        match options:
            case named.AudioTransformer():
                layers = either(options.layers, sizes.encoder_layers)
                return AudioTransformer(rate_hz, mels, channels, layers, sizes.heads, sizes.width, sizes.dropout)
            case named.AudioCrnn():
                return AudioCrnn(rate_hz, mels, channels, sizes.width)
            case _:
                return AudioCnn(rate_hz, mels, channels, sizes.width)


def _one_rate(
    heard: dict[int, tuple[NDArray[np.float32], NDArray[np.bool_]]], rate_hz: int, length: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Resample every waveform to ``rate_hz`` and overlay them; where two have samples the last one counts."""
    if heard.keys() == {rate_hz}:
        return heard[rate_hz]
    audio_S, mask_S = np.zeros(length, np.float32), np.zeros(length, np.bool_)
    for own_hz, (own_S, own_mask_S) in heard.items():
        nearest_S = np.minimum((np.arange(length) * (own_hz / rate_hz)).astype(np.int64), len(own_S) - 1)
        valid_S = own_mask_S[nearest_S]
        resampled_S = own_S if own_hz == rate_hz else _resample(own_S, own_hz, rate_hz)
        count = min(length, len(resampled_S))
        np.copyto(audio_S[:count], resampled_S[:count], where=valid_S[:count])
        mask_S |= valid_S
    return audio_S, mask_S


def _resample(audio_S: NDArray[np.float32], own_hz: int, rate_hz: int) -> NDArray[np.float32]:
    ratio = Fraction(own_hz, rate_hz).limit_denominator(MAX_RATIO_TERM)
    resampled: NDArray[np.float32] = _resampler(ratio.numerator, ratio.denominator)(torch.from_numpy(audio_S)).numpy()
    return resampled


@lru_cache(maxsize=16)  # the kernel costs more than its use
def _resampler(own: int, target: int) -> torchaudio.transforms.Resample:
    return torchaudio.transforms.Resample(own, target)
