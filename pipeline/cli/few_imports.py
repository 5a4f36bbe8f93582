"""Verbs that only look at raw tables import less than their libraries would."""

import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

_COMPILERS = "ibis.backends.sql.compilers"


@contextmanager
def few_imports() -> Iterator[None]:
    """Work that needs no pandas, and no other SQL than DuckDB's.

    pyarrow imports pandas, if it can, with the first list that becomes an array, and ibis the SQL of twenty engines
    with that of one: a tenth of a second.
    """
    finders = _NoPandas(), _CompilersOnDemand()
    sys.meta_path[:0] = finders
    try:
        yield
    finally:
        for finder in finders:
            sys.meta_path.remove(finder)


class _NoPandas(MetaPathFinder):
    """Says that there is no pandas; one that has been imported stays."""

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:  # noqa: ARG002 - Python's signature
        if fullname == "pandas":
            raise ModuleNotFoundError(fullname, name=fullname)


class _CompilersOnDemand(MetaPathFinder, Loader):
    """Opens ibis's package of compilers without importing them; each comes when it is first asked for (PEP 562)."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: object = None) -> ModuleSpec | None:  # noqa: ARG002 - Python's signature
        found = PathFinder.find_spec(fullname, path) if fullname == _COMPILERS else None
        if found is None:
            return None
        spec = ModuleSpec(fullname, self, origin=found.origin, is_package=True)
        spec.submodule_search_locations = found.submodule_search_locations
        return spec

    def exec_module(self, module: ModuleType) -> None:
        """Leave the package empty; what is asked of it is one of its modules, or the class of one."""
        module.__getattr__ = _compiler  # type: ignore[method-assign]


def _compiler(name: str) -> Any:
    """``duckdb`` or ``DuckDBCompiler``.

    Raises:
        AttributeError: there is none.
    """
    try:
        module = importlib.import_module(f"{_COMPILERS}.{name.removesuffix('Compiler').lower()}")
    except ModuleNotFoundError as error:
        raise AttributeError(name) from error
    return getattr(module, name) if name.endswith("Compiler") else module
