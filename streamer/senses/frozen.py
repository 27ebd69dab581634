"""The constants of a frozen TensorFlow graph, without TensorFlow: the file is a protocol buffer of type GraphDef.

Only the fields that constants have are declared here; the library skips all others. Field numbers: TensorFlow's
graph.proto, node_def.proto, attr_value.proto, tensor.proto, tensor_shape.proto.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.errors import UsageError, extra

FLOAT = 1  # DT_FLOAT

# message -> its fields: number, name, type (of another message: its name), whether it is repeated
MESSAGES: dict[str, list[tuple[int, str, str, bool]]] = {
    "GraphDef": [(1, "node", "NodeDef", True)],
    "NodeDef": [(1, "name", "string", False), (2, "op", "string", False), (5, "attr", "Attribute", True)],
    "Attribute": [(1, "key", "string", False), (2, "value", "AttrValue", False)],
    "AttrValue": [(8, "tensor", "TensorProto", False)],
    "TensorProto": [
        (1, "dtype", "int32", False),
        (2, "shape", "TensorShapeProto", False),
        (4, "content", "bytes", False),
        (5, "float_val", "float", True),
    ],
    "TensorShapeProto": [(2, "dim", "Dim", True)],
    "Dim": [(1, "size", "int64", False)],
}


def constants(path: Path) -> dict[str, NDArray[np.float32]]:
    """Name of a node -> its float32 array, for all constants.

    Raises:
        UsageError: The file is no graph, or protobuf is not installed.
    """
    with extra("senses", f"reading {path}"):
        from google.protobuf.message import DecodeError
    graph = _graph_type()()
    try:
        graph.ParseFromString(path.read_bytes())
    except DecodeError:
        raise UsageError(f"{path} is no frozen TensorFlow graph") from None
    found = {}
    for node in graph.node:
        if node.op == "Const":
            tensor = next((attr.value.tensor for attr in node.attr if attr.key == "value"), None)
            if tensor is not None and tensor.dtype == FLOAT:
                found[node.name] = _array(tensor)
    return found


def _array(tensor: Any) -> NDArray[np.float32]:
    shape = [dim.size for dim in tensor.shape.dim]
    if tensor.content:
        return np.frombuffer(tensor.content, "<f4").reshape(shape)
    values = np.array(tensor.float_val, np.float32)
    return np.full(shape, values[0]) if values.size == 1 else values.reshape(shape)  # one stands for all


def _graph_type() -> Any:
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="frozen.proto", package="frozen", syntax="proto3")
    kinds = descriptor_pb2.FieldDescriptorProto
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, field, kind, repeated in fields:
            label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            added = message.field.add(name=field, number=number, label=label)
            if kind in MESSAGES:
                added.type, added.type_name = kinds.TYPE_MESSAGE, f".frozen.{kind}"
            else:
                added.type = getattr(kinds, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("frozen.GraphDef"))
