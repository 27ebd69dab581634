#!/usr/bin/env bash
# rosbags 0.11.9: the constants of a message's definition (STATUS_FIX=0 of sensor_msgs/NavSatStatus) are fields of the
# objects that it makes, beside what was measured, and so is the type's name. Its generated classes annotate them as
# ClassVar, but import ClassVar for type checkers alone, and then dataclasses cannot know it. Whoever walks the fields
# of a message (vars, dataclasses.fields, asdict) finds enumerations among the measurements. A type store's fielddefs
# has the fields alone.
#
# Seen on Python 3.11: two fields in the definition below, five in the object.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check rosbags==0.11.9
mkdir "$folder/work" && cd "$folder/work"
"$folder/venv/bin/python" - <<'PYTHON'
import dataclasses
import struct
from importlib.metadata import version

from rosbags.typesys import Stores, get_types_from_msg, get_typestore

KIND = "test_msgs/msg/Fix"
DEFINITION = "int8 NO_FIX=-1\nint8 FIX=0\nint8 status\nuint16 service\n"
store = get_typestore(Stores.EMPTY)
store.register(get_types_from_msg(DEFINITION, KIND))
message = store.deserialize_cdr(b"\0\1\0\0" + struct.pack("<bxH", -1, 3), KIND)
defined = [name for name, _ in store.fielddefs[KIND][1]]
found = [field.name for field in dataclasses.fields(message)]
print("rosbags", version("rosbags"))
print("fields of the definition:", defined)
print("dataclasses.fields:      ", found)
print("asdict:                  ", dataclasses.asdict(message))
assert defined == ["status", "service"]
assert (message.status, message.service) == (-1, 3)
assert found == ["status", "service", "NO_FIX", "FIX", "__msgtype__"], "rosbags has changed"
print("as described")
PYTHON
