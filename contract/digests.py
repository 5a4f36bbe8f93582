"""Digests of what a result was made from: of values, and of the code, which is found from its imports.

A step's digest covers the module that does it, every module of ours that this one imports, directly or through
others, the data files beside them (templates, style sheets), and the installed versions of the libraries that any of
them imports. Comments, docstrings and layout change no result, so they change no digest.
"""

import ast
import json
import sys
from collections.abc import Callable, Iterable
from functools import cache
from importlib.metadata import Distribution, distributions, version
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pydantic import ValidationError

from contract.files import write_text
from contract.settings import Settings
from contract.sha256 import RunningSha256, sha256_of_bytes

if TYPE_CHECKING:
    import grimp

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


def code_digest(entry: str | Callable[..., object], memo: Path | None = None) -> str:
    """A digest of all that a module, or a function's module, is made of: 16 hexadecimal digits.

    Args:
        entry: The module's name, or a function in it.
        memo: A file that remembers the digest for the next process, which then only compares bytes and versions: the
            import graph and the syntax trees take half a second.

    Raises:
        ModuleNotFoundError: there is no such module of ours.

    Example:
        >>> code_digest("contract.durations") == code_digest("contract.durations")
        True
    """
    module = entry if isinstance(entry, str) else entry.__module__
    if memo is None:
        return _digest(module)
    known = _Memo.read(memo)
    if known is None or known.module != module or known.bytes != _bytes_digest(known.closure):
        closure = tuple(sorted(_closure(module)))
        known = _Memo(module=module, closure=closure, bytes=_bytes_digest(closure), digest=_digest(module))
        write_text(known.model_dump_json(indent=1) + "\n", memo)
    return known.digest


class _Memo(Settings):
    """What a digest was made from: the modules, and a digest of their bytes and versions, comments included.

    A module outside the closure cannot matter before a file of the closure changes to import it.
    """

    module: str
    closure: tuple[str, ...]
    bytes: str
    digest: str

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """None if it is not there, or of another version."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            return None


def _bytes_digest(closure: Iterable[str]) -> str:
    """Of everything that `_digest` reads, as it lies on the disk; empty if a module is gone."""
    try:
        files = sorted({file for name in closure if _ours(name) for file in _files(name)})
        contents = [file.relative_to(ROOT).as_posix().encode() + b"\0" + file.read_bytes() for file in files]
    except FileNotFoundError:
        return ""
    # Syntax trees differ between versions of Python.
    versions = [f"{name}={_version(name)}" for name in closure if not _ours(name)]
    return sha256_of_bytes(sys.version.encode(), *contents, "\0".join(versions).encode())


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
            name for module in waiting if _ours(module) for name in graph.find_modules_directly_imported_by(module)
        }
        packages = {name.rpartition(".")[0] for name in waiting | imported if _ours(name)} - {""}
        waiting = (imported | packages) - closure
    return closure


@cache
def _graph() -> "grimp.ImportGraph":
    import grimp  # noqa: PLC0415 - most commands need no digest of code, or have it in a memo

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
    names = {distribution.metadata["Name"] for distribution in _distributions().get(name, ())}
    return ",".join(sorted(f"{each} {version(each)}" for each in names))


@cache
def _distributions() -> dict[str, list[Distribution]]:
    """The distributions of each import name, as `importlib.metadata.packages_distributions` finds them.

    That function parses every path of every distribution, which takes ten times as long.
    """
    by_name: dict[str, list[Distribution]] = {}
    for distribution in distributions():
        for name in _top_level(distribution):
            by_name.setdefault(name, []).append(distribution)
    return by_name


def _top_level(distribution: Distribution) -> set[str]:
    declared = distribution.read_text("top_level.txt")
    if declared:
        return set(declared.split())
    paths = (distribution.read_text("RECORD") or "").splitlines()
    firsts = {path.partition(",")[0].partition("/")[0] for path in paths}
    return {first.partition(".")[0] for first in firsts if not first.endswith((".dist-info", ".data", ".pth"))} - {""}
