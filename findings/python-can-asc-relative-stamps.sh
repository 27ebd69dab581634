#!/usr/bin/env bash
# python-can 4.6.1: ASCReader notes "timestamps relative" in the header of a Vector ASC log (each stamp counts from the
# line before it) and never uses it: the distances come out as times.
#
# Seen on Python 3.11: three messages 0.5 s apart, from 0.5 s on, come out at 0.5, 0.5 and 0.5 s.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check python-can==4.6.1
mkdir "$folder/work" && cd "$folder/work"
"$folder/venv/bin/python" - <<'PYTHON'
import can

HEADER = "date Fri Jan 2 03:04:05.000 2026\nbase hex  timestamps {}\nno internal events logged\n"
LINE = "   {:.6f} 1  123             Rx   d 2 0{} 00\n"
print("python-can", can.__version__)
for kind, stamps in (("absolute", (0.5, 1.0, 1.5)), ("relative", (0.5, 0.5, 0.5))):
    with open("drive.asc", "w") as log:
        log.write(HEADER.format(kind) + "".join(LINE.format(stamp, i) for i, stamp in enumerate(stamps)))
    with can.ASCReader("drive.asc") as reader:
        times = [message.timestamp for message in reader]
    print(f"{kind}: header read as {reader.timestamps_format}, messages at {times}; right: 0.5, 1.0, 1.5")
    assert reader.timestamps_format == kind
    assert times == list(stamps), "python-can has changed"
print("as described")
PYTHON
