"""The engine: one onnxruntime session that turns encoded inputs into checked predictions.

Shape legend: N candidate rows, T tasks.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from contract.errors import IntegrityError, NoCardError, PredictionError
from contract.graph_names import (
    CUDA_PACKED_FILE,
    CUDA_VARIANTS,
    FEWER_FILE,
    INPUT_NAMES,
    ITEM_ROWS,
    MOST_EXPERTS,
    PACKED_FILE,
    PREPARED_FILE,
    REQUEST_OF,
    SCHEMA_FINGERPRINT,
    SHARES,
    int8_of,
    variant_of,
)
from contract.inputs import PARTS, Inputs
from contract.schema import Schema
from serving.graph.answer import ExpertUse
from serving.graph.bucket_runner import BucketRunner, rows_of_part
from serving.graph.card_tables import CardTables
from serving.graph.cuda_tolerance import CudaPrecision, golden_tolerance
from serving.graph.expert_use import outputs_of, read_gates, use_from
from serving.graph.graph_files import graph_in
from serving.store.golden import GoldenCase, require_golden

Array = NDArray[np.int64] | NDArray[np.float32]
Device = Literal["cpu", "cuda", "auto"]
_PACKED = (CUDA_PACKED_FILE, *(variant_of(CUDA_PACKED_FILE, each) for each in CUDA_VARIANTS))
_VARIANTS: dict[str, tuple[str, ...]] = {
    PACKED_FILE: (REQUEST_OF,),
    PREPARED_FILE: (ITEM_ROWS, SHARES),
    FEWER_FILE: (MOST_EXPERTS,),
}
_VARIANTS |= {int8_of(name): inputs for name, inputs in _VARIANTS.items()}
_VARIANTS |= dict.fromkeys(_PACKED, (REQUEST_OF,))
"""What other graphs of a bundle ask for besides."""
CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


class Engine:
    """A model's graph, ready to predict from any number of threads at once."""

    def __init__(
        self,
        directory: Path,
        schema: Schema | None = None,
        *,
        threads: int = 1,
        device: Device = "cpu",
        precision: CudaPrecision = "fp32",
        file: str | None = None,
        capture: bool = False,
        tables: CardTables | None = None,
    ) -> None:
        """Load a graph of a bundle directory.

        Args:
            directory: The bundle; verify it first with `serving.store.bundle.load`.
            schema: What the graph must have been made with; None reads the directory's own.
            threads: Threads inside one call. One is best for throughput: let callers run in parallel instead.
            device: ``cuda`` fails where the session does not run on CUDA, ``auto`` runs on the CPU there.
            precision: What CUDA multiplies in; the CPU always computes in float32.
            file: Which of the bundle's graphs; None: the general one, in int8 on a processor where the bundle has that.
            capture: Replay runs on CUDA as captured graphs; not for schemas with lists, whose longest the host reads.
            tables: What holds the tables that graphs for a card take as inputs; None: this one holds its own.

        Raises:
            IntegrityError: not a graph that onnxruntime loads, or not one with the agreed inputs and outputs.
            SchemaMismatchError: the graph was exported with another schema.
            NoCardError: CUDA is required and the session does not run on it.
            ConfigError: the bundle did not pass at `precision`.
        """
        self.schema = Schema.load(directory) if schema is None else schema
        capture = capture and not any(self.schema.part(part).lists for part in PARTS)
        providers = provider_options(device, precision, capture=capture)
        path = graph_in(directory, cuda=providers[0][0] == CUDA) if file is None else directory / file
        self._session = _session(path, threads, providers)
        self.providers: list[str] = list(self._session.get_providers())
        if device == "cuda" and CUDA not in self.providers:
            message = (
                f"a GPU is required, but onnxruntime runs {path} on {self.providers[0]}; install requirements/gpu.txt "
                "on a machine with a CUDA driver, or use --device auto without --require-gpu"
            )
            raise NoCardError(message)
        self.properties = _properties(self._session, path)
        on_card = CUDA in self.providers
        self._tables = (tables or CardTables()).of(directory, self.properties, cuda=on_card)
        self._runner = None
        if on_card:
            self._runner = BucketRunner(self._session, "cuda", capture=capture, tables=self._tables)
        self.precision: CudaPrecision = precision if CUDA in self.providers else "fp32"
        """What the session multiplies in."""
        self.tolerance = golden_tolerance(self.properties, self.precision, f"the graph {path}")
        self.schema.require(self.properties.get(SCHEMA_FINGERPRINT, "(none)"), f"the graph {path}")
        self.tasks = tuple(task.name for task in self.schema.tasks)
        self.inputs = tuple(node.name for node in self._session.get_inputs() if node.name not in self._tables)
        self._fixed = {name: table.array for name, table in self._tables.items()}
        self._one_request = _takes_one_request(self._session)
        self.several: Engine | None = None
        """What runs a request for each candidate, where this graph takes one request alone."""
        self._reads_candidates = any(name.startswith("candidate") for name in self.inputs)
        self._check_interface(path)
        self.gates = read_gates(self.properties, [node.name for node in self._session.get_outputs()])
        self._with_experts = (*self.tasks, *outputs_of(self.gates))

    def _check_interface(self, path: Path) -> None:
        outputs = {node.name for node in self._session.get_outputs()}
        if not outputs.issuperset(self.tasks):
            message = f"{path} answers {sorted(outputs)}, but the schema's tasks are {sorted(self.tasks)}"
            raise IntegrityError(message)
        unknown = set(self.inputs) - {*INPUT_NAMES, *_VARIANTS.get(path.name, ())}
        if unknown:
            message = f"{path} asks for {sorted(unknown)}; a graph's inputs are among {', '.join(INPUT_NAMES)}"
            raise IntegrityError(message)

    def predict(self, inputs: Inputs) -> dict[str, NDArray[np.float32]]:
        """Each task's predictions, float32 [N], in the order of the candidates.

        Raises:
            PredictionError: the graph could not run, or an answer is not finite or not one number per candidate.
        """
        return self.run(inputs.arrays(), inputs.candidate.rows)

    def predict_with_experts(self, inputs: Inputs) -> tuple[dict[str, NDArray[np.float32]], ExpertUse]:
        """As `predict`, and which experts that took.

        Raises:
            PredictionError: as `predict`.
        """
        return self.run_with_experts(inputs.arrays(), inputs.candidate.rows)

    def run_with_experts(
        self, arrays: Mapping[str, Array], rows: int
    ) -> tuple[dict[str, NDArray[np.float32]], ExpertUse]:
        """As `predict_with_experts`, from arrays as `run` takes them.

        Raises:
            PredictionError: as `predict`.
        """
        answers = self._spread(self._run(self._with_experts, arrays), rows)
        count = len(self.tasks)
        return self._checked(answers[:count], rows), use_from(self.gates, answers[count:], rows)

    def run(self, arrays: Mapping[str, Array], rows: int) -> dict[str, NDArray[np.float32]]:
        """As `predict`, from arrays by the graph's input names; they must be valid for the schema.

        Raises:
            PredictionError: as `predict`.
        """
        return self._checked(self._spread(self._run(self.tasks, arrays), rows), rows)

    def _run(self, outputs: Sequence[str], arrays: Mapping[str, Array]) -> list[NDArray[np.float32]]:
        if self._one_request and self.several is not None and (rows := rows_of_part(arrays, "request")) > 1:
            return self.several._run(outputs, {**arrays, REQUEST_OF: np.arange(rows, dtype=np.int64)})  # noqa: SLF001 of this class
        try:
            if self._runner is not None:
                return self._runner.run(outputs, {name: arrays[name] for name in self.inputs})
            answers: list[NDArray[np.float32]] = self._session.run(
                outputs, {name: arrays[name] for name in self.inputs} | self._fixed
            )
        except Exception as error:  # onnxruntime's own exception classes have no common base
            message = f"onnxruntime could not run the graph: {error}"
            raise PredictionError(message) from error
        return answers

    def _spread(self, answers: Sequence[NDArray[np.float32]], rows: int) -> Sequence[NDArray[np.float32]]:
        """One answer for each candidate, of a graph that reads nothing of them and so answers once per request."""
        if self._reads_candidates or rows == 1:
            return answers
        return [np.repeat(each, rows, axis=0) if len(each) == 1 else each for each in answers]

    def _checked(self, answers: Sequence[NDArray[np.float32]], rows: int) -> dict[str, NDArray[np.float32]]:
        expected = (rows,)
        # All tasks' answers in one array are looked through at the cost of one.
        if all(values.shape == expected for values in answers) and _finite(np.concatenate(answers)):
            return dict(zip(self.tasks, answers, strict=True))
        wrong = (n for n, values in enumerate(answers) if values.shape != expected or not _finite(values))
        place = next(wrong)
        message = (
            f"the graph's answer for {self.tasks[place]} has shape {answers[place].shape} or values that are not finite"
        )
        raise PredictionError(message)

    def signature(self) -> list[tuple[str, str, list[int]]]:
        """Name, datatype and shape of each input in the Open Inference Protocol's terms; -1 is any size."""
        kinds = {"tensor(int64)": "INT64", "tensor(float)": "FP32"}
        return [
            (node.name, kinds[node.type], [size if isinstance(size, int) else -1 for size in node.shape])
            for node in self._session.get_inputs()
            if node.name in self.inputs
        ]

    def check(self, name: str, case: GoldenCase) -> None:
        """Compare the answers to a golden request with those that the exporter saw.

        Raises:
            PredictionError: an answer is further off than `tolerance`, or no answer was recorded for a task.
        """
        require_golden(name, case, self.predict(case.inputs), self.tolerance)


