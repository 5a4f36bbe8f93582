"""Generates the Python stubs from proto/: ``python -m serving.generate`` (what ``make proto`` runs)."""

import sys
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "serving/stubs"


def sources() -> list[Path]:
    """The .proto files, relative to proto/, in a stable order."""
    proto = ROOT / "proto"
    return sorted(path.relative_to(proto) for path in proto.rglob("*.proto"))


def generate(out: Path) -> list[Path]:
    """Write ``serving/stubs/**/*_pb2{.py,.pyi,_grpc.py}`` under `out`, with the packages' ``__init__.py``.

    proto/ is mapped to the virtual folder serving/stubs, so that the generated files import each other by their full
    package names and nobody has to touch ``sys.path``.

    Returns:
        The files written, relative to `out`.

    Raises:
        RuntimeError: protoc refused a file; it has printed why.
    """
    arguments = [
        "protoc",
        f"-I{PACKAGE}={ROOT / 'proto'}",
        f"-I{files('grpc_tools') / '_proto'}",
        f"--python_out={out}",
        f"--pyi_out={out}",
        f"--grpc_python_out={out}",
        *(f"{PACKAGE}/{source}" for source in sources()),
    ]
    if protoc.main(arguments) != 0:
        message = "protoc refused the files in proto/ (see above)"
        raise RuntimeError(message)
    for folder in {parent for source in sources() for parent in source.parents}:
        (out / PACKAGE / folder / "__init__.py").touch()
    return sorted(path.relative_to(out) for path in (out / PACKAGE).rglob("*.py*") if path.suffix in {".py", ".pyi"})


if __name__ == "__main__":
    sys.stdout.writelines(f"{path}\n" for path in generate(ROOT))
