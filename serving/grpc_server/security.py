"""Who may connect: TLS with certificates that are read again when they change, client certificates, bearer tokens."""

import hmac
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

import grpc

from contract.errors import AuthenticationError, ConfigError

LOG = logging.getLogger("moerank.security")
T = TypeVar("T")
OPEN_TO_ALL = "/grpc.health.v1."


class Followed(Generic[T]):
    """Something made from files, made again when one of them changes; the last good one stays on failure."""

    def __init__(self, paths: tuple[Path, ...], make: Callable[[tuple[bytes, ...]], T]) -> None:
        """Make it a first time.

        Raises:
            ConfigError: a file cannot be read, or nothing can be made of it.
        """
        self._paths = paths
        self._make = make
        self._state = self._look()
        self.value = self._read()

    def refresh(self) -> bool:
        """Make it again if a file has changed; whether it did."""
        try:
            state = self._look()
            if state == self._state:
                return False
            self._state = state
            self.value = self._read()
        except ConfigError as error:
            LOG.error("kept what was read before: %s", error)  # noqa: TRY400 the message says it all
            return False
        LOG.info("read %s again", ", ".join(map(str, self._paths)))
        return True

    def _look(self) -> tuple[tuple[int, int, int], ...]:
        try:
            statuses = [path.stat() for path in self._paths]
        except OSError as error:
            message = f"{error.filename} cannot be read: {error.strerror}"
            raise ConfigError(message) from error
        return tuple((status.st_ino, status.st_mtime_ns, status.st_size) for status in statuses)

    def _read(self) -> T:
        try:
            return self._make(tuple(path.read_bytes() for path in self._paths))
        except OSError as error:
            message = f"{error.filename} cannot be read: {error.strerror}"
            raise ConfigError(message) from error


def server_credentials(certificate: Path, key: Path, client_ca: Path | None) -> grpc.ServerCredentials:
    """TLS, and with `client_ca` only for clients with a certificate of that authority; files may be replaced any time.

    Raises:
        ConfigError: a file cannot be read, or is no PEM file of its kind.
    """
    paths = (certificate, key) if client_ca is None else (certificate, key, client_ca)

    def make(contents: tuple[bytes, ...]) -> Any:
        for path, content, kind in zip(paths, contents, (b"CERTIFICATE", b"PRIVATE KEY", b"CERTIFICATE"), strict=False):
            if kind + b"-----" not in content:
                message = f"{path} holds no PEM {kind.decode().lower()}"
                raise ConfigError(message)
        roots = contents[2] if client_ca is not None else None
        return grpc.ssl_server_certificate_configuration([(contents[1], contents[0])], roots)

    followed = Followed(paths, make)

    def fetch() -> Any:
        return followed.value if followed.refresh() else None

    return grpc.dynamic_ssl_server_credentials(followed.value, fetch, client_ca is not None)


class Tokens:
    """The bearer tokens of a file; it may be replaced while serving."""

    def __init__(self, path: Path) -> None:
        """Read the tokens, one per line.

        Raises:
            ConfigError: the file cannot be read or holds no token.
        """
        self._tokens = Followed((path,), lambda contents: _tokens(path, contents[0]))

    def require(self, metadata: Mapping[str, str | bytes]) -> None:
        """Refuse a call without ``authorization: Bearer TOKEN``.

        Raises:
            AuthenticationError: no token, or none of the file's.
        """
        given = str(metadata.get("authorization", "")).encode()
        self._tokens.refresh()
        # Every token is compared, in a time that does not tell how much of one was right.
        matches = [hmac.compare_digest(_bearer(token), given) for token in self._tokens.value]
        if not any(matches):
            message = "the call carries no valid token; send the metadata authorization: Bearer TOKEN"
            raise AuthenticationError(message)


def _bearer(token: bytes) -> bytes:
    return b"Bearer " + token


def _tokens(path: Path, content: bytes) -> tuple[bytes, ...]:
    tokens = tuple(line.strip() for line in content.splitlines() if line.strip())
    if not tokens:
        message = f"{path} holds no tokens; write one per line"
        raise ConfigError(message)
    return tokens
