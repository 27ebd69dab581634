#!/usr/bin/env bash
# wfdb 4.3.1: a record whose header leaves out the number of samples, as header(5) of the WFDB library allows, can be
# read whole, but no part of it: rdrecord with sampto compares it with the missing number.
#
# Seen on Python 3.11:
#   rdrecord("ward")                        1000 samples
#   rdrecord("ward", sampfrom=0, sampto=10) TypeError: '>' not supported between instances of 'int' and 'NoneType'
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check wfdb==4.3.1
mkdir "$folder/work" && cd "$folder/work"
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
from pathlib import Path

import numpy as np
import wfdb

wfdb.wrsamp("ward", fs=100, units=["mV"], sig_name=["II"], p_signal=np.sin(np.arange(1000) / 9)[:, None], fmt=["16"])
header = Path("ward.hea")
assert len(wfdb.rdrecord("ward", sampfrom=0, sampto=10).p_signal) == 10
header.write_text(header.read_text().replace("ward 1 100 1000", "ward 1 100"))
print("wfdb", wfdb.__version__)
print(header.read_text().strip())
whole = wfdb.rdrecord("ward")
print("whole:", len(whole.p_signal), "samples")
assert len(whole.p_signal) == 1000
try:
    part = wfdb.rdrecord("ward", sampfrom=0, sampto=10)
except TypeError as error:
    print("part: TypeError:", error)
else:
    raise AssertionError(f"wfdb has changed: {len(part.p_signal)} samples")
print("as described")
PYTHON
