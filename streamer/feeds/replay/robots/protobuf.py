"""Decodes Protobuf messages by the schema that an MCAP file has of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def decoder(kind: str, schema: bytes) -> Callable[[bytes], dict[str, Any]]:
    """A decoder from a message to a tree of dictionaries.

    A field that can be unset (``optional``, ``oneof``, a message) and is, is not in the tree: it is no measurement.
    Proto3's other fields are 0 where nothing is on the wire: there the two cannot be told apart.

    Args:
        kind: Full name of the message's type.
        schema: A serialised ``FileDescriptorSet`` with the type and all that it imports.

    Raises:
        ValueError: The schema is broken.
        ImportError: protobuf is not installed.
    """
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    from google.protobuf.message import DecodeError

    try:
        files = {file.name: file for file in descriptor_pb2.FileDescriptorSet.FromString(schema).file}
        pool = descriptor_pool.DescriptorPool()
        while files:  # a file is added after those that it imports
            ready = [name for name, file in files.items() if not any(other in files for other in file.dependency)]
            if not ready:
                raise ValueError(f"schema {kind}: its files import each other")
            for name in ready:
                pool.Add(files.pop(name))
        message_class = message_factory.GetMessageClass(pool.FindMessageTypeByName(kind))
    except (DecodeError, KeyError, TypeError) as error:
        raise ValueError(f"schema {kind}: {error}") from None

    def decode(message: bytes) -> dict[str, Any]:
        try:
            return _tree(message_class.FromString(message))
        except DecodeError as error:
            raise ValueError(str(error)) from None

    return decode


def _tree(message: Any) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        if field.has_presence and not message.HasField(field.name):
            continue
        value = getattr(message, field.name)
        nested = field.message_type is not None
        if not field.is_repeated:
            tree[field.name] = _tree(value) if nested else value
        elif nested and field.message_type.GetOptions().map_entry:
            of_messages = field.message_type.fields_by_name["value"].message_type is not None
            tree[field.name] = {str(key): _tree(one) if of_messages else one for key, one in value.items()}
        else:
            tree[field.name] = [_tree(one) for one in value] if nested else list(value)
    return tree
