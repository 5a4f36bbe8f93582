"""The server's deployment values: flags, environment variables ``MOERANK_*``, defaults; wrong ones reported at once."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, EnvSettingsSource, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from contract.errors import ConfigError
from contract.machine_cores import usable_cores
from serving.grpc_server.accepted_sockets import SUPPORTED
from serving.observe.logs import LogFormat

PREFIX = "MOERANK_"
MISSING_STORE = f"no model store is named; write `moerank serve STORE` or set {PREFIX}STORE"
MOST_CONNECTION_SECONDS = 2_000_000
"""What gRPC's milliseconds of 32 bits can hold, rounded down: 23 days."""
LOOPBACK = ("127.0.0.1", "localhost", "::1", "[::1]")


def _place(value: object) -> object:
    """A path, but not of a URL, whose double slash it would swallow."""
    return Path(value) if isinstance(value, str) and "://" not in value else value


def _split(value: object) -> object:
    """A list as flags and variables have it."""
    return tuple(part for part in value.split(",") if part) if isinstance(value, str) else value


def _own_cores(values: Mapping[str, object]) -> int:
    """A process's share of the cores."""
    processes = values.get("processes", 1)
    return max(1, usable_cores() // processes) if isinstance(processes, int) else usable_cores()


_ABOUT = {
    "pushed": "user_store",
    "push_max_age_seconds": "user_store",
    "user_keep_seconds": "user_store",
    "log_share": "log",
    "log_seconds": "log",
}
"""Settings that say how another works."""
_OF_CARDS = ("cuda_precision", "cuda_queue_ms", "cuda_tables", "cuda_graphs")
_OF_GRPCIO = ("message_seconds", *(() if SUPPORTED else ("max_connections", "connection_idle_seconds")))
"""Settings that do nothing behind the native front; what Linux knows of connections, others do not tell."""


class ServerSettings(BaseSettings):
    """Each field is a flag (``--max-candidates``) and a variable (``MOERANK_MAX_CANDIDATES``) of `moerank serve`.

    A program that makes one itself says everything itself: `read` alone looks at the environment.
    """

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_prefix=PREFIX, protected_namespaces=())

    store: Annotated[Path | str, BeforeValidator(_place)] = Field(
        description="the model store: a directory of MODEL/VERSION/, or a URL such as s3://BUCKET/PREFIX"
    )
    cache: Path | None = Field(None, description="folder for bundles of a store URL; default: below ~/.cache/moerank")
    models: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)] = Field(
        (), description="NAME or NAME@VERSION, several with commas; default: all"
    )
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(50051, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    front: Literal["grpcio", "native"] = Field(
        "grpcio", description="what speaks gRPC: grpcio, or native, an extra, with less CPU a call and without TLS"
    )
    allow_plaintext: bool = Field(default=False, description="listen beyond loopback although nothing is encrypted")
    tls_certificate: Path | None = Field(None, description="PEM certificate chain; may be replaced while serving")
    tls_key: Path | None = Field(None, description="PEM private key of the certificate")
    tls_client_ca: Path | None = Field(None, description="PEM authority; only clients that it certified may connect")
    token_file: Path | None = Field(None, description="bearer tokens, one per line; may be replaced while serving")
    processes: int = Field(1, ge=1, le=256, description="processes that share the port; each has its own interpreter")
    pin_cores: bool = Field(default=False, description="each of the processes keeps to cores of its own")
    threads: int = Field(
        default_factory=_own_cores, ge=1, le=1024, description="calls a process answers at once; default: cores, shared"
    )
    max_queue: int = Field(
        128, ge=0, le=100_000, description="calls that may wait for a thread of a process before new are refused"
    )
    device: Literal["cpu", "cuda", "auto"] = Field("cpu", description="where graphs run")
    require_gpu: bool = Field(default=False, description="fail unless graphs really run on CUDA")
    cuda_precision: Literal["fp32", "tf32", "fp16", "int8", "int4"] = Field(
        "fp32", description="what CUDA multiplies in; others than fp32 only where the bundle passed with them"
    )
    cuda_queue_ms: float = Field(
        0.5, ge=0, le=1000, description="on CUDA, how long a request may wait for others to share its run"
    )
    cuda_tables: Literal["auto", "card", "host"] = Field(
        "auto", description="on CUDA, where large embedding tables lie; auto: in the host's memory if they do not fit"
    )
    cuda_graphs: bool = Field(default=False, description="on CUDA, replay runs as captured graphs (no list features)")
    score: Path | None = Field(None, description="JSON file with score formulas by model, re-read when it changes")
    traffic: Path | None = Field(None, description="JSON file with canary and shadow versions, re-read when it changes")
    user_store: str | None = Field(None, description="redis://HOST:PORT/DB with users that change between versions")
    user_store_seconds: float = Field(0.02, gt=0, le=10, description="how long a look-up in it may take")
    user_keep_seconds: float = Field(
        0.0, ge=0, le=600, description="how long a user of it counts as read, for pages of candidates; 0: never"
    )
    user_keep_most: int = Field(100_000, ge=1, le=100_000_000, description="users that each model keeps so at most")
    pushed: Annotated[tuple[Literal["user", "item", "pair"], ...], NoDecode, BeforeValidator(_split)] = Field(
        ("user",), description="whose pushed features are read from the user store: user, item, pair, with commas"
    )
    push_max_age_seconds: float = Field(0.0, ge=0, description="older pushed values are not used; 0: all are")
    cascade: int | None = Field(
        None,
        ge=0,
        description="candidates that the experts see at most, chosen by a cheap head; default: the bundle's",
    )
    fewer_experts: int | None = Field(
        None,
        ge=0,
        description="experts that a row is left with under load; 0: all; default and least: the bundle's",
    )
    degrade: bool = Field(
        default=True, description="under load take fewer experts, then item priors, where the bundle has them"
    )
    max_candidates: int = Field(5000, ge=1, le=1_000_000, description="candidates that one call may have")
    max_users: int = Field(256, ge=1, le=100_000, description="requests that one batch may have")
    max_streams: int = Field(1024, ge=1, le=1_000_000, description="calls at once that one connection may have")
    message_seconds: float = Field(
        10.0, gt=0, le=600, description="how long a call's message may take to come before the call ends"
    )
    max_connections: int = Field(
        0, ge=0, le=1_000_000, description="connections at once; 0: as many as the limit of open files allows"
    )
    connection_idle_seconds: float = Field(
        300.0,
        ge=0,
        le=MOST_CONNECTION_SECONDS,
        description="close connections without a call for so long; 0: never",
    )
    connection_age_seconds: float = Field(
        0.0,
        ge=0,
        le=MOST_CONNECTION_SECONDS,
        description="close connections of that age, so that clients spread over new replicas; 0: never",
    )
    max_message_bytes: int = Field(4 << 20, ge=1024, le=1 << 30, description="size that one message may have")
    model_control: bool = Field(default=False, description="let callers load and unload models")
    metrics_port: int | None = Field(None, ge=0, le=65535, description="serve Prometheus metrics here; default: not")
    log: Annotated[Path | str | None, BeforeValidator(_place)] = Field(
        None, description="log served requests as Parquet below this directory or URL; default: not"
    )
    log_share: float = Field(0.1, ge=0, le=1, description="share of the requests that are logged")
    log_seconds: float = Field(60.0, gt=0, le=3600, description="how often a file of the log is written")
    traces: bool = Field(default=False, description="OpenTelemetry spans, through the process's tracer provider")
    log_format: LogFormat = Field("text", description="text, or json with one object a line")
    reflection: bool = Field(default=True, description="describe the services to tools such as grpcurl")
    poll_seconds: float = Field(1.0, gt=0, le=3600, description="how often the store is looked at for new versions")
    drain_seconds: float = Field(0.0, ge=0, le=600, description="on SIGTERM, how long to answer while NOT_SERVING")
    grace_seconds: float = Field(20.0, ge=0, le=3600, description="then, how long calls under way may take")

    @model_validator(mode="after")
    def _safe(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            message = "--tls-certificate and --tls-key belong together; one of them is missing"
            raise ValueError(message)
        if self.tls_client_ca is not None and self.tls_certificate is None:
            message = "--tls-client-ca needs --tls-certificate and --tls-key"
            raise ValueError(message)
        if self.tls_certificate is None and self.host not in LOOPBACK and not self.allow_plaintext:
            message = f"host {self.host} is beyond loopback and nothing is encrypted; pass --allow-plaintext to accept"
            raise ValueError(message)
        if self.processes > 1 and self.model_control:
            message = "--model-control reaches one process of several; publish versions instead, or use --processes 1"
            raise ValueError(message)
        if self.front == "native" and (self.tls_certificate is not None or self.connection_age_seconds):
            message = "--front native has no TLS and no connection age; leave those to a proxy, or take --front grpcio"
            raise ValueError(message)
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Nothing but what is passed."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)

    def without_effect(self) -> list[str]:
        """What was set and does nothing, since what it is about is not."""
        changed = {n for n, field in type(self).model_fields.items() if getattr(self, n) != field.default}
        alone = [
            f"{_flag(name)} has no effect without {_flag(needed)}"
            for name, needed in _ABOUT.items()
            if name in changed and getattr(self, needed) is None
        ]
        if self.device == "cpu" and not self.require_gpu:
            alone += [f"{_flag(name)} has no effect with --device cpu" for name in _OF_CARDS if name in changed]
        if self.processes == 1 and self.pin_cores:
            alone.append("--pin-cores has no effect with --processes 1")
        of_grpcio = [name for name in _OF_GRPCIO if name in changed and self.front == "native"]
        return alone + [f"{_flag(name)} has no effect with --front native" for name in of_grpcio]

    def without_a_card(self) -> str:
        """What was set and does nothing where ``auto`` finds no card; empty if nothing was."""
        changed = [n for n in _OF_CARDS if getattr(self, n) != type(self).model_fields[n].default]
        if self.device != "auto" or not changed:
            return ""
        flags = ", ".join(_flag(name) for name in changed)
        return f"--device auto found no card and serves on the CPU; without effect there: {flags}"

    @property
    def admitted(self) -> int:
        """How many calls may run or wait."""
        return self.threads + self.max_queue

    @property
    def target(self) -> str:
        """What to bind to."""
        host = f"[{self.host}]" if ":" in self.host and not self.host.startswith("[") else self.host
        return f"{host}:{self.port}"

    @classmethod
    def read(cls, flags: Mapping[str, object], environment: Mapping[str, str] | None = None) -> Self:
        """Combine flags (None: not given) with the environment; flags win.

        Raises:
            ConfigError: naming every value that is wrong.
        """
        variables = EnvSettingsSource(cls)
        if environment is not None:
            variables.env_vars = {name.lower(): value for name, value in environment.items()}
        given = {name: flags[name] for name in cls.model_fields if flags.get(name) is not None}
        values = {**variables(), **given}
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            problems = [
                MISSING_STORE if e["type"] == "missing" else _problem(e["loc"], e["msg"], e["input"])
                for e in error.errors()
            ]
            message = "the server cannot start: " + "; ".join(problems)
            raise ConfigError(message) from error


def _problem(location: tuple[int | str, ...], text: str, given: object) -> str:
    if not location:
        return text.removeprefix("Value error, ")
    name = str(location[0])
    return f"{_flag(name)} (or {PREFIX}{name.upper()}): {text}, given {given!r}"


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add every setting as a flag; the store is positional. Feed ``vars(namespace)`` to `ServerSettings.read`."""
    for name, field in ServerSettings.model_fields.items():
        text = f"{field.description} [{PREFIX}{name.upper()}]"
        if name == "store":
            parser.add_argument(name, nargs="?", help=text)
        elif field.annotation is bool:
            parser.add_argument(_flag(name), action=argparse.BooleanOptionalAction, help=text)
        else:
            parser.add_argument(_flag(name), metavar=name.split("_")[-1].upper(), help=text)
