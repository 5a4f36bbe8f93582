"""Offline evaluation: the served graph over encoded Parquet or raw days, or another tool's scores, with intervals."""

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from contract.dataset import EncodedDataset
from contract.errors import DataError
from contract.schema import Schema
from pipeline.evaluation.baselines import TrainingRows, read_training
from pipeline.evaluation.expert_slices import EXPERT_USE_FILE, ExpertSlices, expert_slices
from pipeline.evaluation.findings import two_value_findings
from pipeline.evaluation.importance import IMPORTANCE_FILE, Importance, importance
from pipeline.evaluation.list_keys import by_lists
from pipeline.evaluation.measure import (
    PREDICTIONS_FILE,
    Baseline,
    Context,
    EvaluateConfig,
    evaluated_baselines,
    measure,
)
from pipeline.evaluation.prediction_file import Columns, prediction_stretches
from pipeline.evaluation.predictions import Predictions, Progress, unscored_rows
from pipeline.evaluation.result import Evaluation
from pipeline.evaluation.row_slices import LabelledRows, slice_masks
from pipeline.evaluation.slices import Masks
from pipeline.evaluation.streaming.on_spark import pass_on_spark, spark_session
from pipeline.evaluation.streaming.prediction_writer import PredictionWriter
from pipeline.evaluation.streaming.scoring import score
from pipeline.evaluation.streaming.stream_state import StreamState, passed
from pipeline.evaluation.time_slices import by_time, file_slices
from pipeline.evaluation.trees import can_grow, tree_scores
from serving.graph.engine import Engine
from serving.store import bundle
from serving.store.manifest import MANIFEST_FILE

__all__ = ["PREDICTIONS_FILE", "EvaluateConfig", "evaluate", "evaluate_file"]


