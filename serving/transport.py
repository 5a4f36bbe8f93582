"""Puts transport-free handlers on grpcio: raw bytes, deadlines, request ids, errors as statuses."""

import logging
import re
import secrets
import time
from collections.abc import Mapping
from typing import Protocol

import grpc
from grpc_status import rpc_status

from features.errors import MoerankError
from serving.service import Call, Handler
from serving.status import PUBLIC, status_of

LOG = logging.getLogger("moerank.server")
REQUEST_ID_HEADER = "x-request-id"
FOREVER_SECONDS = 3e8
"""grpcio states the absence of a deadline as an enormous time."""


class Service(Protocol):
    """What a service offers to a transport."""

    @property
    def name(self) -> str:
        """The full name, such as ``moerank.v1.RankingService``."""

    def handlers(self) -> Mapping[str, Handler]:
        """Handlers by method name."""


def generic_handler(service: Service) -> "grpc.GenericRpcHandler[bytes, bytes]":
    """What to add to a `grpc.Server` so that it answers a service's methods."""
    methods = {
        method: grpc.unary_unary_rpc_method_handler(_Behaviour(f"{service.name}/{method}", handler))
        for method, handler in service.handlers().items()
    }
    return grpc.method_handlers_generic_handler(service.name, methods)


class _Behaviour:
    """One method as grpcio calls it."""

    def __init__(self, method: str, handler: Handler) -> None:
        self._method = method
        self._handler = handler

    def __call__(self, body: bytes, context: grpc.ServicerContext) -> bytes:
        call = Call(_request_id(context), _expires(context))
        try:
            call.require_time()
            return self._handler(body, call)
        except MoerankError as error:
            if not isinstance(error, PUBLIC):
                LOG.exception("request %s to %s failed", call.request_id, self._method)
            _refuse(context, error, call)
        except Exception as error:
            # Whatever it is, its text must not reach the caller.
            LOG.exception("request %s to %s met a defect", call.request_id, self._method)
            _refuse(context, error, call)
        raise AssertionError(self._method)


def _refuse(context: grpc.ServicerContext, error: Exception, call: Call) -> None:
    context.abort_with_status(rpc_status.to_status(status_of(error, call.request_id)))


def _request_id(context: grpc.ServicerContext) -> str:
    """The caller's own id if it is a harmless token, so that logs of both sides can be joined."""
    for key, value in context.invocation_metadata() or ():
        if key == REQUEST_ID_HEADER and isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9._-]{1,64}", value):
            return value
    return secrets.token_hex(8)


def _expires(context: grpc.ServicerContext) -> float | None:
    remaining = context.time_remaining()
    return None if remaining is None or remaining > FOREVER_SECONDS else time.monotonic() + remaining
