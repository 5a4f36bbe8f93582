"""Flags, environment and their refusals."""

import argparse
from pathlib import Path

import pytest

from contract.errors import ConfigError
from serving.grpc_server.server_settings import ServerSettings, add_arguments


def parse(*arguments: str) -> dict[str, object]:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return vars(parser.parse_args(arguments))


def test_flags_win_over_the_environment_and_that_over_defaults() -> None:
    environment = {"MOERANK_PORT": "7000", "MOERANK_STORE": "/b", "MOERANK_REFLECTION": "false"}
    settings = ServerSettings.read(parse("/a", "--models", "x,y@2"), environment)
    assert settings.store == Path("/a")
    assert settings.port == 7000
    assert settings.models == ("x", "y@2")
    assert not settings.reflection
    assert settings.host == "127.0.0.1"


def test_a_program_that_makes_settings_itself_does_not_get_those_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MOERANK_PORT", "7000")
    monkeypatch.setenv("MOERANK_MODELS", "x,y@2")
    assert ServerSettings(store=Path("/a")).port == 50051
    read = ServerSettings.read(parse("/a"))
    assert (read.port, read.models) == (7000, ("x", "y@2"))


def test_all_wrong_values_are_reported_at_once() -> None:
    with pytest.raises(ConfigError) as refused:
        ServerSettings.read(parse("--port", "70000", "--device", "tpu"), {"MOERANK_MAX_CANDIDATES": "many"})
    for expected in ("MOERANK_STORE", "--port", "70000", "--device", "tpu", "MOERANK_MAX_CANDIDATES", "many"):
        assert expected in str(refused.value)


@pytest.mark.parametrize(("processes", "threads"), [("1", 3), ("2", 1), ("8", 1)])
def test_processes_share_the_cores_that_may_be_used(
    processes: str, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.grpc_server.server_settings.usable_cores", lambda: 3)
    assert ServerSettings.read(parse("/a", "--processes", processes), {}).threads == threads


def test_what_does_nothing_is_told() -> None:
    idle = ServerSettings.read(parse("/a", "--pushed", "item", "--log-share", "0.5"), {})
    assert idle.without_effect() == [
        "--pushed has no effect without --user-store",
        "--log-share has no effect without --log",
    ]
    native = ServerSettings.read(parse("/a", "--front", "native", "--message-seconds", "9"), {})
    assert native.without_effect() == ["--message-seconds has no effect with --front native"]
    used = ServerSettings.read(parse("/a", "--log", "/log", "--log-share", "0.5"), {})
    assert used.without_effect() == ServerSettings(store=Path("/a")).without_effect() == []


def test_what_is_said_of_cards_and_cores_does_nothing_without_them() -> None:
    flags = ("--cuda-precision", "fp16", "--cuda-queue-ms", "2", "--cuda-tables", "host", "--cuda-graphs")
    assert ServerSettings.read(parse("/a", *flags, "--pin-cores"), {}).without_effect() == [
        "--cuda-precision has no effect with --device cpu",
        "--cuda-queue-ms has no effect with --device cpu",
        "--cuda-tables has no effect with --device cpu",
        "--cuda-graphs has no effect with --device cpu",
        "--pin-cores has no effect with --processes 1",
    ]
    for used in (("--device", "auto"), ("--require-gpu",)):
        flags_used = parse("/a", *flags, *used, "--pin-cores", "--processes", "2")
        assert ServerSettings.read(flags_used, {}).without_effect() == []


def test_what_does_nothing_where_auto_finds_no_card_is_told_in_one_line() -> None:
    flags = ("--cuda-precision", "fp16", "--cuda-graphs")
    assert ServerSettings.read(parse("/a", *flags, "--device", "auto"), {}).without_a_card() == (
        "--device auto found no card and serves on the CPU; without effect there: --cuda-precision, --cuda-graphs"
    )
    # Each of these is told or refused elsewhere, or there is nothing to tell.
    for others in ((*flags, "--device", "cpu"), (*flags, "--device", "cuda"), ("--device", "auto")):
        assert ServerSettings.read(parse("/a", *others), {}).without_a_card() == ""


def test_plaintext_beyond_loopback_must_be_asked_for() -> None:
    with pytest.raises(ConfigError, match="pass --allow-plaintext"):
        ServerSettings.read(parse("/a", "--host", "192.0.2.1"), {})
    assert ServerSettings.read(parse("/a", "--host", "192.0.2.1", "--allow-plaintext"), {}).allow_plaintext


@pytest.mark.parametrize("flag", ["--connection-idle-seconds", "--connection-age-seconds"])
@pytest.mark.parametrize("seconds", ["inf", "3000000", "nan", "-1"])
def test_times_that_grpc_cannot_count_are_refused_by_their_flag(flag: str, seconds: str) -> None:
    with pytest.raises(ConfigError, match=rf"{flag} .*given '{seconds}'"):
        ServerSettings.read(parse("/a", flag, seconds), {})
    assert ServerSettings.read(parse("/a", flag, "2000000"), {}) != ServerSettings(store=Path("/a"))
