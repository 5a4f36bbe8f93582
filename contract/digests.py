"""Digests of what a result was made from: of values, and of the code, which is found from its imports.

A step's digest covers the module that does it, every module of ours that this one imports, directly or through
others, the data files beside them (templates, style sheets), and the installed versions of the libraries that any of
them imports. Comments, docstrings and layout change no result, so they change no digest.
"""

import ast
import json
import sys
from collections.abc import Callable
from functools import cache
from importlib.metadata import packages_distributions, version
from pathlib import Path

import grimp

from contract.sha256 import RunningSha256, sha256_of_bytes

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("contract", "features", "models", "serving", "pipeline")
_NOT_DATA = {".py", ".pyi", ".pyc", ".md", ".typed"}


def digest_of(*parts: object) -> str:
    """A digest of JSON values: 16 hexadecimal digits.

    Example:
        >>> digest_of("train", {"epochs": 4})
        '78f79617be0d0698'
    """
    canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return sha256_of_bytes(canonical.encode())[:16]


def code_digest(entry: str | Callable[..., object]) -> str:
    """A digest of all that a module, or a function's module, is made of: 16 hexadecimal digits.

    Raises:
        ModuleNotFoundError: there is no such module of ours.

    Example:
        >>> code_digest("contract.durations") == code_digest("contract.durations")
        True
    """
    return _digest(entry if isinstance(entry, str) else entry.__module__)


@cache
def _digest(module: str) -> str:
    closure = _closure(module)
    files = {file for name in closure if _ours(name) for file in _files(name)}
    digest = RunningSha256()
    for file in sorted(files):
        digest.update(file.relative_to(ROOT).as_posix().encode() + b"\0" + _content(file) + b"\0")
    for name in sorted(name for name in closure if not _ours(name)):
        digest.update(f"{name}={_version(name)}\0".encode())
    return digest.digest()[:16]


def _closure(module: str) -> set[str]:
    """The module, all that it imports, and the packages that these lie in, whose own imports run before theirs."""
    graph = _graph()
    if module not in graph.modules:
        message = f"there is no module {module} below {ROOT}"
        raise ModuleNotFoundError(message)
    closure: set[str] = set()
    waiting = {module}
    while waiting:
        closure |= waiting
        imported = {
            name for found in waiting if _ours(found) for name in graph.find_modules_directly_imported_by(found)
        }
        packages = {name.rpartition(".")[0] for name in waiting | imported if _ours(name)} - {""}
        waiting = (imported | packages) - closure
    return closure


@cache
def _graph() -> grimp.ImportGraph:
    # Not grimp's cache: it would be written wherever the command is run.
    return grimp.build_graph(*PACKAGES, include_external_packages=True, cache_dir=None)


def _ours(name: str) -> bool:
    return name.partition(".")[0] in PACKAGES


def _files(module: str) -> set[Path]:
    """A module's own file, and the data files beside it."""
    path = ROOT.joinpath(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    data = {other for other in file.parent.iterdir() if other.is_file() and other.suffix not in _NOT_DATA}
    return {file, *data}


@cache
def _content(file: Path) -> bytes:
    """What a file means: of Python its syntax tree without docstrings, of others every byte."""
    if file.suffix != ".py":
        return file.read_bytes()
    tree = ast.parse(file.read_bytes())
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [line for line in body if not _is_text(line)]  # type: ignore[attr-defined]
    return ast.dump(tree).encode()


def _is_text(line: ast.stmt) -> bool:
    """Whether a statement is a text alone: a docstring, or the description under a field."""
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant) and isinstance(line.value.value, str)


def _version(name: str) -> str:
    """The installed versions of what an import name comes from; empty for the standard library and what is absent."""
    if name in sys.stdlib_module_names:
        return ""
    return ",".join(sorted(f"{found} {version(found)}" for found in set(_distributions().get(name, ()))))


@cache
def _distributions() -> dict[str, list[str]]:
    return dict(packages_distributions())
