"""How clients call: the service config, and the response message of each method."""

import json
from typing import Any

from google.protobuf.message import Message

from contract.errors import UnavailableError
from serving.stubs.moerank.v1 import ranking_pb2

_SERVICE = ranking_pb2.DESCRIPTOR.services_by_name["RankingService"]
ATTEMPTS = 4
KEEPALIVE_MS = 2_000
"""How often a silent connection is asked whether it lives; the server allows twice as much."""
KEEPALIVE_TIMEOUT_MS = 2_000
"""How long an answer may take. Both together are less than a call's deadline, so that one that waits for a server that
froze is made again elsewhere in time."""
RESPONSES: dict[str, type[Message]] = {
    method.name: getattr(ranking_pb2, method.output_type.name) for method in _SERVICE.methods
}


def path(method: str) -> str:
    """A method's name on the wire."""
    return f"/{_SERVICE.full_name}/{method}"


def channel_options() -> list[tuple[str, Any]]:
    """Options of a channel: calls are spread over all addresses whose health is SERVING.

    A server that drains, or that froze, gets no calls: one says NOT_SERVING, the other does not answer to keepalive.
    Attempts are the client's own (see `serving.client.attempts`), since grpcio knows nothing of RetryInfo.
    """
    config = {
        "loadBalancingConfig": [{"round_robin": {}}],
        "healthCheckConfig": {"serviceName": _SERVICE.full_name},
    }
    return [
        ("grpc.service_config", json.dumps(config)),
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        # The core of grpcio 1.85 goes by the second name only; for the first it would wait a minute.
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        ("grpc.http2.ping_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        # After two questions without a call in between it would not ask for a minute.
        ("grpc.http2.max_pings_without_data", 0),
        # Else all clients of a program share one connection, and so reach one process of a server that has several.
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
    ]


def authority_options(target: str) -> list[tuple[str, Any]]:
    """The name of the server that calls carry where a target lists several addresses: that of the first.

    gRPC would send the whole list, which is no name (RFC 3986, 3.2), and servers such as the native front refuse it.

    Example:
        >>> authority_options("ipv4:10.0.0.1:50051,10.0.0.2:50051")
        [('grpc.default_authority', '10.0.0.1:50051')]
        >>> authority_options("dns:///ranker:50051")
        []
    """
    scheme, _, addresses = target.partition(":")
    if scheme not in {"ipv4", "ipv6"} or "," not in addresses:
        return []
    return [("grpc.default_authority", addresses.partition(",")[0])]


def unreachable(target: str, seconds: float) -> UnavailableError:
    """The error where no server accepts connections."""
    message = f"no ranking server answers at {target} after {seconds:g} seconds; start one with `moerank serve STORE`"
    return UnavailableError(message)
