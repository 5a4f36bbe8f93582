"""How clients call: the service config, and the response message of each method."""

import json
from typing import Any

from google.protobuf.message import Message

from contract.errors import UnavailableError
from serving.stubs.moerank.v1 import ranking_pb2

_SERVICE = ranking_pb2.DESCRIPTOR.services_by_name["RankingService"]
ATTEMPTS = 4
RESPONSES: dict[str, type[Message]] = {
    method.name: getattr(ranking_pb2, method.output_type.name) for method in _SERVICE.methods
}


def path(method: str) -> str:
    """A method's name on the wire."""
    return f"/{_SERVICE.full_name}/{method}"


def channel_options(attempts: int = ATTEMPTS) -> list[tuple[str, Any]]:
    """Options of a channel: calls are repeated while the server is unavailable, and spread over all addresses."""
    retry = {
        "maxAttempts": max(attempts, 2),
        "initialBackoff": "0.05s",
        "maxBackoff": "1s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    method = {"name": [{"service": _SERVICE.full_name}], "retryPolicy": retry}
    config = {"methodConfig": [method], "loadBalancingConfig": [{"round_robin": {}}]}
    return [
        ("grpc.enable_retries", int(attempts > 1)),
        ("grpc.service_config", json.dumps(config)),
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
    ]


def unreachable(target: str, seconds: float) -> UnavailableError:
    """The error where no server accepts connections."""
    message = f"no ranking server answers at {target} after {seconds:g} seconds; start one with `moerank serve STORE`"
    return UnavailableError(message)
