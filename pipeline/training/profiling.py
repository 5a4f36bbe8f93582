"""A trace of some steps, to be looked at in Perfetto or Chrome: ``RUN/profile/trace.json``."""

from pathlib import Path
from typing import Any

from torch.profiler import profile, schedule

FOLDER, TRACE = "profile", "trace.json"
_WAIT, _WARM_UP = 5, 2
"""The first steps allocate and tune; they are not what one wants to see."""


class StepProfiler:
    """Records `steps` steps of a run, once, after some that are not recorded; 0 steps: nothing."""

    def __init__(self, run_dir: Path, steps: int) -> None:
        """Begin to count."""
        self._folder, self._profile = run_dir / FOLDER, None
        if steps:
            self._folder.mkdir(parents=True, exist_ok=True)
            plan = schedule(wait=_WAIT, warmup=_WARM_UP, active=steps, repeat=1)
            self._profile = profile(schedule=plan, on_trace_ready=self._write, record_shapes=True)
            self._profile.start()

    def step(self) -> None:
        """One step is done."""
        if self._profile is not None:
            self._profile.step()

    def close(self) -> None:
        """Write what there is, of a run with fewer steps, too."""
        if self._profile is not None:
            self._profile.stop()
            self._profile = None

    def _write(self, recorded: Any) -> None:
        recorded.export_chrome_trace(str(self._folder / TRACE))
