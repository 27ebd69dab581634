"""SSD with MobileNet v2 of the TensorFlow model zoo: the weights of its frozen graph -> the same network as ONNX.

ONNX Runtime takes about half of OpenCV's time for it (``python -m bench.everyday``). Networks: MobileNetV2 (Sandler et
al. 2018, table 2) and SSD (Liu et al. 2016); names, anchors and box coding as in TensorFlow's object detection API.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamer.errors import UsageError, extra
from streamer.senses import frozen

SIZE = 300  # pixels of a side of its pictures
CLASSES = 91  # the first is background
STRIDES = (1, 2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1)  # of MobileNetV2's blocks
TAPPED = 13  # the block whose expansion is the finest map that objects are found on
EXTRAS = ((2, 512), (3, 256), (4, 256), (5, 128))  # numbers and channels of the layers behind the last block
MAPS = (19, 10, 5, 3, 2, 1)  # cells of a side of each map
SCALES = (0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.0)  # of the anchors of each map and of the next: shares of a side
RATIOS = (1.0, 2.0, 0.5, 3.0, 1 / 3)  # width ÷ height
BOX_SCALES = np.array([0.1, 0.1, 0.2, 0.2], np.float32)  # of offsets and of logarithms of sizes
EPSILON = 0.001  # of batch normalisation
OPSET, IR, ONNX_FLOAT = 17, 8, 1  # read by ONNX Runtime since 1.12

Floats = NDArray[np.float32]


class Map(NamedTuple):
    """A layer's output: the tensor's name, its cells along a side, its channels."""

    name: str
    size: int
    channels: int


def to_onnx(path: Path) -> bytes:
    """The network of a frozen graph.

    Returns:
        An ONNX model: pictures uint8 [N, 300, 300, 3], RGB -> boxes [N, A, 4], relative to :func:`anchors`, and
        scores [N, A, 91], probabilities.

    Raises:
        UsageError: The file is no frozen graph of this network, or a library is not installed.
    """
    with extra("senses", f"reading {path}"):
        from onnx import TensorProto, helper, numpy_helper
    layers = _Layers(frozen.constants(path))
    try:
        encoded, scores = _network(layers)
    except KeyError as error:
        raise UsageError(f"{path} is no SSD with MobileNet v2: it has no {error.args[0]}") from None
    graph = helper.make_graph(
        [helper.make_node(op, inputs, [output], **attributes) for op, inputs, output, attributes in layers.nodes],
        "ssd",
        [helper.make_tensor_value_info("pictures", TensorProto.UINT8, ["n", SIZE, SIZE, 3])],
        [
            helper.make_tensor_value_info(encoded, TensorProto.FLOAT, ["n", "a", 4]),
            helper.make_tensor_value_info(scores, TensorProto.FLOAT, ["n", "a", CLASSES]),
        ],
        [numpy_helper.from_array(array, name) for name, array in layers.weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
    content: bytes = model.SerializeToString()
    return content


def anchors() -> Floats:
    """The anchors in the order of the network's outputs.

    Returns:
        float32 [A, 4]: centre y, centre x, height and width, shares of the picture's sides.
    """
    found = []
    for index, cells in enumerate(MAPS):
        scale, following = SCALES[index : index + 2]
        if index == 0:  # the finest map has three, the first of them small
            shapes = [(0.1, 1.0), (scale, 2.0), (scale, 0.5)]
        else:
            shapes = [*((scale, ratio) for ratio in RATIOS), (float(np.sqrt(scale * following)), 1.0)]
        for row in range(cells):
            for column in range(cells):
                centre = ((row + 0.5) / cells, (column + 0.5) / cells)
                found += [(*centre, size / ratio**0.5, size * ratio**0.5) for size, ratio in shapes]
    return np.array(found, np.float32)


def boxes(encoded_A4: Floats, anchors_A4: Floats) -> Floats:
    """Undo the coding of boxes.

    Returns:
        float32 [A, 4]: x0, y0, x1, y1, shares of the picture's sides, cut off at its borders.
    """
    scaled_A4 = encoded_A4 * BOX_SCALES
    centres_A2 = anchors_A4[:, :2] + scaled_A4[:, :2] * anchors_A4[:, 2:]
    halves_A2 = anchors_A4[:, 2:] * np.exp(scaled_A4[:, 2:]) / 2
    corners_A4 = np.concatenate([centres_A2 - halves_A2, centres_A2 + halves_A2], axis=1)
    turned_A4: Floats = np.clip(corners_A4[:, [1, 0, 3, 2]], 0, 1)
    return turned_A4


class _Layers:
    """ONNX nodes and weights, as they are added.

    Args:
        constants: Of the frozen graph.
    """

    def __init__(self, constants: dict[str, Floats]) -> None:
        self._constants = constants
        self.nodes: list[tuple[str, list[str], str, dict[str, Any]]] = []
        self.weights: dict[str, NDArray[Any]] = {}

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        output = f"{op}_{len(self.nodes)}"
        self.nodes.append((op, list(inputs), output, attributes))
        return output

    def weight(self, array: NDArray[Any]) -> str:
        name = f"weight_{len(self.weights)}"
        self.weights[name] = np.ascontiguousarray(array)
        return name

    def convolution(self, given: Map, name: str, stride: int = 1, *, relu: bool = True, deep: bool = False) -> Map:
        """A convolution with TensorFlow's padding ``SAME``, which adds an odd cell at the end; ReLU6 behind it.

        Args:
            deep: Each channel by itself.
        """
        kernel = self._constants[f"{name}/{'depthwise_weights' if deep else 'weights'}"]  # [height, width, in, out]
        kernel_OIHW = kernel.transpose(2, 3, 0, 1) if deep else kernel.transpose(3, 2, 0, 1)
        norm = f"{name}/BatchNorm"
        if f"{norm}/gamma" in self._constants:
            gamma, beta, mean, variance = (
                self._constants[f"{norm}/{part}"] for part in ("gamma", "beta", "moving_mean", "moving_variance")
            )
            factor_O = gamma / np.sqrt(variance + EPSILON)
            kernel_OIHW, bias_O = kernel_OIHW * factor_O[:, None, None, None], beta - mean * factor_O
        else:
            bias_O = self._constants[f"{name}/biases"]
        cells = -(-given.size // stride)
        padding = max((cells - 1) * stride + kernel.shape[0] - given.size, 0)
        before, after = padding // 2, padding - padding // 2
        made = self.node(
            "Conv",
            given.name,
            self.weight(kernel_OIHW),
            self.weight(bias_O),
            strides=[stride, stride],
            pads=[before, before, after, after],
            group=len(kernel_OIHW) if deep else 1,
        )
        if relu:
            made = self.node("Clip", made, self.scalar(0.0), self.scalar(6.0))
        return Map(made, cells, len(bias_O))

    def scalar(self, value: float) -> str:
        name = f"scalar_{value:g}"
        self.weights[name] = np.array(value, np.float32)
        return name

    def by_anchor(self, given: Map, columns: int) -> str:
        """A map [N, anchors × columns, cells, cells] as [N, A, columns]."""
        last = self.node("Transpose", given.name, perm=[0, 2, 3, 1])
        return self.node("Reshape", last, self.weight(np.array([0, -1, columns], np.int64)))


def _network(layers: _Layers) -> tuple[str, str]:
    """Add the whole network; returns the names of boxes and scores."""
    levels = layers.node("Transpose", layers.node("Cast", "pictures", to=ONNX_FLOAT), perm=[0, 3, 1, 2])
    scaled = layers.node("Sub", layers.node("Mul", levels, layers.scalar(2 / 255)), layers.scalar(1.0))
    root = "FeatureExtractor/MobilenetV2"
    seen = layers.convolution(Map(scaled, SIZE, 3), f"{root}/Conv", 2)
    maps = []
    for index, stride in enumerate(STRIDES):
        name = f"{root}/expanded_conv{f'_{index}' if index else ''}"
        wide = layers.convolution(seen, f"{name}/expand") if index else seen
        if index == TAPPED:
            maps.append(wide)
        deep = layers.convolution(wide, f"{name}/depthwise", stride, deep=True)
        narrow = layers.convolution(deep, f"{name}/project", relu=False)
        if narrow[1:] == seen[1:]:  # of one shape: a residual block
            narrow = narrow._replace(name=layers.node("Add", seen.name, narrow.name))
        seen = narrow
    maps.append(layers.convolution(seen, f"{root}/Conv_1"))
    for number, channels in EXTRAS:
        small = layers.convolution(maps[-1], f"{root}/layer_19_1_Conv2d_{number}_1x1_{channels // 2}")
        name = f"{root}/layer_19_2_Conv2d_{number}_3x3_s2_{channels}"
        deep = layers.convolution(small, f"{name}_depthwise", 2, deep=True)
        maps.append(layers.convolution(deep, name))
    said = {
        head: layers.node(
            "Concat",
            *(
                layers.by_anchor(layers.convolution(one, f"BoxPredictor_{number}/{head}", relu=False), columns)
                for number, one in enumerate(maps)
            ),
            axis=1,
        )
        for head, columns in (("BoxEncodingPredictor", 4), ("ClassPredictor", CLASSES))
    }
    return said["BoxEncodingPredictor"], layers.node("Sigmoid", said["ClassPredictor"])
