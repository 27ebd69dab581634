"""What models do with images: the frames that they ask for, scaled."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn

from streamer.errors import BadRecord
from streamer.events import Event, Window
from streamer.kinds.image import ImageInput, in_window, reading_order
from streamer.model import payloads
from streamer.model.handling import Cut, Cutting, Handling
from streamer.model.kinds.stacking import masks, stacked
from streamer.model.nets import architecture as named
from streamer.model.nets.architecture import either
from streamer.model.nets.build import Plan, grouped
from streamer.model.nets.encoders.image import ImageEncoder, Pooled, timm_encoder
from streamer.model.sample import Sample


class Images(Handling[ImageInput]):
    """See the module."""

    fields = ("image_BFCHW", "image_mask_BF")

    def cut(self, sensor: str, events: Sequence[Event], wanted: ImageInput | None, cutting: Cutting) -> Cut:
        window = cutting.window
        frames = in_window(window, events)
        found: dict[int, NDArray[np.uint8]] = {}
        broken = 0
        if wanted is not None:
            for index in reading_order(len(frames), wanted.frames):
                if len(found) == wanted.frames:
                    break
                try:
                    found[index] = payloads.image(
                        frames[index], wanted.height, wanted.width, cutting.limits.max_image_pixels
                    )
                except BadRecord as error:
                    cutting.rejects.append((frames[index], error))
                    broken += 1
        share = _share(len(frames) - broken, window, cutting.limits.expected_hz.get(sensor))
        if wanted is None or not found:
            return Cut({}, share > 0, share)
        image_FHW3 = np.zeros((wanted.frames, wanted.height, wanted.width, 3), np.uint8)
        for place, index in enumerate(sorted(found)):
            image_FHW3[place] = found[index]
        mask_F = np.arange(wanted.frames) < len(found)
        return Cut({"image_FHW3": image_FHW3, "image_mask_F": mask_F}, share > 0, share)

    def collate(self, samples: Sequence[Sample], wanted: ImageInput, tokenizer: Tokenizer | None) -> dict[str, Tensor]:
        shape = (wanted.frames, wanted.height, wanted.width, 3)
        image_BFHW3 = stacked([sample.image_FHW3 for sample in samples], shape, np.uint8)
        return {
            "image_BFCHW": torch.from_numpy(image_BFHW3).permute(0, 1, 4, 2, 3),
            "image_mask_BF": masks([sample.image_mask_F for sample in samples], shape[:1]),
        }

    def dimensions(self, wanted: ImageInput, tokenizer: Tokenizer | None) -> dict[str, object]:
        return {"image_size": (wanted.height, wanted.width)}

    def encoder(self, plan: Plan) -> nn.Module:
        options, sizes = plan.architecture.options("image"), plan.sizes
        size = plan.data.image_size
        assert size is not None
        encoder: nn.Module
        match options:
            case named.Timm():
                encoder = timm_encoder(options, size, sizes.width, plan.folder, pretrained=plan.pretrained)
            case named.ImageCnn():
                channels = grouped("image", either(options.channels, sizes.image))
                encoder = ImageEncoder(either(options.patch, sizes.patch), channels, sizes.width)
            case _:
                raise AssertionError(options)
        return Pooled(encoder, sizes.width, sizes.heads) if options.pool == "attention" else encoder


def _share(found: int, window: Window, expected_hz: float | None) -> float:
    if expected_hz is None:
        return float(found > 0)
    return min(1.0, found / max(1.0, expected_hz * (window.end_us - window.start_us) / 1e6))
