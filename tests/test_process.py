"""What the command changes about its own process before it begins, and how it ends."""

import ctypes
import re
import subprocess
import sys

import pytest
from conftest import tfbatch_env

for_glibc = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="another C library than glibc")
POOL = """
from tfbatch.host.process import settle_heap
settle_heap()
import pyarrow
print(pyarrow.default_memory_pool().backend_name)
"""
HEAPS = """
import ctypes, sys, threading
from tfbatch.host import process
process.available_threads = lambda: int(sys.argv[1])
process.settle_heap()
held, beside = [], threading.Barrier(8)
def hold():
    beside.wait()
    held.append(bytearray(5000))
    beside.wait()
threads = [threading.Thread(target=hold) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
ctypes.CDLL(None).malloc_stats()
"""
BLOCK = """
import ctypes, sys
from tfbatch.host import process
process.available_threads = lambda: int(sys.argv[1])
process.settle_heap()
block = bytearray(500_000)
ctypes.CDLL(None).malloc_stats()
"""
CLOSED = """
import os
for number in (0, 2):
    os.close(number)
from tfbatch.host.process import keep_standard_files
keep_standard_files()
print(*(os.readlink(f"/proc/self/fd/{number}") for number in (0, 2)), os.open("/", os.O_RDONLY) > 2)
print(os.get_inheritable(2))
"""


def test_no_file_takes_the_place_of_a_standard_one_that_is_closed() -> None:
    command = [sys.executable, "-c", CLOSED]
    done = subprocess.run(command, env=tfbatch_env(), capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["/dev/null", "/dev/null", "True", "True"], "workers too"


@for_glibc
@pytest.mark.parametrize(("chosen", "found"), [({}, "system"), ({"ARROW_DEFAULT_MEMORY_POOL": "mimalloc"}, "mimalloc")])
def test_arrow_keeps_no_memory_of_its_own_unless_its_user_wants_it(chosen: dict[str, str], found: str) -> None:
    environment = tfbatch_env(chosen)
    if not chosen:
        environment.pop("ARROW_DEFAULT_MEMORY_POOL", None)
    done = subprocess.run([sys.executable, "-c", POOL], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == found


@for_glibc
def test_the_command_asks_before_it_imports_arrow() -> None:
    """Afterwards Arrow has its pool."""
    words = "import sys, tfbatch.cli, tfbatch.host.machine; print('pyarrow' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", words], env=tfbatch_env({}), capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


@for_glibc
@pytest.mark.parametrize("processors", [2, 16])
def test_threads_share_one_heap_on_a_small_machine_alone(processors: int) -> None:
    words = [sys.executable, "-c", HEAPS, str(processors)]
    done = subprocess.run(words, env=tfbatch_env({}), capture_output=True, text=True, check=True)
    assert (done.stderr.count("Arena ") == 1) == (processors == 2)


@for_glibc
def test_the_outputs_of_a_batch_are_kept_out_of_a_heap_that_all_threads_share() -> None:
    def blocks(processors: int) -> int:
        words = [sys.executable, "-c", BLOCK, str(processors)]
        done = subprocess.run(words, env=tfbatch_env({}), capture_output=True, text=True, check=True)
        return int(re.findall(r"max mmap regions *= *(\d+)", done.stderr)[-1])

    assert blocks(2) > blocks(16)


def test_a_process_that_leaves_does_what_is_registered_and_takes_nothing_apart() -> None:
    program = (
        "import atexit; from tfbatch.host.process import leave\n"
        "class Model:\n    def __del__(self): print('taken apart')\n"
        "model = Model(); atexit.register(print, 'registered'); print('said', end=' '); leave(3)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=tfbatch_env(), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, "said registered\n", "")
