"""How the kernel shares cores among the server's threads."""

import logging
import os

LOG = logging.getLogger("moerank.server")


def compute_bound() -> None:
    """Have threads started from here on finish what they do before those that wake beside them get the core.

    Threads that move bytes wake several times a call. By default each may interrupt a thread that computes, whose
    caches are then cold; under Linux's SCHED_BATCH they wait, and several calls are taken together. See
    ``benchmarks/serving.md``. What an operator has chosen for the process stays.
    """
    if not hasattr(os, "SCHED_BATCH") or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return
    try:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    except OSError as error:  # a sandbox may forbid it, and the server works without
        LOG.info("the server keeps the default scheduling policy: %s", error)
