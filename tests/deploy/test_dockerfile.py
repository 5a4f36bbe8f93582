"""The server's image, made by hand: each step of the Dockerfile in a bare environment, and then what it starts."""

import re
import shutil
import signal
import subprocess
import sys
import venv
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest

from serving.client.blocking_client import RankingClient
from tests.patience import PATIENCE
from tests.tiny_bundle import publish_tiny

ROOT = Path(__file__).parent.parent.parent
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
HERE = Path(grpc.__file__).parent.parent
"""Where this environment's packages lie."""
IGNORED = shutil.ignore_patterns("__pycache__", "*.pyc")
LISTENING = re.compile(r"on 127\.0\.0\.1:(\d+)")


@dataclass
class Image:
    """What following the steps of a stage has made."""

    app: Path
    python: Path
    environment: dict[str, str] = field(default_factory=dict)
    entry: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)


def steps(stage: str) -> Iterator[tuple[str, str]]:
    """The instructions of a stage and of those that it is made from, with their arguments."""
    text = re.sub(r"\\\n\s*", "", re.sub(r"(?m)^#.*\n", "", DOCKERFILE.read_text(encoding="utf-8")))
    stages = {re.findall(r" AS (\w+)", block)[0]: block for block in re.split(r"(?m)^FROM ", text)[1:]}
    source = stages[stage].split()[0]
    if source in stages:
        yield from steps(source)
    for line in stages[stage].splitlines()[1:]:
        if line.strip():
            name, _, rest = line.partition(" ")
            yield name, rest.strip()


def follow(image: Image, *, from_index: bool) -> None:
    """Follow the steps of the stage `server`; without `from_index` the packages that are installed here stay."""
    variables = {"DEVICE": "cpu", "EXTRAS": ""}
    for name, rest in steps("server"):
        if name == "ENV":
            image.environment |= dict(pair.split("=", 1) for pair in rest.split())
        elif name == "COPY":
            *sources, target = rest.split()
            for each in sources:
                copy(ROOT / each, image.app / (target if target != "./" else each))
        elif name == "RUN" and "pip install" in rest:
            if from_index or "--no-deps ." in rest:
                isolated = "--no-deps" if from_index else "--no-deps --no-build-isolation"
                run(image, rest.replace("--no-deps", isolated), variables)
        elif name in {"ENTRYPOINT", "HEALTHCHECK"}:
            command = re.findall(r'"([^"]+)"', rest)
            setattr(image, "entry" if name == "ENTRYPOINT" else "health", command)


def copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=IGNORED)
    else:
        shutil.copyfile(source, target)


def run(image: Image, command: str, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        command = command.replace(f"${{{name}}}", value)
    environment = {"PATH": f"{image.python.parent}:/usr/bin:/bin", "HOME": str(image.app)}
    if "--no-build-isolation" in command:
        # The build's own tools are those that are installed here, not those that came with the interpreter.
        environment["PYTHONPATH"] = str(HERE)
    done = subprocess.run(
        ["/bin/sh", "-c", command], cwd=image.app, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"


def made(folder: Path, *, from_index: bool) -> Image:
    (folder / "app").mkdir()
    venv.create(folder / "venv", with_pip=True)
    image = Image(folder / "app", folder / "venv" / "bin" / "python")
    if not from_index:
        # As a line of a .pth, so that what is linked from there, such as this project itself, is not found.
        (site,) = (folder / "venv" / "lib").glob("python*/site-packages")
        (site / "here.pth").write_text(f"{HERE}\n", encoding="utf-8")
    follow(image, from_index=from_index)
    return image


@pytest.fixture
def store(tmp_path: Path) -> Path:
    publish_tiny(tmp_path / "store", tmp_path / "work")
    return tmp_path / "store"


@pytest.mark.parametrize(
    "from_index", [pytest.param(False, id="packages here"), pytest.param(True, id="index", marks=pytest.mark.long)]
)
def test_the_image_serves_is_healthy_and_ends(tmp_path: Path, store: Path, from_index: bool) -> None:  # noqa: FBT001
    image = made(tmp_path, from_index=from_index)
    chosen = {"MOERANK_STORE": str(store), "MOERANK_HOST": "127.0.0.1"}
    chosen |= {"MOERANK_METRICS_PORT": "0", "MOERANK_PORT": "0", "MOERANK_LOG_FORMAT": "text"}
    environment = {"PATH": f"{image.python.parent}:/usr/bin:/bin", "HOME": str(tmp_path), **image.environment, **chosen}
    with subprocess.Popen(
        image.entry, cwd=image.app, env=environment, stderr=subprocess.PIPE, text=True, executable=image.python
    ) as server:
        try:
            said = server.stderr or ()
            port = next(int(found[1]) for line in said if (found := LISTENING.search(line)))
            with RankingClient(f"127.0.0.1:{port}", seconds=PATIENCE) as client:
                assert client.rank(1, [100, 101]).model == "tiny"
            health = [part.replace(":50051", f":{port}") for part in image.health]
            subprocess.run(
                health, cwd=image.app, env=environment, executable=image.python, check=True, timeout=PATIENCE
            )
            server.send_signal(signal.SIGTERM)
            assert server.wait(PATIENCE) == 0
        finally:
            server.kill()


def test_the_image_holds_neither_torch_nor_prefect(tmp_path: Path) -> None:
    listed = (ROOT / "requirements" / "server.txt").read_text(encoding="utf-8")
    assert not re.search(r"(?m)^(torch|prefect)", listed)
    image = Image(tmp_path, Path(sys.executable))
    copied = [part for name, rest in steps("server") if name == "COPY" for part in rest.split()[:-1]]
    assert {"contract", "features", "serving"} <= set(copied)
    assert {"models", "pipeline"}.isdisjoint(copied)
    assert image.entry == []