def _finite(values: NDArray[np.float32]) -> bool:
    """Whether all values [N] are finite: their sum of squares, at a fraction of the cost, nearly always tells."""
    return math.isfinite(values.dot(values)) or bool(np.isfinite(values).all())


def _properties(session: ort.InferenceSession, path: Path) -> dict[str, str]:
    try:
        return dict(session.get_modelmeta().custom_metadata_map)
    except UnicodeDecodeError as error:
        message = f"the properties of the graph {path} are not text ({error}); it is damaged"
        raise IntegrityError(message) from error


def provider_options(
    device: Device, precision: CudaPrecision, *, capture: bool = False
) -> list[tuple[str, dict[str, Any]]]:
    """The providers to ask for, best first, of those that this onnxruntime was built with."""
    wanted: list[tuple[str, dict[str, Any]]] = [(CPU, {})]
    if device != "cpu":
        # TF32 is the provider's default: it moves answers by 1e-4 to 1e-3 without a word.
        options = {"use_tf32": "1" if precision == "tf32" else "0"}
        wanted.insert(0, (CUDA, options | ({"enable_cuda_graph": "1"} if capture else {})))
    available = set(ort.get_available_providers())
    return [(name, options) for name, options in wanted if name in available]


def _takes_one_request(session: ort.InferenceSession) -> bool:
    axes = {"ids": 0, "dense": 0, "list_lengths": 1}
    given = [(node.name.partition("_"), node.shape) for node in session.get_inputs()]
    return any(part == "request" and kind in axes and shape[axes[kind]] == 1 for (part, _, kind), shape in given)


def _session(path: Path, threads: int, providers: list[tuple[str, dict[str, Any]]]) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Spinning threads of several sessions in one process take the cores from each other.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    if providers[0][0] == CUDA:
        # Elsewhere importing torch loads CUDA's libraries out of their packages; a server does not import it.
        ort.preload_dlls()
    try:
        return ort.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # onnxruntime's own exception classes have no common base
        message = f"onnxruntime cannot load {path}: {error}"
        raise IntegrityError(message) from error
