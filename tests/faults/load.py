"""Load for fault tests: a server as a process of its own, and calls at a rate or one after the other."""

import asyncio
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
from google.rpc import error_details_pb2, status_pb2
from grpc import aio
from grpc_health.v1 import health_pb2

from serving.client.client_request import build_request
from serving.generate import ROOT
from tests.patience import PATIENCE

RANK = "/moerank.v1.RankingService/Rank"
HEALTH = "/grpc.health.v1.Health/Check"
BODY = build_request(user=1, items=[100 + i % 20 for i in range(40)]).SerializeToString()


@dataclass
class Outcome:
    """Latencies in seconds of answered and refused calls, what else happened, and health's answers."""

    answered: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    other: list[str] = field(default_factory=list)
    without_retry_info: int = 0
    unhealthy: int = 0


@dataclass(frozen=True)
class Served:
    """A server's process and port."""

    process: psutil.Process
    port: int


@contextmanager
def serving(store: Path, *flags: str, program: Sequence[str] = ("-m", "serving")) -> Iterator[Served]:
    """Serve a store until the end of the block."""
    command = [sys.executable, *program, str(store), "--port", "0", *flags]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        try:
            port = next(int(m[1]) for line in child.stderr if (m := re.search(r"on 127\.0\.0\.1:(\d+)", line)))
            # A server whose log nobody reads stops once the pipe is full.
            threading.Thread(target=child.stderr.read, daemon=True).start()
            yield Served(psutil.Process(child.pid), port)
        finally:
            # Without this a test that fails would wait for the server for ever.
            child.terminate()
            child.wait(PATIENCE)


def has_retry_info(error: aio.AioRpcError) -> bool:
    metadata: Any = error.trailing_metadata()
    found = status_pb2.Status.FromString(dict(metadata)["grpc-status-details-bin"]).details
    return any(detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR) for detail in found)


async def one(call: Any, outcome: Outcome, patience: float = PATIENCE) -> None:
    began = time.perf_counter()
    try:
        await call(BODY, timeout=patience)
        outcome.answered.append(time.perf_counter() - began)
    except aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
            outcome.refused.append(time.perf_counter() - began)
            outcome.without_retry_info += not has_retry_info(error)
        else:
            outcome.other.append(f"{error.code().name}: {error.details()}")


async def check_health(channel: Any, outcome: Outcome, end: float) -> None:
    check = channel.unary_unary(HEALTH, response_deserializer=health_pb2.HealthCheckResponse.FromString)
    while time.perf_counter() < end:
        try:
            answer = await check(b"", timeout=PATIENCE)
            outcome.unhealthy += answer.status != health_pb2.HealthCheckResponse.SERVING
        except aio.AioRpcError:
            outcome.unhealthy += 1
        await asyncio.sleep(0.1)


async def one_after_the_other(port: int, count: int) -> Outcome:
    outcome = Outcome()
    channel: Any
    async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        for _ in range(count):
            await one(channel.unary_unary(RANK), outcome)
    return outcome


async def flood(port: int, rate: float, seconds: float, patience: float = PATIENCE) -> Outcome:
    """Calls at a rate, whether or not earlier ones have been answered; each waits so long for its answer."""
    outcome = Outcome()
    channel: Any
    probe: Any
    # Whoever asks for health does so on a connection of their own.
    separate = [("grpc.use_local_subchannel_pool", 1)]
    target = f"127.0.0.1:{port}"
    async with aio.insecure_channel(target) as channel, aio.insecure_channel(target, separate) as probe:
        call = channel.unary_unary(RANK)
        began = time.perf_counter()
        tasks = [asyncio.create_task(check_health(probe, outcome, began + seconds))]
        sent = 0
        while (now := time.perf_counter() - began) < seconds:
            due = int(now * rate)
            tasks += [asyncio.create_task(one(call, outcome, patience)) for _ in range(due - sent)]
            sent = due
            await asyncio.sleep(0.005)
        await asyncio.gather(*tasks)
    return outcome


def p99(latencies: list[float]) -> float:
    return float(np.percentile(latencies, 99))
