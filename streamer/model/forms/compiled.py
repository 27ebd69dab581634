"""torch.compile: kernels for this machine, made in the warm-up and not while a window waits."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.fx.experimental import _config as config
from torch.nn import functional
from torch.utils._triton import has_triton_package

from streamer.errors import ModelError
from streamer.model.forms.archive import is_text
from streamer.model.nets.inputs import Inputs, Outputs

LEAST = 2  # windows and tokens: the compiler makes a separate kernel for 1


class Compiled(nn.Module):
    """Runs a compiled model, with one set of kernels for all sizes of batch and text.

    A batch of one window is padded with an empty window, and a text of one token with a masked token, so that neither
    makes the compiler start again in the middle of a stream.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self._run = torch.compile(module, dynamic=True)

    def forward(self, inputs: Inputs) -> Outputs:
        given = inputs.tensors()
        rows = next(len(tensor) for tensor in given.values())
        with torch.inference_mode(False):  # tensors made in that mode are of another kind and get separate kernels
            padded = {name: _padded(name, tensor) for name, tensor in given.items()}
        # Else two sizes that happen to be equal would be taken for one, and compiled again where they differ.
        with config.patch(use_duck_shape=False):  # type: ignore[attr-defined]
            outputs: Outputs = self._run(Inputs.from_tensors(padded))
        logits = {name: logits_BL[:rows] for name, logits_BL in outputs.logits.items()}
        return Outputs(logits, outputs.embedding_BD[:rows], {})


def compiled(module: nn.Module, device: torch.device) -> Compiled:
    """The model, to be compiled at its first call.

    Raises:
        ModelError: There is no compiler for the device here.
    """
    if device.type == "cpu":
        from torch._inductor import exc
        from torch._inductor.cpp_builder import get_cpp_compiler

        try:
            get_cpp_compiler()
        except exc.InvalidCxxCompiler as error:
            raise ModelError("form compile needs a C++ compiler: g++ or clang++ on PATH, or one in CXX") from error
    if device.type == "cuda" and not has_triton_package():
        raise ModelError("form compile needs Triton on CUDA, which this installation lacks: take another form")
    return Compiled(module)


def _padded(name: str, tensor: Tensor) -> Tensor:
    text = is_text(name)
    missing = [max(0, LEAST - size) if axis == 0 or text else 0 for axis, size in enumerate(tensor.shape)]
    if not any(missing):
        return tensor
    return functional.pad(tensor, [side for count in reversed(missing) for side in (0, count)])
