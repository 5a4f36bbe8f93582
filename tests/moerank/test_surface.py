"""What `import moerank` offers: each name is there, and nothing is loaded before it is used."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import moerank

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "torchrec", "onnxruntime", "prefect", "duckdb", "pyarrow", "grpc", "numpy")


def loaded_after(code: str) -> set[str]:
    code += "\nimport sys; print(*{name.partition('.')[0] for name in sys.modules})"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    return set(ran.stdout.split())


@pytest.mark.parametrize("name", moerank.__all__)
def test_every_name_is_there(name: str) -> None:
    assert getattr(moerank, name).__name__ == {
        "build_features": "build",
        "open_bundle": "load",
        "start_server": "start",
    }.get(name, name)


def test_importing_it_loads_no_library() -> None:
    assert loaded_after("import moerank").isdisjoint(HEAVY)


def test_a_client_needs_neither_torch_nor_prefect() -> None:
    loaded = loaded_after("import moerank; moerank.RankingClient('127.0.0.1:1').close()")
    assert loaded.isdisjoint({"torch", "torchrec", "prefect", "duckdb"})


def test_types_are_told_of_the_same_names() -> None:
    tree = ast.parse((ROOT / "moerank" / "__init__.py").read_text(encoding="utf-8"))
    guarded = next(node for node in tree.body if isinstance(node, ast.If))
    told = [a.asname or a.name for node in guarded.body if isinstance(node, ast.ImportFrom) for a in node.names]
    assert sorted(told) == sorted(moerank.__all__)
    assert sorted(dir(moerank)) == sorted([*moerank.__all__, "__version__"])


def test_a_wrong_name_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(AttributeError, match="moerank offers no 'Client'; it offers AsyncRankingClient, "):
        _ = moerank.Client


def test_the_version_is_that_of_the_distribution() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert moerank.__version__ == project["version"]
