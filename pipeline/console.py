"""What a person sees while work goes on: live status in a terminal, plain lines elsewhere.

All of it goes to standard error; standard output is for answers.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console as RichConsole
from rich.status import Status

_SCREEN = RichConsole(stderr=True, highlight=False, soft_wrap=True)
_READERS: list[Callable[[str], None]] = []


def say(text: str) -> None:
    """Print a line for a person, or hand it to whoever reads the lines instead."""
    if _READERS:
        _READERS[-1](text)
    else:
        _SCREEN.print(text, markup=False)


@contextmanager
def lines_to(reader: Callable[[str], None]) -> Iterator[None]:
    """Hand all lines of the block to a reader, such as a flow run's logger, instead of the screen."""
    _READERS.append(reader)
    try:
        yield
    finally:
        _READERS.pop()


class Progress:
    """Tells how work goes on; call it with a few words as each part of it begins."""

    def __init__(self, name: str, status: Status | None) -> None:
        """`status` is the live line of a terminal; without a terminal there is none."""
        self._name, self._status = name, status

    def __call__(self, text: str) -> None:
        """A part begins: the live line changes, or a line is printed."""
        if self._status is None:
            self.say(text)
        else:
            self.live(text)

    def live(self, text: str) -> None:
        """Something that changes all the time, such as rows done: only for a live line."""
        if self._status is not None:
            self._status.update(f"{self._name}: {text}")

    def say(self, text: str) -> None:
        """Something to keep, such as an epoch's metrics: a line everywhere."""
        say(f"  {self._name}: {text}")


@contextmanager
def progress_of(name: str) -> Iterator[Progress]:
    """Show that work is under way, and its wall time when it is done."""
    started = time.monotonic()
    if _SCREEN.is_terminal:
        with _SCREEN.status(name) as status:
            yield Progress(name, status)
    else:
        yield Progress(name, None)
    say(f"{name}: done in {time.monotonic() - started:.1f} s")


def answer(text: str) -> None:
    """Print a result on standard output."""
    sys.stdout.write(text.rstrip("\n") + "\n")
