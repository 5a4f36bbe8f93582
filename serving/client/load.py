"""Load on a running server: so many callers at once, each with one call after the other; what came back, and when."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

import grpc
import numpy as np
from grpc import aio
from numpy.typing import NDArray

from contract.errors import ConfigError, UnavailableError
from serving.client.channel import path

WARM_UP = 0.2
"""The share of the time whose calls are not counted."""


@dataclass(frozen=True)
class LoadReport:
    """What a load test saw: `latencies_ms` float64 [answered], ascending; `statuses` counts all calls by gRPC status.

    `client_cores` is what the load generator itself used, or the busiest of its processes. Near 1 it was the limit, and
    the server could do more.
    """

    seconds: float
    statuses: dict[str, int]
    latencies_ms: NDArray[np.float64]
    client_cores: float

    @classmethod
    def joined(cls, reports: "Sequence[LoadReport]") -> Self:
        """What several load generators saw that ran at the same time."""
        statuses: Counter[str] = Counter()
        for report in reports:
            statuses.update(report.statuses)
        return cls(
            seconds=max(report.seconds for report in reports),
            statuses=dict(statuses),
            latencies_ms=np.sort(np.concatenate([report.latencies_ms for report in reports])),
            client_cores=max(report.client_cores for report in reports),
        )

    @property
    def calls_per_second(self) -> float:
        """Answered calls."""
        return len(self.latencies_ms) / self.seconds

    def percentile(self, percent: float) -> float:
        """Milliseconds within which so many percent of the answered calls were answered; NaN without any."""
        return float(np.percentile(self.latencies_ms, percent)) if len(self.latencies_ms) else float("nan")


@dataclass(frozen=True)
class LoadPlan:
    """How to load a server: `requests` are serialised ``RankRequest`` messages, used in turn."""

    target: str
    requests: Sequence[bytes]
    callers: int = 8
    connections: int = 1
    """Over which the callers are spread; a server of several processes answers each connection with one of them."""
    seconds: float = 10.0
    timeout: float = 5.0
    metadata: tuple[tuple[str, str], ...] = ()


def run_load(plan: LoadPlan, credentials: grpc.ChannelCredentials | None = None) -> LoadReport:
    """Load a server and report.

    Raises:
        ConfigError: there is no request to send, or nobody to send it, or a connection that nobody would use.
        UnavailableError: no server answers.
    """
    if not plan.requests or plan.callers < 1 or plan.seconds <= 0:
        message = f"a load test needs requests, callers and seconds, but got {len(plan.requests)}, {plan.callers}, "
        raise ConfigError(message + f"{plan.seconds:g}")
    if not 1 <= plan.connections <= plan.callers:
        message = f"connections is {plan.connections}; allowed are 1 to {plan.callers}, the number of callers"
        raise ConfigError(message)
    return asyncio.run(_run(plan, credentials))


@asynccontextmanager
async def _connected(plan: LoadPlan, credentials: grpc.ChannelCredentials | None) -> AsyncIterator[list[Any]]:
    """What makes a call, for each connection of the plan."""
    # Channels of one process share connections otherwise.
    own = [("grpc.use_local_subchannel_pool", 1)]
    target = plan.target
    async with AsyncExitStack() as stack:
        channels = [
            aio.insecure_channel(target, own) if credentials is None else aio.secure_channel(target, credentials, own)
            for _ in range(plan.connections)
        ]
        for channel in channels:
            await stack.enter_async_context(channel)
        try:
            await asyncio.wait_for(asyncio.gather(*(each.channel_ready() for each in channels)), plan.timeout)
        except TimeoutError as error:
            message = f"no server answers at {target} after {plan.timeout:g} seconds"
            raise UnavailableError(message) from error
        yield [
            each.unary_unary(path("Rank"), request_serializer=bytes, response_deserializer=bytes) for each in channels
        ]


async def _run(plan: LoadPlan, credentials: grpc.ChannelCredentials | None) -> LoadReport:
    async with _connected(plan, credentials) as calls:
        began = time.perf_counter()
        counted_from, end = began + plan.seconds * WARM_UP, began + plan.seconds
        cpu = time.process_time()
        statuses: Counter[str] = Counter()
        latencies: list[float] = []

        async def caller(first: int) -> None:
            turn, call = first, calls[first % len(calls)]
            while (sent := time.perf_counter()) < end:
                try:
                    await call(plan.requests[turn % len(plan.requests)], timeout=plan.timeout, metadata=plan.metadata)
                    status = "OK"
                except aio.AioRpcError as error:
                    status = error.code().name
                answered = time.perf_counter()
                turn += plan.callers
                if counted_from <= sent and answered <= end:
                    statuses[status] += 1
                    if status == "OK":
                        latencies.append(answered - sent)

        await asyncio.gather(*(caller(first) for first in range(plan.callers)))
        cores = (time.process_time() - cpu) / (time.perf_counter() - began)
    ordered = np.sort(np.array(latencies, dtype=np.float64)) * 1000
    return LoadReport(end - counted_from, dict(statuses), ordered, cores)
