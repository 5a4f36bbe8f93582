"""Clients of the ranking service."""

from serving.client.aio_client import AsyncRankingClient
from serving.client.blocking_client import RankingClient

__all__ = ["AsyncRankingClient", "RankingClient"]
