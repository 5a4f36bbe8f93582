"""What every test starts from."""

import signal

import pytest


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """Let programs under test hear ctrl-c also where the tests run in the background.

    A shell starts background jobs with SIGINT ignored, and a program inherits that from its parent; a handler of the
    parent's own it does not inherit.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
