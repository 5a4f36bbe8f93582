"""One message for a job of several ranks: the first rank that fails tells, and the others end without a word.

torchrun gives each rank of an attempt a file for its error, all in one folder; who makes the file `TOLD` there first
speaks. What is written to its error file stands in torchrun's own summary.
"""

import json
import os
import time
from pathlib import Path

ERROR_FILE = "TORCHELASTIC_ERROR_FILE"
"""The variable in which torchrun names it."""
TOLD = "told"
DEFECT_SECONDS, LOST_SECONDS = 1.0, 4.0
"""How long an unexpected error, and a rank that lost another one, wait for the rank that knows the cause to speak."""
_LOOK_SECONDS = 0.05


def rank_of() -> str:
    """`` (rank 1 of 2)``, or nothing for a process of its own."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    return f" (rank {os.environ.get('RANK', '0')} of {world})" if world > 1 else ""


def speaks(message: str, seconds: float = 0.0) -> bool:
    """Whether this process is to tell a failure: one of its own always, of several ranks the first.

    Args:
        message: What it will tell, for torchrun's summary.
        seconds: How long to wait for another rank to speak first.
    """
    file = os.environ.get(ERROR_FILE)
    if not rank_of() or not file:
        return True
    marker = Path(file).parent.parent / TOLD
    end = time.monotonic() + seconds
    while time.monotonic() < end and not marker.exists():
        time.sleep(_LOOK_SECONDS)
    try:
        with marker.open("x", encoding="utf-8") as mark:
            mark.write(message)
        extra = {"py_callstack": message, "timestamp": str(int(time.time()))}
        error = {"message": {"message": message, "extraInfo": extra}}
        Path(file).write_text(json.dumps(error), encoding="utf-8")
    except FileExistsError:
        return False
    except OSError:
        # A full disk: better told twice than not at all.
        return True
    return True
