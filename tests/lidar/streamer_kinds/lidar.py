"""A kind that is not ours, all of it in this file: scans of a lidar, the distances in metres all around.

A record's payload is one scan, little-endian float32, of as many beams as its content type says. Its parts for models
and for data sets are methods of one class here, which imports PyTorch when it is first asked for: aligners load this
file too. ``PYTHONPATH=tests/lidar`` adds the kind to every process.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamer.errors import BadRecord, Reason
from streamer.kinds.kind import Kind, KindOfInput, Read

if TYPE_CHECKING:
    from streamer.events import Event, Window

FLOAT32_BYTES = 4
CONTENT_TYPE = "application/x-scan"


class LidarInput(KindOfInput, frozen=True, tag="lidar"):
    """The newest scans of the window, and the beams of each."""

    scans: int
    beams: int


class Lidar(Kind):
    """Scans, each at a moment."""

    name = "lidar"
    topic = "scans"
    ce_type = "example.scan.v1"
    content_types = (CONTENT_TYPE,)
    input = LidarInput
    model = "streamer_kinds.lidar:handling"
    column = "streamer_kinds.lidar:column"

    def read(self, payload: bytes | None, media_type: str, params: Mapping[str, str], said_us: int | None) -> Read:
        beams = params.get("beams", "")
        if not beams.isdigit():
            raise BadRecord(Reason.BAD_CONTENT_TYPE, f"{CONTENT_TYPE} needs beams")
        if payload is not None and len(payload) != FLOAT32_BYTES * int(beams):
            raise BadRecord(Reason.BAD_PAYLOAD, f"{len(payload)} bytes are no {beams} distances")
        return Read(None, 0, 0)

    def opened(self, window: Window, events: Sequence[Event], wanted: KindOfInput | None) -> tuple[bool, ...]:
        if not isinstance(wanted, LidarInput):
            return (False,) * len(events)
        return tuple(place >= len(events) - wanted.scans for place in range(len(events)))


KIND = Lidar()


def handling() -> Any:
    """What models do with scans."""
    import numpy as np
    import torch
    from torch import Tensor, nn

    from streamer.model.handling import Cut, Cutting, Handling
    from streamer.model.kinds.stacking import masks, stacked
    from streamer.model.nets.build import Plan
    from streamer.model.payloads import payload
    from streamer.model.sample import Sample

    class Encoder(nn.Module):
        """A token for each scan."""

        def __init__(self, beams: int, width: int) -> None:
            super().__init__()
            self.inward = nn.Linear(beams, width)

        def forward(self, lidar_BTC: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
            return self.inward(torch.where(mask_BT[..., None], lidar_BTC, 0.0)), mask_BT

    class Scans(Handling[LidarInput]):
        fields = ("lidar_BTC", "lidar_mask_BT")

        def cut(self, sensor: str, events: Sequence[Event], wanted: LidarInput | None, cutting: Cutting) -> Cut:
            if wanted is None:
                return Cut({}, bool(events), float(bool(events)))
            lidar_TC, mask_T = np.zeros((wanted.scans, wanted.beams), np.float32), np.zeros(wanted.scans, np.bool_)
            for event in events[-wanted.scans :]:
                scan_C = np.frombuffer(payload(event), "<f4")
                if len(scan_C) != wanted.beams or not np.isfinite(scan_C).all():
                    fault = BadRecord(Reason.BAD_PAYLOAD, f"is no scan of {wanted.beams} finite distances")
                    cutting.rejects.append((event, fault))
                    continue
                place = int(mask_T.sum())
                lidar_TC[place], mask_T[place] = scan_C, True
            if not mask_T.any():
                return Cut({}, False, 0.0)
            return Cut({"arrays": {"lidar_TC": lidar_TC, "lidar_mask_T": mask_T}}, True, 1.0)

        def collate(self, samples: Sequence[Sample], wanted: LidarInput, tokenizer: object) -> dict[str, Tensor]:
            shape = (wanted.scans, wanted.beams)
            lidar_BTC = stacked([sample.arrays.get("lidar_TC") for sample in samples], shape, np.float32)
            mask_BT = masks([sample.arrays.get("lidar_mask_T") for sample in samples], shape[:1])
            return {"lidar_BTC": torch.from_numpy(lidar_BTC), "lidar_mask_BT": mask_BT}

        def encoder(self, plan: Plan) -> nn.Module:
            return Encoder(plan.data.others["lidar"].beams, plan.sizes.width)

    return Scans()


def column() -> Any:
    """How data sets have scans: files of them, evenly spaced over the window."""
    from streamer.training.data.column import Column, Piece
    from streamer.training.data.columns import file
    from streamer.training.data.rows import Content

    class Files(Column[Sequence[Content]]):
        value = list[str]

        def cell(self, value: list[str], folder: Path) -> Sequence[Content]:
            return [file(folder, name) for name in value]

        def files(self, value: list[str]) -> list[str]:
            return value

        def pieces(self, cell: Sequence[Content], start_us: int, end_us: int) -> Iterable[Piece]:
            for place, content in enumerate(cell):
                at_us = (2 * place + 1) * end_us // (2 * len(cell))
                yield Piece(at_us, at_us, content.read(), CONTENT_TYPE)

    return Files()
