"""The fused model: it receives built encoders, fusion and heads. Shape suffixes: see ``inputs``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from streamer.model.nets.encoders import Tokens
from streamer.model.nets.encoders.telemetry import TelemetryEncoder
from streamer.model.nets.encoders.text import TextEncoder
from streamer.model.nets.heads import NumberHead
from streamer.model.nets.inputs import Inputs, Outputs
from streamer.model.nets.layers import Backboned, masked_mean

TELEMETRY = ("telemetry_BCT", "telemetry_mask_BCT")


class FusedModel(nn.Module):
    """Encoders -> tokens -> fusion -> heads, and a vector of each sensor in the common embedding space.

    Args:
        encoders: Sensor -> encoder, for the sensors that the model has an input for.
        shared: Sensor without an encoder of its own -> the one whose encoder reads it.
        heads: Name of an output -> its head.
    """

    def __init__(
        self,
        encoders: dict[str, nn.Module],
        fusion: nn.Module,
        heads: dict[str, nn.Module],
        width: int,
        common: int,
        shared: Mapping[str, str],
    ) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(encoders)
        self.encoder_of = {**{name: name for name in encoders}, **shared}
        names = list(self.encoder_of)
        self.kind = nn.ParameterDict({name: torch.randn(width) * 0.02 for name in names})  # which sensor
        self.norms = nn.ModuleDict({name: nn.LayerNorm(width) for name in names})
        self.fusion = fusion
        self.heads = nn.ModuleDict(heads)
        self.common = nn.ModuleDict({name: nn.Linear(width, common) for name in (*names, "fused")})

    def forward(self, inputs: Inputs, shown: Mapping[str, Tensor] | None = None) -> Outputs:
        """Run the model on a batch of windows.

        Args:
            shown: Sensor -> in which windows the fusion sees it, bool [B]; its vector is computed in all. So training
                with gaps needs no further pass of the encoders. ``None``: the fusion sees all.
        """
        return self.fused({name: self.encoded(name, inputs) for name in self.encoder_of}, shown)

    def encoded(self, name: str, inputs: Inputs) -> Tokens:
        """Tokens of a sensor; those of a window depend on nothing else."""
        tokens_BND, mask_BN = self.encoders[self.encoder_of[name]](*inputs.of(name).values())
        return self.norms[name](tokens_BND), mask_BN

    def fused(self, encoded: Mapping[str, Tokens], shown: Mapping[str, Tensor] | None = None) -> Outputs:
        """Run what follows the encoders: :meth:`forward` from the tokens of all sensors."""
        tokens, masks, parts = [], [], {}
        for name in self.encoder_of:
            tokens_BND, mask_BN = encoded[name]
            parts[name] = (self._in_common(name, masked_mean(tokens_BND, mask_BN)), mask_BN.any(1))
            tokens.append(tokens_BND + self.kind[name])
            masks.append(mask_BN if shown is None else mask_BN & shown[name][:, None])
        fused_BD = self.fusion(tokens, masks)
        logits = {name: head(fused_BD) for name, head in self.heads.items()}
        return Outputs(logits, self._in_common("fused", fused_BD), parts)

    def standardise(self, inputs: Inputs) -> None:
        """Set each telemetry channel's mean and deviation from training data; they are measured, not learned."""
        for own, encoder in self.encoders.items():
            if isinstance(encoder, TelemetryEncoder):
                given = [inputs.of(name) for name, reads in self.encoder_of.items() if reads == own]
                values_BCT, masks_BCT = (torch.cat([each[field] for each in given]) for field in TELEMETRY)
                encoder.standardise(values_BCT, masks_BCT)

    def standardise_targets(self, name: str, values_N: Tensor | Sequence[float]) -> None:
        """Set the mean and deviation of a number from its training targets, in its unit.

        Raises:
            ValueError: The output is not a number, or there is no target, or one is not finite.
        """
        head = self.heads[name]
        if not isinstance(head, NumberHead):
            raise ValueError(f"output {name} is no number")
        head.standardise(torch.as_tensor(values_N))

    def notes(self) -> list[str]:
        """What the user should know about pretrained parts before training, a line each."""
        lines = []
        for name, encoder in self.encoders.items():
            if isinstance(encoder, TextEncoder) and encoder.begun_with:
                lines.append(f"{name}: {encoder.begun_with}")
            for part in encoder.modules():
                if isinstance(part, Backboned):
                    count = sum(weight.numel() for weight in part.backbone.parameters())
                    lines.append(
                        f"{name}: the backbone's {count:,} parameters {'are frozen' if part.frozen else 'learn'}"
                    )
        return lines

    def _in_common(self, name: str, x_BD: Tensor) -> Tensor:
        return functional.normalize(self.common[name](x_BD).float(), dim=-1)
