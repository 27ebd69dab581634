"""How many heaps glibc makes for a worker's threads, and what of freed memory it keeps."""

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


BATCHES = """
import resource, sys
from streamer.worker import process

if sys.argv[1] == "shared":
    process.share_one_heap()
def batch():
    return [bytearray(4 << 20) for _ in range(10)]  # as tensors come and go
batch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    batch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc alone")
@pytest.mark.parametrize("how", ["shared", "as it is"])
def test_a_worker_s_threads_share_a_heap(tmp_path: Path, how: str) -> None:
    told = tmp_path / "malloc.xml"
    subprocess.run([sys.executable, "-c", PROGRAM, how, str(told)], check=True)
    heaps = told.read_text().count("<heap nr=")
    assert heaps == 1 if how == "shared" else heaps > 1


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc alone")
def test_a_batch_finds_the_memory_of_the_one_before() -> None:
    pages = 10 * 10 * (4 << 20) // 4096
    run = [sys.executable, "-c", BATCHES]
    shared, plain = (
        int(subprocess.run([*run, how], check=True, capture_output=True, text=True).stdout)
        for how in ("shared", "as it is")
    )
    assert shared < pages / 10 < plain
