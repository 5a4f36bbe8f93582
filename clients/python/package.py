"""Makes the distribution `moerank-client` out of the server's sources: ``python clients/python/package.py OUT``.

OUT then holds a source tree, which ``pip wheel --no-deps OUT`` builds. Modules move into one package and their imports
with them; nothing else changes, but for the arrays, which are Python's own there.
"""

import argparse
import re
import shutil
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
PACKAGE = "moerank_client"
CLIENT = ("aio_client", "attempts", "blocking_client", "call_errors", "channel", "client_request", "client_response")
MODULES = {
    "contract.errors": "errors",
    "contract.integers": "integers",
    "serving.graph.answer": "answer",
    "serving.graph.arrays": "arrays",
    **{f"serving.client.{name}": name for name in (*CLIENT, "connection")},
}
"""Where each module comes to lie."""
STUBS = "serving.stubs.moerank"
OWN = {"serving.graph.arrays": HERE / "arrays.py"}
"""Modules that differ there."""


def make(out: Path) -> None:
    """Write the source tree into a new directory."""
    package = out / PACKAGE
    package.mkdir(parents=True)
    for module, name in MODULES.items():
        source = OWN.get(module, ROOT / Path(*module.split(".")).with_suffix(".py"))
        (package / f"{name}.py").write_text(moved(source.read_text(encoding="utf-8")), encoding="utf-8")
    shutil.copyfile(HERE / "exports.py", package / "__init__.py")
    (package / "py.typed").touch()
    stubs = ROOT / Path(*STUBS.split("."))
    for path in sorted(stubs.rglob("*.py*")):
        # The stubs of services name grpcio's own classes; the client calls methods by their paths.
        if path.suffix in {".py", ".pyi"} and not path.name.endswith("_grpc.py"):
            target = package / "stubs" / path.relative_to(stubs)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(moved(path.read_text(encoding="utf-8")), encoding="utf-8")
    (package / "stubs" / "__init__.py").touch()
    (out / "pyproject.toml").write_text(project(), encoding="utf-8")
    for path in (HERE / "README.md", ROOT / "LICENSE"):
        shutil.copyfile(path, out / path.name)


def moved(source: str) -> str:
    """A module's text with the new names of the modules that it imports; descriptors keep their files' names."""
    for module, name in {**MODULES, STUBS: "stubs"}.items():
        parent, _, last = module.rpartition(".")
        source = re.sub(rf"\b{re.escape(module)}\b", f"{PACKAGE}.{name}", source)
        source = re.sub(
            rf"^from {re.escape(parent)} import {last}$", f"from {PACKAGE} import {name}", source, flags=re.MULTILINE
        )
    return source


def project() -> str:
    """The distribution's own pyproject.toml: version and floors are those of the server."""
    whole = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = [line for line in whole["dependencies"] if re.match(r"(grpcio|protobuf)[>=<]", line)]
    return f"""\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "moerank-client"
version = "{whole["version"]}"
description = "The Python client of moerank's ranking service"
readme = "README.md"
requires-python = "{whole["requires-python"]}"
dependencies = {needed!r}

[tool.setuptools.packages.find]
include = ["{PACKAGE}*"]

[tool.setuptools.package-data]
"*" = ["py.typed", "*.pyi"]
"""


def main() -> int:
    """Make the tree in the directory that is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="a directory that does not exist yet")
    out: Path = parser.parse_args().out
    if out.exists():
        print(f"{out} exists; name a directory that does not", file=sys.stderr)
        return 2
    make(out)
    print(f"made {out}; build it with: python -m pip wheel --no-deps {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
