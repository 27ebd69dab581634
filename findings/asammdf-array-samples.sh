#!/usr/bin/env bash
# asammdf 8.8.28: a Signal with samples in two dimensions is accepted by MDF.append for any type of numbers. Bytes come
# back as they were; of other types the array is written flat and cut to the number of times, so that row 1 holds what
# was the second value of row 0. The page on append asks for a record array; nothing warns of a plain one.
#
# Seen on Python 3.11, rows [0 1 2] [3 4 5] [6 7 8]:
#   uint8    [0 1 2] [3 4 5] [6 7 8]
#   float64  0.0  1.0  2.0
#   int16    0  1  2
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check asammdf==8.8.28
mkdir "$folder/work" && cd "$folder/work"
"$folder/venv/bin/python" -W error::UserWarning - <<'PYTHON'
import asammdf
import numpy as np

print("asammdf", asammdf.__version__)
for kind in ("uint8", "float64", "int16"):
    rows = np.arange(9).reshape(3, 3).astype(kind)
    with asammdf.MDF(version="4.10") as file:
        file.append([asammdf.Signal(rows, np.arange(3.0), name="acceleration")])
        file.save(f"{kind}.mf4")
    with asammdf.MDF(f"{kind}.mf4") as file:
        read = file.get("acceleration").samples
    print(kind, "written", rows.tolist(), "read", read.tolist())
    assert read.tolist() == (rows.tolist() if kind == "uint8" else [0, 1, 2]), "asammdf has changed"
print("as described")
PYTHON
