"""Calls a moerank server: a synchronous and an asyncio client, and the errors that they raise."""

from moerank_client.aio_client import AsyncRankingClient
from moerank_client.answer import ExpertUse, GateUse, RankAnswer
from moerank_client.attempts import CallOptions
from moerank_client.blocking_client import RankingClient
from moerank_client.client_response import Query, RankResult
from moerank_client.errors import (
    AuthenticationError,
    DeadlineError,
    ModelNotFoundError,
    MoerankError,
    NotAllowedError,
    OverloadedError,
    RequestError,
    ServerError,
    UnavailableError,
)

__all__ = [
    "AsyncRankingClient",
    "AuthenticationError",
    "CallOptions",
    "DeadlineError",
    "ExpertUse",
    "GateUse",
    "ModelNotFoundError",
    "MoerankError",
    "NotAllowedError",
    "OverloadedError",
    "Query",
    "RankAnswer",
    "RankResult",
    "RankingClient",
    "RequestError",
    "ServerError",
    "UnavailableError",
]
