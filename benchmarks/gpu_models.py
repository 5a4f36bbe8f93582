"""What the benchmarks on a card measure: layers and rankers in every form, and a bundle to be served.

Shape legend: N candidate rows.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime as ort
import torch

from benchmarks.serving_graph import publish_graph, table_of_ids
from benchmarks.serving_split import SIDES, split_schema
from benchmarks.sparse_models import layer, ranker
from contract.graph_names import (
    CUDA_MODEL_FILE,
    CUDA_PACKED_FILE,
    GATE_OUTPUT,
    MODEL_FILE,
    SCHEMA_FINGERPRINT,
    variant_of,
)
from contract.inputs import Inputs
from features.online.online_table import OnlineTables
from models.export.cuda_form import CardPrecision, choose_cuda_form
from models.export.half import write_half
from models.export.onnx_file import write_onnx
from models.export.parity_sample import generate, sanitised
from models.export.quantised_moe import write_quantised_moe
from models.export_graph.exported_network import Form
from models.export_graph.serving_graph import ServingGraph
from models.model_config import ModelConfig
from models.ranker import Ranker
from serving.graph.bucket_runner import BucketRunner
from serving.graph.engine import provider_options

MODEL = "card"


@dataclass(frozen=True)
class Sizes:
    """How large things are: as the bounds say, or tiny, to run every line on a CPU."""

    layers: tuple[tuple[int, int], ...] = ((64, 4096), (8, 500))
    """Experts and rows of the layers with a bound."""
    candidates: int = 500
    rounds: int = 60
    experts: int = 64
    embedding_dim: int = 32
    widths: tuple[int, int] = (256, 128)
    served: int = 1000
    callers: int = 64
    calls: int = 2000


TINY = Sizes(((4, 16), (2, 8)), 8, 2, 4, 8, (16, 8), 10, 4, 16)


def form_of(model: Ranker, precision: CardPrecision = "fp32") -> Form:
    """What an export for a card would choose."""
    return choose_cuda_form(model, "sparse", "auto", precision).form


def write(model: Ranker, path: Path, form: Form, *, packed: bool = False) -> Path:
    """A graph in a form, of one request per run unless `packed`."""
    metadata = {SCHEMA_FINGERPRINT: model.schema.fingerprint(), "form": form}
    one_request = form in {"wide", "moe"} and not packed
    write_onnx(ServingGraph(model, form, one_request=one_request), model.schema, path, metadata, packed=packed)
    return path


class Layers:
    """Mixture layers and their graphs in a folder, each written once: tracing a model takes longer than running it."""

    def __init__(self, folder: Path, sizes: Sizes) -> None:
        self._folder, self._sizes, self._models = folder, sizes, dict[tuple[int, bool], Ranker]()

    def model(self, experts: int, *, narrow: bool = False) -> Ranker:
        """The layer of so many experts alone, one top-2 gate."""
        key = experts, narrow
        if key not in self._models:
            self._models[key] = layer(experts, narrow=narrow) if self._sizes is not TINY else small(experts)
        return self._models[key]

    def graph(self, experts: int, form: Form, precision: str = "fp32", *, narrow: bool = False) -> Path:
        """Its graph in a form, computed in a precision."""
        whole = self._folder / f"{experts}{'-narrow' if narrow else ''}-{form}-{MODEL_FILE}"
        if not whole.is_file():
            write(self.model(experts, narrow=narrow), whole, form)
        path = variant_of(str(whole), precision) if precision != "fp32" else str(whole)
        if not Path(path).is_file():
            write_half(whole, Path(path)) if precision == "fp16" else write_quantised_moe(whole, Path(path), 8)
        return Path(path)


def a_ranker(sizes: Sizes) -> Ranker:
    """The whole ranker of 8 experts and 4 tasks, one shared top-2 gate."""
    return ranker(2, "shared", "all") if sizes is not TINY else small(4)


def small(experts: int) -> Ranker:
    """The served ranker's schema with few and narrow experts."""
    return served_ranker(Sizes(experts=experts, embedding_dim=TINY.embedding_dim, widths=TINY.widths))


def served_ranker(sizes: Sizes) -> Ranker:
    """Thirty id features, half of them the user's, 4 tasks, one shared top-2 gate."""
    settings: dict[str, Any] = {
        "embedding_dim": sizes.embedding_dim,
        "embedding_init": 1.0,
        "experts": sizes.experts,
        "expert_widths": sizes.widths,
        "tower_widths": (),
        "gate": {"name": "top_k", "k": 2},
        "gate_scope": "shared",
    }
    torch.manual_seed(0)
    return Ranker(split_schema(), ModelConfig.model_validate(settings)).eval()


def publish_served(store: Path, work: Path, sizes: Sizes) -> Path:
    """A bundle with graphs for processors and for a card; `work` must not exist yet."""
    model = served_ranker(sizes)

    def write_all(path: Path) -> None:
        write(model, path, "sparse")
        write(model, path.with_name(CUDA_MODEL_FILE), form_of(model))
        write(model, path.with_name(CUDA_PACKED_FILE), form_of(model), packed=True)

    rng = np.random.default_rng(0)
    columns = ((f.name for f in model.schema.features if f.side == side) for side in SIDES)
    user, item = (table_of_ids(rng, tuple(names)) for names in columns)
    return publish_graph(store, work, MODEL, model.schema, OnlineTables(user=user, item=item, pairs={}), write_all)


def inputs_of(model: Ranker, rows: int) -> Inputs:
    """Random inputs of one request."""
    return sanitised(generate(model.schema, 1, rows, np.random.default_rng(0)), model.schema)


class BoundRun:
    """A graph with its inputs and answers on the device: what is timed is the graph alone."""

    def __init__(self, path: Path, inputs: Inputs, device: str, *, capture: bool = False) -> None:
        """Load the graph and put the inputs there; `capture`: replay it as a CUDA graph."""
        options = ort.SessionOptions()
        options.log_severity_level = 3
        providers = provider_options("cuda" if device == "cuda" else "cpu", "fp32", capture=capture)
        self.session = ort.InferenceSession(str(path), options, providers=providers)
        self._binding = self.session.io_binding()
        arrays = inputs.arrays()
        for node in self.session.get_inputs():
            self._binding.bind_ortvalue_input(node.name, ort.OrtValue.ortvalue_from_numpy(arrays[node.name], device))
        for node in self.session.get_outputs():
            if not node.name.startswith(GATE_OUTPUT):
                # Of its own, as a captured run needs them: it writes to where it wrote when it was captured.
                answers = ort.OrtValue.ortvalue_from_shape_and_type((inputs.candidate.rows,), np.float32, device)
                self._binding.bind_ortvalue_output(node.name, answers)

    def __call__(self) -> None:
        """One run, to its end."""
        self.session.run_with_iobinding(self._binding)


class FedRun:
    """A request's run as a server feeds it, copies from and to the host included."""

    def __init__(
        self, path: Path, inputs: Inputs, tasks: list[str], device: Literal["cpu", "cuda"], *, capture: bool
    ) -> None:
        """Load the graph."""
        providers = provider_options(device, "fp32", capture=capture)
        session = ort.InferenceSession(str(path), providers=providers)
        self._feed = {node.name: inputs.arrays()[node.name] for node in session.get_inputs()}
        self._tasks, self._runner = tasks, BucketRunner(session, device, capture=capture)

    def __call__(self) -> None:
        """One request, to its answers."""
        self._runner.run(self._tasks, self._feed)