def evaluate(
    bundle_dir: Path,
    data: Path | LabelledRows,
    train: Path | None,
    out_dir: Path,
    *,
    config: EvaluateConfig | None = None,
    name: str | None = None,
    experts: Mapping[str, JsonValue] | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Score the served graph on labelled rows and judge it.

    Args:
        bundle_dir: A bundle, or a directory with ``model.onnx`` and ``schema.json`` that is to become one.
        data: Encoded rows of the same schema; as `LabelledRows` with what should be said about them.
        train: Encoded training rows, for the baselines and the slices of new users and items; None leaves out
            popularity and those slices.
        out_dir: Gets ``evaluation.json``, ``curves.json``, ``predictions.parquet`` and what the graph tells of its
            experts; made if absent.
        config: How to evaluate.
        name: What the model is called; None takes the bundle's name and version, or the directory's name.
        experts: What training knows about the use of experts, to be kept with what the graph says.
        progress: Called with the rows scored and the rows in all.

    Raises:
        DataError: a column is missing or there are no rows.
        IntegrityError: the bundle is damaged.
        SchemaMismatchError: graph, schema and rows disagree.
        PredictionError: the graph fails.
        ConfigError: a slice is not an id feature.
    """
    config = config or EvaluateConfig()
    model = name or model_name(bundle_dir)
    engine = Engine(bundle_dir, threads=config.threads)
    rows = data if isinstance(data, LabelledRows) else LabelledRows(data, str(data))
    training = None if train is None else read_training(train, engine.schema)
    total = EncodedDataset.open(rows.dataset).rows
    scoring = {"processes": config.processes, "threads": config.threads}
    scored = by_lists(
        score(bundle_dir, rows.dataset, total, progress=progress, **scoring), config.lists_by, rows.dataset
    )
    job = _Unscored(engine, bundle_dir, rows, train, training, config, out_dir)
    # The graph computes without the interpreter's lock.
    with ThreadPoolExecutor(1) as beside:
        early = beside.submit(job.look) if total <= config.memory_rows else None
        state = _passed(scored if early is None else _while_well(scored, early), config, out_dir)
        predictions, numbers = state.users.finish()
        known = job.some(predictions, numbers) if early is None else early.result()
        context = Context(
            model=model,
            data=rows.name,
            baselines=known.baselines,
            masks=known.masks,
            experts=_graph_facts(engine) | dict(experts or {}),
            notes=rows.notes,
            units={task.name: task.unit for task in engine.schema.tasks if task.unit},
            tree_ids=known.tree_ids,
        )
        more = beside.submit(job.importance)
        evaluation = measure(predictions, context, config, out_dir, state)
        for file, result in ((EXPERT_USE_FILE, known.experts), (IMPORTANCE_FILE, more.result())):
            (out_dir / file).unlink(missing_ok=True)
            if result is not None:
                result.save(out_dir)
    return evaluation


@dataclass(frozen=True)
class _Known:
    """What rows and graph tell before the rows are scored: baselines, slices and their experts, how trees read ids."""

    baselines: Mapping[str, Baseline]
    masks: dict[str, Masks]
    experts: ExpertSlices | None
    tree_ids: Mapping[str, str]


@dataclass(frozen=True)
class _Unscored:
    """All of an evaluation that needs no score of the model's, so that it can be done while the graph scores."""

    engine: Engine
    bundle_dir: Path
    rows: LabelledRows
    train: Path | None
    training: TrainingRows | None
    config: EvaluateConfig
    out_dir: Path

    def look(self) -> _Known:
        """Of all rows: baselines with their metrics, slices, and the experts of each slice."""
        rows = unscored_rows(self.rows.dataset, self.engine.schema)
        masks = self._masks(rows, None)
        (rows,) = by_lists([rows], self.config.lists_by, self.rows.dataset)
        experts = self._experts(masks)
        scores = _baselines(rows, self.training, self.engine.schema)
        tree_ids: Mapping[str, str] = {}
        if self.train is not None and self.config.trees and can_grow(rows.rows):
            data = self.rows.dataset
            scores["trees"], tree_ids = tree_scores(self.train, data, self.engine.schema, self.config.threads)
        return _Known(evaluated_baselines(rows, scores, self.config), masks, experts, tree_ids)

    def some(self, rows: Predictions, numbers: NDArray[np.int64]) -> _Known:
        """Of those rows that are kept where all are too many; `numbers` are their places."""
        baselines = _baselines(rows, self.training, self.engine.schema)
        return _Known(baselines, self._masks(rows, numbers), self._experts({}), {})

    def importance(self) -> Importance | None:
        """What each feature is worth, where that is asked for."""
        data, schema, draws = self.rows.dataset, self.engine.schema, self.config.importance
        return importance(self.engine, data, schema, permutations=draws, seed=self.config.seed) if draws else None

    def _masks(self, rows: Predictions, numbers: NDArray[np.int64] | None) -> dict[str, Masks]:
        schema = self.engine.schema
        return slice_masks(rows, self.rows, self.training, schema, self.bundle_dir, self.config.slice_by, numbers)

    def _experts(self, masks: dict[str, Masks]) -> ExpertSlices | None:
        return expert_slices(self.engine, self.rows.dataset, self.engine.schema, masks)


def _while_well(stretches: Iterable[Predictions], other: Future[_Known]) -> Iterator[Predictions]:
    """Stretches of rows; what has gone wrong in another thread meanwhile is raised before the next one."""
    for stretch in stretches:
        if other.done():
            other.result()
        yield stretch


def _passed(stretches: Iterable[Predictions], config: EvaluateConfig, out_dir: Path) -> StreamState:
    """Pass over the rows, and write them as they pass."""
    with PredictionWriter(out_dir / PREDICTIONS_FILE) as writer:
        return passed(stretches, config.budget, writer.write)


def evaluate_file(
    path: Path,
    out_dir: Path,
    *,
    columns: Columns | None = None,
    config: EvaluateConfig | None = None,
    name: str | None = None,
) -> Evaluation:
    """Judge the labels and scores of any tool; see `load_predictions` for what the file holds.

    The one baseline is constant: the mean label of these rows.

    Raises:
        DataError: the file cannot be used.
        ConfigError: a slice by a column that the file does not have.
    """
    config = config or EvaluateConfig()
    state = _passed(by_lists(prediction_stretches(path, columns), config.lists_by), config, out_dir)
    predictions, numbers = state.users.finish()
    masks = file_slices(predictions, path, config.slice_by, None if state.is_whole else numbers)
    return _of_scores(state, predictions, masks, out_dir, config, (name or path.stem, str(path)))


def evaluate_on_spark(
    path: str,
    out_dir: Path,
    *,
    master: str,
    columns: Columns | None = None,
    config: EvaluateConfig | None = None,
    name: str | None = None,
) -> Evaluation:
    """As `evaluate_file`, with the rows read on a Spark cluster: executors sum up partitions, and states travel here.

    Args:
        path: Parquet, where the executors read it: a path or a URL such as ``hdfs:///scores/2026-11-26``.
        out_dir: Gets what `evaluate_file` writes, but for the rows.
        master: The cluster, such as ``spark://HOST:7077`` or ``local[4]``.
        columns: What the columns are called.
        config: How to evaluate.
        name: What the model is called; None takes the last part of the path.

    Raises:
        ConfigError: PySpark is not installed, or a slice by a column: rows of other columns do not travel.
        DataError: the rows cannot be used.
    """
    config = config or EvaluateConfig()
    with spark_session(master) as session:
        state = pass_on_spark(session.read.parquet(path), columns, config.budget, config.lists_by)
    # Rows stay on the cluster; those of an earlier evaluation in the same place are others.
    (out_dir / PREDICTIONS_FILE).unlink(missing_ok=True)
    predictions, _ = state.users.finish()
    masks = by_time(predictions, config.slice_by, "UTC")
    return _of_scores(state, predictions, masks, out_dir, config, (name or PurePath(path).stem, path))


def _of_scores(
    state: StreamState,
    predictions: Predictions,
    masks: dict[str, Masks],
    out_dir: Path,
    config: EvaluateConfig,
    names: tuple[str, str],
) -> Evaluation:
    """Judge another tool's scores beside their mean label; `names` are those of model and data."""
    weights = predictions.weights.astype(np.float64)
    means = (weights * predictions.labels).sum(axis=0) / np.maximum(weights.sum(axis=0), 1e-300)
    constant = np.tile(means.astype(np.float32), (predictions.rows, 1))
    context = Context(*names, {"constant": constant}, masks, notes=two_value_findings(predictions))
    return measure(predictions, context, config, out_dir, state)


def model_name(bundle_dir: Path) -> str:
    """Model and version of a verified bundle; the name of a directory that is not one yet.

    Raises:
        IntegrityError: the bundle is damaged.
    """
    if not (bundle_dir / MANIFEST_FILE).exists():
        return bundle_dir.resolve().name
    return bundle.load(bundle_dir).name


def _baselines(
    predictions: Predictions, training: TrainingRows | None, schema: Schema
) -> dict[str, NDArray[np.float32]]:  # fmt: skip
    """The constant training mean, and where training rows and items are known, item popularity."""
    rates = np.array([task.base_rate for task in schema.tasks], dtype=np.float32)
    scores: dict[str, NDArray[np.float32]] = {"constant": np.tile(rates, (predictions.rows, 1))}
    if training is not None:
        scores["constant"] = training.constant(predictions.rows)
        if schema.item_key:
            scores["popularity"] = training.popularity(predictions.item)
    return scores


def _graph_facts(engine: Engine) -> dict[str, JsonValue]:
    """What the exporter wrote into the graph about its gate, its form and the share of experts that a row needs."""
    facts: dict[str, JsonValue] = {key: engine.properties[key] for key in ("gate", "form") if key in engine.properties}
    if "union_over_n" in engine.properties:
        try:
            facts["union_over_n"] = float(engine.properties["union_over_n"])
        except ValueError as error:
            message = (
                f"the graph's union_over_n is {engine.properties['union_over_n']!r}, not a number; export it again"
            )
            raise DataError(message) from error
    return facts
