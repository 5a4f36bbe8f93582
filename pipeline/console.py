"""What a person sees while work goes on: live status in a terminal, plain lines elsewhere.

All of it goes to standard error; standard output is for answers.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console as RichConsole

Progress = Callable[[str], None]
_SCREEN = RichConsole(stderr=True, highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """Print a line for a person."""
    _SCREEN.print(text, markup=False)


@contextmanager
def stage(name: str) -> Iterator[Progress]:
    """Show that a stage is under way, and its wall time when it is done.

    Yields:
        A function that is told in a few words what the stage is doing now.
    """
    started = time.monotonic()
    if _SCREEN.is_terminal:
        with _SCREEN.status(name) as status:
            yield lambda text: status.update(f"{name}: {text}")
    else:
        yield lambda text: say(f"  {name}: {text}")
    say(f"{name}: done in {time.monotonic() - started:.1f} s")


def answer(text: str) -> None:
    """Print a result on standard output."""
    sys.stdout.write(text.rstrip("\n") + "\n")
