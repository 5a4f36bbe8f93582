"""What works on this machine, what does not, and what to do about it.

Each check looks at one thing and returns findings; a finding that is not `ok` carries its advice.
"""

import importlib.metadata
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from contract.graph_names import CUDA_PRECISIONS, QUANTISED
from contract.machine_cores import usable_cores
from contract.machine_memory import available_memory

if TYPE_CHECKING:
    from serving.graph.engine import Engine

Status = Literal["ok", "warning", "problem"]

# torch -> the fbgemm release built against its binary interface; any other pair fails to load or, worse, crashes.
TESTED_PAIRS = {"2.13.0": "1.8.0"}
LIBRARIES = ("torchrec", "onnx", "grpcio", "protobuf", "prefect", "ibis-framework", "duckdb", "pyarrow", "numpy")
PORTS = {50051: "moerank serve", 4200: "prefect server"}
LEAST_DISK_GB = 2.0
LEAST_MEMORY_GB = 4.0
CPU_SETUP = "make clean && make setup"
GPU_SETUP = "make clean && make setup DEVICE=gpu"


@dataclass(frozen=True)
class Check:
    """One line of the report: the subject, whether it works, what was found and what to do."""

    subject: str
    status: Status
    found: str
    advice: str = ""


def examine(workspace: Path = Path("runs")) -> list[Check]:
    """All findings about this machine, in a fixed order; a check that cannot run is a finding, too."""
    checks: tuple[Callable[[], Iterator[Check]], ...] = (
        _python,
        _libraries,
        _torch_pair,
        _devices,
        _onnxruntime,
        _bf16,
        _memory,
        lambda: _disk(workspace),
        _ports,
    )
    return [finding for check in checks for finding in check()]


def examine_bundle(path: Path, device: Literal["cpu", "cuda", "auto"] = "auto") -> Check:
    """How a bundle would be served on this machine: provider, precision and form.

    Raises:
        IntegrityError: not a bundle whose graph loads.
    """
    from serving.graph.engine import CUDA, Engine  # noqa: PLC0415 - only this check needs it
    from serving.graph.graph_files import graph_files  # noqa: PLC0415 - the same

    names = {file.name for file in path.iterdir()} if path.is_dir() else set()
    card, own = (graph_files(names, "fp32", cuda=cuda) for cuda in (True, False))
    cards_graph = Engine(path, device=device, file=card.model)
    on_card = CUDA in cards_graph.providers
    here = cards_graph if on_card else Engine(path)
    known = json.loads(cards_graph.properties.get(CUDA_PRECISIONS, "{}"))
    passed = [name for name, facts in known.items() if facts["passed"]] or ["fp32"]
    int8 = " with int8 experts" if QUANTISED in here.properties else ""
    name = card.model if on_card else own.model
    seen = f"{name} on {here.providers[0]}, {here.precision}{int8}, {_form(here)} form; "
    if QUANTISED in cards_graph.properties:
        seen += "on CUDA its int8 experts have no kernels: export one without for a card"
        return Check("bundle", "ok", f"{path}: {seen}")
    seen += "on CUDA it may be served at "
    if card.for_card:
        forms = dict[str, list[str]]()
        for precision in passed:
            file = graph_files(names, precision, cuda=True).model
            form = _form(cards_graph if file == card.model else Engine(path, file=file))
            forms.setdefault(form, []).append(precision)
        seen += ", ".join(f"{', '.join(of_form)} in the {form} form" for form, of_form in forms.items())
    else:
        seen += ", ".join(passed)
        seen += ", with the same graph" if card.model == own.model else f", with {card.model} in float32"
    return Check("bundle", "ok", f"{path}: {seen}")


def _form(engine: "Engine") -> str:
    return engine.properties.get("form", "unknown")


def healthy(findings: list[Check]) -> bool:
    """Whether there is no problem; warnings do not count."""
    return not any(finding.status == "problem" for finding in findings)


def as_json(findings: list[Check]) -> dict[str, object]:
    """The report with plain values: ``healthy`` and the list of ``findings``."""
    return {"healthy": healthy(findings), "findings": [asdict(finding) for finding in findings]}


