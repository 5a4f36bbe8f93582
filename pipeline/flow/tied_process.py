"""A program that ends when the one that started it is gone: ``python -m pipeline.flow.tied_process PID MODULE ...``.

A child in a session of its own outlives a parent that is killed. This runs MODULE as ``python -m MODULE ...`` would,
beside a thread that looks each second whether PID is still the parent.
"""

import os
import runpy
import signal
import sys
import threading
import time

TIED = "pipeline.flow.tied_process"
_LOOK_SECONDS = 1.0


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_end_with, args=(int(sys.argv[1]),), daemon=True).start()
    del sys.argv[:2]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
