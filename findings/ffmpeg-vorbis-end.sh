#!/usr/bin/env bash
# FFmpeg 8.1 (in PyAV 18.1.0) and Ogg Vorbis written by libvorbis (in soundfile 0.14.0): the first sample of the file is
# given a time of one short block after 0, and as many samples are missing at the end. A sample's time in Ogg is the
# number of samples before it, and the last page says how many there are; libsndfile returns exactly these.
#
# The file's first audio packet only primes the decoder (Vorbis I, section 4.3.8: no samples are returned for it). FFmpeg
# counts it as a block's length nevertheless, so the last packet seems to reach beyond the stated end and is cut.
#
# Seen on Python 3.11, 3 s at 16 kHz:
#   written 48000, libsndfile 48000, FFmpeg 47744 with the first at 256/16000 s; the first 1000 are the file's first 1000
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check av==18.1.0 numpy==2.4.6 soundfile==0.14.0
mkdir "$folder/work" && cd "$folder/work"
"$folder/venv/bin/python" - <<'PYTHON'
import av
import numpy as np
import soundfile

print("PyAV", av.__version__, "libavcodec", ".".join(map(str, av.library_versions["libavcodec"])))
print("soundfile", soundfile.__version__, soundfile.__libsndfile_version__)
written = 0.5 * np.sin(np.arange(48_000) ** 1.2 / 300)
soundfile.write("tone.ogg", written, 16_000)
read, _ = soundfile.read("tone.ogg")
with av.open("tone.ogg") as container:
    frames = list(container.decode(audio=0))
heard = np.concatenate([frame.to_ndarray()[0] for frame in frames])
first = frames[0].pts
print(f"written {len(written)}, libsndfile {len(read)}, FFmpeg {len(heard)} with the first at {first}/16000 s")
assert len(read) == 48_000
assert np.abs(heard[:1000] - read[:1000]).max() < 0.01, "FFmpeg leaves out the beginning"
assert (first, len(heard)) == (256, 48_000 - 256), "FFmpeg has changed"
print("as described")
PYTHON
