"""Memory that one step frees is there for the next, without the system clearing its pages again."""

import resource
import subprocess
import sys

import pytest

_PAGES = 2**25 // resource.getpagesize()
"""Of the 32 MiB that 4,096 rows of 2,048 numbers take, which glibc never keeps by itself."""
_PROGRAM = """
import resource, torch
from contextlib import nullcontext
from pipeline.training.host_memory import freed_memory_kept
with {context}():
    for _ in range(12):
        torch.ones(4096, 2048)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        torch.ones(4096, 2048)
    print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 4)
"""

_HELD = """
import psutil, torch
from pipeline.training.host_memory import freed_memory_kept
class Model:
    def __init__(self):
        self.itself, self.table, self.last = self, torch.ones(2**24), torch.ones(4)
@freed_memory_kept()
def train():
    model = Model()
    return torch.ones(4)
before = psutil.Process().memory_info().rss
answer = train()
print((psutil.Process().memory_info().rss - before) // 2**20)
"""


def faults(context: str) -> int:
    """Page faults of each matrix after the first dozen."""
    program = _PROGRAM.format(context=context)
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return int(run.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc is told")
def test_a_freed_matrix_costs_no_page_faults_the_next_time() -> None:
    assert faults("nullcontext") > _PAGES // 2
    assert faults("freed_memory_kept") < _PAGES // 20


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc is told")
def test_after_the_call_a_model_of_64_mib_is_given_back() -> None:
    run = subprocess.run([sys.executable, "-c", _HELD], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 32
