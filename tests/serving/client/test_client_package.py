"""The client's own distribution: built from the server's sources, it stands alone with grpcio and protobuf."""

import ast
import re
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import google.protobuf
import grpc
import pytest
import typing_extensions

from clients.python.package import MODULES, PACKAGE, make
from serving.grpc_server.server import RunningServer
from serving.stubs.moerank.v1 import ranking_pb2

ROOT = Path(__file__).resolve().parents[3]
USER = """\
import asyncio
import sys

from moerank_client import AsyncRankingClient, CallOptions, Query, RankingClient, RequestError

target = sys.argv[1]
with RankingClient(target, seconds=120) as client:
    result = client.rank(1, [100, 101], top_k=1, debug=True, options=CallOptions(request_id="r-1"))
    best: list[int] | list[str] = result.ranked
    score: float = result.scores[0]
    used = 0.0 if result.experts is None else result.experts.union_over_n
    assert (result.request_id, result.arm, len(best), score > 0, used >= 0) == ("r-1", "current", 1, True, True)
    try:
        client.rank(1, [100], {"nonsense": 1})
    except RequestError as error:
        print(error.field, result.model, result.version)


async def main() -> None:
    async with AsyncRankingClient(target, seconds=120) as other:
        answers = await other.batch_rank([Query(1, [100]), Query(2, [101, 102])])
        print([list(answer.ranked) for answer in answers])


asyncio.run(main())
loaded = {name.partition(".")[0] for name in sys.modules}
assert loaded.isdisjoint({"numpy", "serving", "contract", "pyarrow", "pydantic"}), loaded
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that has the built wheel, grpcio and protobuf, and nothing else."""
    folder = tmp_path_factory.mktemp("client")
    make(folder / "tree")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run(
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, folder / "tree"],
        check=True,
    )
    venv.create(folder / "venv", with_pip=False)
    (site,) = (folder / "venv" / "lib").glob("python*/site-packages")
    (wheel,) = folder.glob("moerank_client-*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", site, wheel], check=True)
    (site / "google").mkdir()
    protobuf = Path(google.protobuf.__file__).parent
    for target, source in {
        "grpc": Path(grpc.__file__).parent,
        "google/protobuf": protobuf,
        "google/_upb": protobuf.parent / "_upb",
        "typing_extensions.py": Path(typing_extensions.__file__),
    }.items():
        (site / target).symlink_to(source)
    return folder / "venv" / "bin" / "python"


def test_it_imports_the_standard_library_grpcio_and_protobuf_alone(tmp_path: Path) -> None:
    make(tmp_path / "tree")
    imported = set()
    for path in (tmp_path / "tree").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.ImportFrom):
                imported.add((node.module or "").partition(".")[0])
            elif isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
    assert imported - set(sys.stdlib_module_names) == {PACKAGE, "grpc", "google"}


def test_its_modules_are_the_servers_own_but_for_the_arrays(tmp_path: Path) -> None:
    make(tmp_path / "tree")
    for module, name in MODULES.items():
        source = ast.parse((ROOT / Path(*module.split(".")).with_suffix(".py")).read_bytes())
        made = ast.parse((tmp_path / "tree" / PACKAGE / f"{name}.py").read_bytes())
        names = [[n.name for n in t.body if isinstance(n, ast.FunctionDef | ast.ClassDef)] for t in (source, made)]
        assert names[0] == names[1]
        if name != "arrays":
            assert len(ast.dump(source)) == pytest.approx(len(ast.dump(made)), rel=0.02)


def test_a_users_program_passes_mypy_and_calls_a_live_server(
    python: Path, server: RunningServer, tmp_path: Path
) -> None:
    program = tmp_path / "user.py"
    program.write_text(USER, encoding="utf-8")
    mypy = [sys.executable, "-m", "mypy", "--strict", "--python-executable", str(python), "--cache-dir", "cache"]
    checked = subprocess.run([*mypy, str(program)], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    ran = subprocess.run(
        [python, "-I", program, f"127.0.0.1:{server.port}"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    first, second = ran.stdout.splitlines()
    assert first == "context.nonsense tiny 1"
    assert sorted(ast.literal_eval(second)[1]) == [101, 102]


def test_the_floor_of_protobuf_is_what_the_stubs_were_made_for() -> None:
    text = Path(ranking_pb2.__file__).read_text(encoding="utf-8")
    (made,) = re.findall(r"Protobuf Python Version: ([0-9.]+)", text)
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    assert f"protobuf>={made}" in needed
