#!/usr/bin/env bash
# python-can 4.6.1: CanutilsLogReader takes an error frame in a log of candump -L for one only if it has the class "bus
# error" (0x80). The other classes of linux/can/error.h (lost arbitration, controller, protocol, no acknowledgement, bus
# off, restarted) become data frames with the class as their extended id: whoever looks messages up by id meets one
# that was never on the bus.
#
# Seen on Python 3.11:
#   20000088#…  error frame
#   20000004#…  data frame 00000004, extended, 8 bytes
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check python-can==4.6.1
mkdir "$folder/work" && cd "$folder/work"
"$folder/venv/bin/python" - <<'PYTHON'
import can

CAN_ERR_FLAG = 0x20000000  # linux/can.h: this frame reports an error
CLASSES = {0x02: "lost arbitration", 0x04: "controller", 0x08: "protocol", 0x20: "no acknowledgement", 0x40: "bus off"}
with open("drive.log", "w") as log:
    log.write(f"(1767323045.000000) can0 {CAN_ERR_FLAG | 0x88:08X}#0000080000000000\n")
    for second, number in enumerate(CLASSES, 46):
        log.write(f"(17673230{second}.000000) can0 {CAN_ERR_FLAG | number:08X}#0004000000000000\n")
print("python-can", can.__version__)
bus_error, *others = can.LogReader("drive.log")
assert bus_error.is_error_frame
for message, (number, name) in zip(others, CLASSES.items(), strict=True):
    print(f"{name}: error {message.is_error_frame}, id {message.arbitration_id:08X}, extended {message.is_extended_id}")
    assert not message.is_error_frame, "python-can has changed"
    assert (message.arbitration_id, message.is_extended_id, message.dlc) == (number, True, 8)
print("as described")
PYTHON
