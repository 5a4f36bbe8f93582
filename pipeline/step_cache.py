"""Steps that are not repeated: each leaves a stamp of what it was made from beside what it made.

The stamp is a digest of the step's settings, its input files, the stamp of the step before it and the source code that
it runs. A step whose stamp is unchanged is reused; one that was interrupted has no stamp and runs again.
"""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from contract.files import write_text
from contract.settings import Settings
from pipeline.console import Progress, progress_of, say

STEP_FILE = "step.json"


class StepRecord(Settings):
    """``step.json``: what a step made, from what (`stamp`), when (UTC), and in how many seconds."""

    step: str
    stamp: str
    made: str
    seconds: float
    outputs: tuple[str, ...]
    """Files below the step's directory without which it is not done."""
    result: dict[str, Any]


def read_record(directory: Path) -> StepRecord | None:
    """The record in a directory; None where there is none, or none that this version can read."""
    try:
        return StepRecord.model_validate_json((directory / STEP_FILE).read_bytes())
    except (OSError, ValidationError):
        return None


def once(
    step: str,
    directory: Path,
    stamp: str,
    work: Callable[[Progress], dict[str, Any]],
    outputs: Sequence[str],
    *,
    in_place: bool = True,
) -> StepRecord:
    """Do the work, unless `directory` holds what the same work made before.

    `work` writes the `outputs` below `directory` and returns what is to be told about them. Work that is not `in_place`
    changes nothing when it fails, so that what was made before stays valid.
    """
    earlier = read_record(directory)
    if earlier is not None and earlier.stamp == stamp and all((directory / name).exists() for name in earlier.outputs):
        say(f"{step}: reused, unchanged since {earlier.made} ({directory})")
        return earlier
    started = time.monotonic()
    if in_place:
        (directory / STEP_FILE).unlink(missing_ok=True)
    with progress_of(step) as progress:
        result = work(progress)
    record = StepRecord(
        step=step,
        stamp=stamp,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - started, 3),
        outputs=tuple(outputs),
        result=result,
    )
    write_text(record.model_dump_json(indent=1) + "\n", directory / STEP_FILE)
    return record
