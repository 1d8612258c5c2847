"""What the command asks of the C library before Arrow is there."""

import ctypes
import subprocess
import sys

import pytest
from conftest import tfbatch_env

pytestmark = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="another C library than glibc")
POOL = """
from tfbatch.machine import return_freed_memory
return_freed_memory()
import pyarrow
print(pyarrow.default_memory_pool().backend_name)
"""


@pytest.mark.parametrize(("chosen", "found"), [({}, "system"), ({"ARROW_DEFAULT_MEMORY_POOL": "mimalloc"}, "mimalloc")])
def test_arrow_keeps_no_memory_of_its_own_unless_its_user_wants_it(chosen: dict[str, str], found: str) -> None:
    environment = tfbatch_env(chosen)
    if not chosen:
        environment.pop("ARROW_DEFAULT_MEMORY_POOL", None)
    done = subprocess.run([sys.executable, "-c", POOL], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == found


def test_the_command_asks_before_it_imports_arrow() -> None:
    """Afterwards Arrow has its pool."""
    words = "import sys, tfbatch.cli, tfbatch.machine; print('pyarrow' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", words], env=tfbatch_env({}), capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
