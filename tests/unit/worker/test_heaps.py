"""How many heaps glibc makes for a worker's threads."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import ctypes, sys, threading
from streamer.worker import process

if sys.argv[1] == "shared":
    process.share_one_heap()
together = threading.Barrier(4)
def allocate():
    held = [bytearray(100_000) for _ in range(20)]
    together.wait()
threads = [threading.Thread(target=allocate) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(libc.fopen(sys.argv[2].encode(), b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc alone")
@pytest.mark.parametrize("how", ["shared", "as it is"])
def test_a_worker_s_threads_share_a_heap(tmp_path: Path, how: str) -> None:
    told = tmp_path / "malloc.xml"
    subprocess.run([sys.executable, "-c", PROGRAM, how, str(told)], check=True)
    heaps = told.read_text().count("<heap nr=")
    assert heaps == 1 if how == "shared" else heaps > 1
