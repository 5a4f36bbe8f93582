"""The pinned packages: complete, exclusive by device, and above the versions with published vulnerabilities."""

import importlib.metadata
import re
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

REQUIREMENTS = Path(__file__).parent.parent / "requirements"

# The first versions without a published vulnerability that matters here.
FLOORS = {"onnx": "1.21", "torch": "2.10", "prefect": "3.6.14", "pyarrow": "14.0.1", "grpcio": "1.66"}

# torchrec's metadata names the CUDA build on every machine; the CPU build gives the same import.
SAME_IMPORT = {"fbgemm-gpu": "fbgemm-gpu-cpu"}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@cache
def pins(file: str) -> dict[str, Version]:
    """Name and version of every line, with those of the files that it includes."""
    found: dict[str, Version] = {}
    for line in (REQUIREMENTS / file).read_text(encoding="utf-8").splitlines():
        text = line.partition("#")[0].strip()
        if text.startswith("-r "):
            found |= pins(text.removeprefix("-r ").strip())
        elif text:
            name, _, version = text.replace("===", "==").partition("==")
            assert version, f"{file}: {text!r} is not pinned"
            assert normal(name) not in found, f"{file}: {name} is pinned twice"
            found[normal(name)] = Version(version)
    return found


def needs(name: str, extras: frozenset[str]) -> list[Requirement]:
    """What an installed distribution asks for on this machine, with this Python or the oldest that is supported."""
    requirements = [Requirement(text) for text in importlib.metadata.requires(name) or []]
    pythons: tuple[dict[str, str], ...] = ({}, {"python_version": "3.11", "python_full_version": "3.11.0"})
    cases = [python | {"extra": extra} for python in pythons for extra in extras | {""}]
    return [r for r in requirements if r.marker is None or any(r.marker.evaluate(case) for case in cases)]


@pytest.mark.parametrize("name", FLOORS)
@pytest.mark.parametrize("file", ["cpu.txt", "gpu.txt"])
def test_no_pin_has_a_published_vulnerability(file: str, name: str) -> None:
    assert pins(file)[name] >= Version(FLOORS[name])


@pytest.mark.parametrize("name", FLOORS)
def test_nothing_installed_has_a_published_vulnerability(name: str) -> None:
    assert Version(importlib.metadata.version(name)) >= Version(FLOORS[name])


@pytest.mark.parametrize("python", ["3.11.2", "3.12.0", "3.13.0"])
def test_every_pin_takes_the_pythons_of_the_readme(python: str) -> None:
    """3.11.2 is Debian 12's: a pin that asks for a later patch cannot be installed there."""
    installed = {normal(each.metadata["Name"]): each.metadata for each in importlib.metadata.distributions()}
    asked = {name: installed[name]["Requires-Python"] for name in pins("cpu.txt") if name in installed}
    refused = {name: spec for name, spec in asked.items() if spec and python not in SpecifierSet(spec)}
    assert len(asked) > 100
    assert not refused


def test_the_pins_of_the_cpu_list_are_complete_and_agree_with_each_other() -> None:
    listed = pins("cpu.txt")
    if "fbgemm-gpu-cpu" not in {normal(d.name) for d in importlib.metadata.distributions()}:
        pytest.skip("this environment was made from another list")
    queue = [(normal(r.name), frozenset(r.extras)) for r in needs("moerank", frozenset({"cpu"}))]
    queue += [(name, frozenset[str]()) for name in listed]
    seen: set[tuple[str, frozenset[str]]] = set()
    while queue:
        name, extras = queue.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        for requirement in needs(name, extras):
            needed = SAME_IMPORT.get(normal(requirement.name), normal(requirement.name))
            assert needed in listed, f"{name} needs {requirement}, which cpu.txt does not pin"
            assert requirement.specifier.contains(listed[needed], prereleases=True), f"{name} needs {requirement}"
            queue.append((needed, frozenset(requirement.extras)))


def test_what_is_pinned_is_what_is_installed() -> None:
    listed = pins("cpu.txt" if installed_device() == "cpu" else "gpu.txt")
    different = {
        name: (str(version), importlib.metadata.version(name))
        for name, version in listed.items()
        if Version(importlib.metadata.version(name)) != version
    }
    assert different == {}, "run make setup"


def installed_device() -> str:
    installed = {normal(d.name) for d in importlib.metadata.distributions()}
    return "cpu" if "fbgemm-gpu-cpu" in installed else "gpu"


def test_the_lists_of_the_devices_share_no_build() -> None:
    cpu, gpu = pins("cpu.txt"), pins("gpu.txt")
    assert {"fbgemm-gpu-cpu", "onnxruntime"} <= set(cpu) - set(gpu)
    assert {"fbgemm-gpu", "onnxruntime-gpu"} <= set(gpu) - set(cpu)
    assert cpu["torch"].local == "cpu"
    assert gpu["torch"].local is None
    assert cpu["torch"].public == gpu["torch"].public
    shared = (set(cpu) & set(gpu)) - {"torch"}
    assert {name: cpu[name] for name in shared} == {name: gpu[name] for name in shared}


def test_prefects_companions_stay_where_its_server_and_scheduler_work() -> None:
    listed = pins("cpu.txt")
    assert listed["prefect"] == Version("3.8.8")
    assert Version("0.139") <= listed["fastapi"] < Version("0.151")
    assert Version("2.0") <= listed["sqlalchemy"] < Version("2.1")
