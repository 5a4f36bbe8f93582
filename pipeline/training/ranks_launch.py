"""``moerank train CONFIG --ranks N``: start the ranks as torchrun does, and end with one message if they fail."""

import logging
import os
import sys
import uuid
from collections.abc import Sequence

from contract.errors import TrainingError
from contract.machine_cores import usable_cores

INTERRUPTED = 130
"""The exit code of a command that was interrupted, by ctrl-c for example."""
LAUNCHED = "MOERANK_LAUNCHED"
"""Set for the ranks: this command says itself when it was interrupted, once for all of them."""
_SIGNALS = {"SIGKILL": "the system does so when memory runs out: use a smaller train.batch_size or fewer ranks"}
"""What to do about a rank that a signal ended, where there is something."""


def launch_ranks(ranks: int, restarts: int, words: Sequence[str]) -> int:
    """Run ``moerank WORDS`` on so many ranks of this machine, started again so often after a rank was lost.

    Returns:
        The exit code of the first rank that failed, which has told why; 0 if none did.

    Raises:
        KeyboardInterrupt: this process or a rank was interrupted.
        TrainingError: a rank was ended from outside before it could say anything.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException  # noqa: PLC0415 seconds of torch
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError  # noqa: PLC0415
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch  # noqa: PLC0415

    silence_elastic()
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // ranks)))
    os.environ[LAUNCHED] = "1"
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=ranks,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=restarts,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "pipeline", *words)
    except SignalException as error:
        raise KeyboardInterrupt from error
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode == INTERRUPTED:
            raise KeyboardInterrupt from error
        if failure.exitcode > 0:
            return int(failure.exitcode)
        name = failure.signal_name()
        message = (
            f"rank {rank} of {ranks} was ended by {name}; {_SIGNALS.get(name, 'its output says more')}. The same "
            "command goes on from the last checkpoint; --restarts 3 does so by itself"
        )
        raise TrainingError(message) from error
    return 0


def silence_elastic() -> None:
    """Its log of a failure is 30 lines, none of which says more than the rank's message.

    Each of its loggers has a level of its own, which that of their parent does not change.
    """
    for name in [*logging.root.manager.loggerDict, "torch.distributed.elastic"]:
        if name.startswith("torch.distributed.elastic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
