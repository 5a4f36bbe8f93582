"""A server at 70 % of what it can answer, whose versions are swapped all the while, does not grow."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from grpc import aio

from serving.store.local_store import point
from serving.stubs.moerank.v1 import ranking_pb2
from tests.faults.conftest import Rounds, Tell
from tests.faults.load import BODY, RANK, Outcome, Served, flood, one_after_the_other, serving
from tests.patience import PATIENCE
from tests.tiny_bundle import publish_tiny

SHARE = 0.7
FLAGS = ("--poll-seconds", "0.1", "--metrics-port", "0")
MEGABYTE = 1 << 20
# What allocators and gRPC's own thread pools may still take after the first third.
MORE_MEMORY, MORE_THREADS, MORE_FILES = 16 * MEGABYTE, 3, 3
LEAKING = """
import sys
from serving import __main__
from serving.graph.served_model import RankingModel
kept, open_model = [], RankingModel.open
def leak(*given, **named):
    model = open_model(*given, **named)
    # The tables of these versions hold a few rows; those of a real one would have taken at least so many bytes.
    kept.append((model, b"\1" * (4 << 20)))
    return model
RankingModel.open = leak
sys.exit(__main__.main())
"""


class Sample(NamedTuple):
    """What a process held at a moment."""

    memory: int
    threads: int
    files: int

    @classmethod
    def of(cls, served: Served) -> "Sample":
        with served.process.oneshot():
            return cls(served.process.memory_info().rss, served.process.num_threads(), served.process.num_fds())


def growth(samples: Sequence[Sample]) -> list[str]:
    """What the last third of the samples holds more of than the second."""
    third = len(samples) // 3
    before, after = (np.array(part) for part in (samples[third : 2 * third], samples[2 * third :]))
    more = np.median(after, axis=0) - np.median(before, axis=0)
    allowed = (MORE_MEMORY, MORE_THREADS, MORE_FILES)
    named = zip(Sample._fields, more.tolist(), allowed, strict=True)
    return [f"{name} grew by {value:.0f}, allowed is {limit}" for name, value, limit in named if value > limit]


async def swap_to(port: int, store: Path, version: int) -> None:
    """Return once a version answers, so that however slow the machine is, none of the swaps is left out."""
    point(store, "tiny", version)
    channel: Any
    async with asyncio.timeout(PATIENCE), aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        rank = channel.unary_unary(RANK, response_deserializer=ranking_pb2.RankResponse.FromString)
        while (await rank(BODY)).version != version:  # noqa: ASYNC110 the server tells nobody of its swaps
            await asyncio.sleep(0.02)


async def soak(served: Served, store: Path, seconds: float, swaps: int) -> tuple[Outcome, list[Sample]]:
    """Load a server, swap between its two versions so many times, and look at it after each."""
    alone = await one_after_the_other(served.port, 100)
    rate = SHARE * len(alone.answered) / sum(alone.answered)
    load = asyncio.create_task(flood(served.port, rate, seconds))
    samples = []
    for swap in range(swaps):
        pause = asyncio.create_task(asyncio.sleep(seconds / swaps))
        await swap_to(served.port, store, swap % 2 + 1)
        await pause
        samples.append(Sample.of(served))
    return await load, samples


@pytest.fixture
def two_versions(tmp_path: Path) -> Path:
    for seed in (0, 1):
        publish_tiny(tmp_path / "store", tmp_path / f"work{seed}", seed=seed, layers=8)
    return tmp_path / "store"


@pytest.mark.slow
def test_memory_threads_and_files_stay_flat(two_versions: Path, rounds: type[Rounds], record_property: Tell) -> None:
    with serving(two_versions, *FLAGS) as served:
        outcome, samples = asyncio.run(soak(served, two_versions, rounds.of(6, 180), rounds.of(12, 180)))
    thirds = [samples[place * len(samples) // 3 : (place + 1) * len(samples) // 3] for place in range(3)]
    held = [[float(value) for value in np.median(third, axis=0)] for third in thirds]
    record_property("memory, threads and files of each third", held)
    record_property("answered, refused", (len(outcome.answered), len(outcome.refused)))
    assert outcome.answered
    assert not outcome.other
    assert not outcome.unhealthy
    assert not growth(samples)


@pytest.mark.slow
def test_control_a_server_that_keeps_its_old_versions_grows(two_versions: Path) -> None:
    with serving(two_versions, *FLAGS, program=("-c", LEAKING)) as served:
        _, samples = asyncio.run(soak(served, two_versions, 6, 30))
    assert "memory" in " ".join(growth(samples))
