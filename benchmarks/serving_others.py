"""Other model servers with the same dense tiled graph, each in an interpreter that has it installed."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.serving_process import Server, by_metrics, free_ports, other

HERE = Path(__file__).parent
NAMES = {"MLServer": ("mlserver", "onnxruntime"), "Triton's Python backend": ("pytriton", "onnxruntime")}


@contextmanager
def others(graph: Path, folder: Path, pythons: list[Path]) -> Iterator[dict[str, Server]]:
    """Those servers that one of the interpreters has, by name; one model, called dense."""
    with ExitStack() as running:
        servers = {}
        for name, modules in NAMES.items():
            python = next((each for each in pythons if _has(each, modules)), None)
            if python is None:
                print(f"{name} is left out: no interpreter of --others has {' and '.join(modules)}")
                continue
            own = folder / modules[0]
            own.mkdir()
            start = _mlserver if modules[0] == "mlserver" else _pytriton
            servers[name] = running.enter_context(start(python, graph, own))
        yield servers


@contextmanager
def _mlserver(python: Path, graph: Path, folder: Path) -> Iterator[Server]:
    port = free_ports()
    ports = {"grpc_port": port, "http_port": port + 1, "metrics_port": port + 2}
    # Its own pool of processes only adds work here: the graph runs in the process that has the call.
    settings = {"host": "127.0.0.1", "parallel_workers": 0, **ports}
    model = {"name": "dense", "implementation": "other_mlserver.OnnxModel", "parameters": {"uri": str(graph)}}
    (folder / "settings.json").write_text(json.dumps(settings), encoding="ascii")
    (folder / "model-settings.json").write_text(json.dumps(model), encoding="ascii")
    (folder / "other_mlserver.py").write_bytes((HERE / "other_mlserver.py").read_bytes())
    command = [str(python), "-c", "from mlserver.cli import main; main()", "start", str(folder)]
    counted = by_metrics("grpc_server_handled_total{", 'grpc_code="OK"', 'grpc_method="ModelInfer"')
    with other(command, port, folder, counted) as server:
        yield server


@contextmanager
def _pytriton(python: Path, graph: Path, folder: Path) -> Iterator[Server]:
    port = free_ports()
    # Its stub loads a libpython, which must be that of the interpreter whose library it then reads.
    libraries = _said_by(python, "import sysconfig; print(sysconfig.get_config_var('LIBDIR'))")
    setting = f"LD_LIBRARY_PATH={libraries}"
    command = ["/usr/bin/env", setting, str(python), str(HERE / "other_pytriton.py"), str(graph), str(port)]
    with other(command, port, folder, by_metrics("nv_inference_request_success{")) as server:
        yield server


def _has(python: Path, modules: tuple[str, ...]) -> bool:
    code = f"import importlib.util as u; print(all(map(u.find_spec, {modules!r})))"
    return _said_by(python, code) == "True"


def _said_by(python: Path, code: str) -> str:
    return subprocess.run([str(python), "-c", code], check=True, capture_output=True, text=True).stdout.strip()