def version(distribution: str) -> str | None:
    """An installed distribution's version; None where it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _python() -> Iterator[Check]:
    seen = sys.version.split()[0]
    good = (3, 11) <= sys.version_info[:2] <= (3, 13)
    yield Check("python", "ok" if good else "warning", seen, "" if good else "3.11 is tested; 3.12 and 3.13 may do")


def _libraries() -> Iterator[Check]:
    missing = [name for name in LIBRARIES if version(name) is None]
    seen = ", ".join(f"{name} {version(name)}" for name in LIBRARIES if name not in missing)
    if missing:
        yield Check("libraries", "problem", f"not installed: {', '.join(missing)}", f"install all with: {CPU_SETUP}")
    else:
        yield Check("libraries", "ok", seen)


def _torch_pair() -> Iterator[Check]:
    torch = version("torch")
    builds = {name: version(name) for name in ("fbgemm-gpu-cpu", "fbgemm-gpu") if version(name)}
    tested = ", ".join(f"torch {torch} with fbgemm {fbgemm}" for torch, fbgemm in TESTED_PAIRS.items())
    advice = f"tested is {tested}; install it with: {CPU_SETUP} (or {GPU_SETUP})"
    seen = f"torch {torch or '(not installed)'} with " + (
        " and ".join(f"{name} {number}" for name, number in builds.items()) or "no fbgemm"
    )
    if len(builds) != 1:
        yield Check("torch and fbgemm", "problem", seen, advice)
        return
    tested_pair = TESTED_PAIRS.get((torch or "").partition("+")[0]) in builds.values()
    trouble = _import_failure("import torch, fbgemm_gpu, torchrec")
    if trouble:
        yield Check("torch and fbgemm", "problem", f"{seen}: {trouble}", advice)
    else:
        yield Check("torch and fbgemm", "ok" if tested_pair else "warning", seen, "" if tested_pair else advice)


def _import_failure(statement: str) -> str:
    """What goes wrong when a fresh interpreter runs an import; in a child, as a mismatch may crash it."""
    environment = os.environ | {"PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, "-c", statement], check=False, capture_output=True, text=True, env=environment
    )
    if done.returncode == 0:
        return ""
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"the import ended with code {done.returncode}"


def _devices() -> Iterator[Check]:
    try:
        import torch  # noqa: PLC0415 - seconds, and only this check needs it
    except (ImportError, OSError):
        return  # told by the check of the pair
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        yield Check("devices", "ok", f"cuda {torch.version.cuda}: {', '.join(names)}")
    elif shutil.which("nvidia-smi"):
        yield Check(
            "devices",
            "warning",
            f"an NVIDIA driver, but torch {torch.__version__} cannot use it",
            f"install the CUDA builds with: {GPU_SETUP} (CUDA 13 needs driver 580 or newer)",
        )
    else:
        yield Check("devices", "ok", f"cpu, {usable_cores()} cores (no NVIDIA driver found)")


def _onnxruntime() -> Iterator[Check]:
    builds = [name for name in ("onnxruntime", "onnxruntime-gpu") if version(name)]
    if len(builds) != 1:
        seen = " and ".join(f"{name} {version(name)}" for name in builds) or "not installed"
        advice = f"they share one directory and break each other; start over: {CPU_SETUP} (or {GPU_SETUP})"
        yield Check("onnxruntime", "problem", seen, advice if builds else f"install it with: {CPU_SETUP}")
        return
    seen = f"{builds[0]} {version(builds[0])}"
    try:
        offered, got = session_providers()
    except Exception as error:  # noqa: BLE001 - whatever a broken installation raises is the finding
        first = str(error).partition("\n")[0]
        yield Check("onnxruntime", "problem", f"{seen}: {first}", f"start over: {CPU_SETUP}")
        return
    lost = builds == ["onnxruntime-gpu"] and "CUDAExecutionProvider" not in got
    advice = "graphs run on the CPU: check the driver, CUDA 13 and cuDNN 9 (`moerank serve --require-gpu` refuses this)"
    yield Check(
        "onnxruntime",
        "warning" if lost else "ok",
        f"{seen}; a session that asked for {', '.join(offered)} got {', '.join(got)}",
        advice if lost else "",
    )


def session_providers() -> tuple[list[str], list[str]]:
    """Build a real session on a graph of one node.

    Returns:
        The providers asked for (what onnxruntime says that it has) and those that the session really got.
    """
    import onnx  # noqa: PLC0415 - a second, and only this check needs it
    import onnxruntime  # noqa: PLC0415

    tensor = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "probe", tensor[:1], tensor[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    offered = [name for name in onnxruntime.get_available_providers() if name.startswith(("CUDA", "CPU"))]
    options = onnxruntime.SessionOptions()
    # A failed CUDA start prints pages; the answer that counts is get_providers().
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=offered)
    return offered, list(session.get_providers())


def _bf16() -> Iterator[Check]:
    info = Path("/proc/cpuinfo")
    flags = info.read_text(encoding="utf-8").split() if info.is_file() else []
    native = sorted({"avx512_bf16", "amx_bf16"}.intersection(flags))
    seen = f"the CPU has {', '.join(native)}" if native else "the CPU has no bf16 instructions; training stays in fp32"
    yield Check("bf16", "ok", seen)


def _memory() -> Iterator[Check]:
    yield _enough(
        "memory", available_memory() / 2**30, LEAST_MEMORY_GB, "available", "close other programs or lower batch sizes"
    )


def _disk(workspace: Path) -> Iterator[Check]:
    place = next(path for path in (workspace.absolute(), *workspace.absolute().parents) if path.is_dir())
    free = shutil.disk_usage(place).free / 2**30
    yield _enough("disk", free, LEAST_DISK_GB, f"free at {place}", "make room, or set `workspace` to another disk")


def _enough(subject: str, gigabytes: float, least: float, where: str, advice: str) -> Check:
    good = gigabytes >= least
    return Check(subject, "ok" if good else "warning", f"{gigabytes:.1f} GB {where}", "" if good else advice)


def _ports() -> Iterator[Check]:
    for port, owner in PORTS.items():
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            taken = probe.connect_ex(("127.0.0.1", port)) == 0
        seen = f"{port} ({owner}) is {'taken' if taken else 'free'}"
        advice = "something answers there already; choose another port with --port" if taken else ""
        yield Check("port", "warning" if taken else "ok", seen, advice)
