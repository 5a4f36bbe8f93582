"""Offline evaluation: the served graph over encoded Parquet, against baselines, with intervals."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field, JsonValue

from contract.errors import DataError
from contract.schema import Schema
from contract.settings import Settings
from pipeline.evaluation.baselines import TrainingRows, read_training
from pipeline.evaluation.curves import draw
from pipeline.evaluation.findings import calibration_findings
from pipeline.evaluation.intervals import LEVEL, REPLICATES, Bootstrap, Users
from pipeline.evaluation.predictions import Predictions, Progress, predict
from pipeline.evaluation.result import Evaluation, EvaluationMethod, Slice, TaskScores
from pipeline.evaluation.slices import Masks, by_feature, by_history
from pipeline.evaluation.task_metrics import EXACT_ROWS, LISTS_AT, TaskResults, evaluate_tasks
from serving.graph.engine import Engine
from serving.store import bundle
from serving.store.manifest import MANIFEST_FILE

PREDICTIONS_FILE = "predictions.parquet"


class EvaluateConfig(Settings):
    """How to evaluate: bootstrap draws and their seed, the lengths k of lists, id features to slice by, threads."""

    replicates: int = Field(default=REPLICATES, ge=50)
    slice_replicates: int = Field(default=200, ge=50)
    seed: int = 0
    slice_by: tuple[str, ...] = ()
    threads: int = Field(default=1, ge=1)
    at: tuple[Annotated[int, Field(ge=1)], ...] = LISTS_AT


def evaluate(
    bundle_dir: Path,
    data: Path,
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
        data: Encoded Parquet, of the same schema.
        train: Encoded training rows, for the baselines and the slices of new users and items; None leaves out
            popularity and those slices.
        out_dir: Gets ``evaluation.json``, ``curves.json`` and ``predictions.parquet``; made if absent.
        config: How to evaluate.
        name: What the model is called; None takes the bundle's name and version, or the directory's name.
        experts: What training knows about the use of experts, to be kept with what the graph says.
        progress: Called with the rows scored and the rows in all.

    Raises:
        DataError: a column is missing or there are no rows.
        IntegrityError: the bundle is damaged.
        SchemaMismatchError: graph and schema disagree.
        PredictionError: the graph fails.
        ConfigError: a slice is not an id feature.
    """
    config = config or EvaluateConfig()
    model = name or _model_name(bundle_dir)
    engine = Engine(bundle_dir, threads=config.threads)
    predictions = predict(engine, data, engine.schema, progress)
    training = None if train is None else read_training(train, engine.schema)
    masks = by_feature(config.slice_by, data, engine.schema, bundle_dir)
    if training is not None:
        masks = by_history(predictions, training, engine.schema) | masks
    users = predictions.users()
    bootstrap = Bootstrap(users.count, config.replicates, config.seed)
    tasks = predictions.by_task(users)
    results = evaluate_tasks(tasks, bootstrap, config.at)
    result = Evaluation(
        model=model,
        data=str(data),
        rows=predictions.rows,
        tasks=results.scores,
        undefined=results.undefined,
        findings=tuple(calibration_findings(results.scores)),
        baselines=_baselines(predictions, users, bootstrap, training, engine.schema, config.at),
        slices=_slices(predictions, masks, config),
        experts=_graph_facts(engine) | dict(experts or {}),
        method=_method(config, grouped=predictions.grouped),
    )
    out_dir.mkdir(parents=True, exist_ok=True)
    predictions.save(out_dir / PREDICTIONS_FILE)
    draw(tasks).save(out_dir)
    result.save(out_dir)
    return result


def _model_name(bundle_dir: Path) -> str:
    """Model and version of a verified bundle; the name of a directory that is not one yet."""
    if not (bundle_dir / MANIFEST_FILE).exists():
        return bundle_dir.resolve().name
    return bundle.load(bundle_dir).name


def _baselines(
    predictions: Predictions,
    users: Users,
    bootstrap: Bootstrap,
    training: TrainingRows | None,
    schema: Schema,
    at: tuple[int, ...],
) -> dict[str, TaskScores]:
    """The constant training mean, and where training rows and items are known, item popularity."""
    rates = np.array([task.base_rate for task in schema.tasks], dtype=np.float32)
    scores = {"constant": np.tile(rates, (predictions.rows, 1))}
    if training is not None:
        scores["constant"] = training.constant(predictions.rows)
        if schema.item_key:
            scores["popularity"] = training.popularity(predictions.item)
    return {
        name: evaluate_tasks(predictions.with_scores(values).by_task(users), bootstrap, at).scores
        for name, values in scores.items()
    }


def _slices(predictions: Predictions, masks: dict[str, Masks], config: EvaluateConfig) -> dict[str, dict[str, Slice]]:
    return {
        name: {value: _slice(predictions, mask, config) for value, mask in values.items()}
        for name, values in masks.items()
    }


def _slice(predictions: Predictions, mask: np.ndarray[tuple[int], np.dtype[np.bool_]], config: EvaluateConfig) -> Slice:
    """The metrics that these rows define, resampling the users that occur in them."""
    users = Users.of(predictions.user[mask]) if predictions.grouped else Users.apart(int(mask.sum()))
    everywhere = Users(group=np.zeros(predictions.rows, dtype=np.int64), count=users.count)
    everywhere.group[mask] = users.group
    bootstrap = Bootstrap(users.count, config.slice_replicates, config.seed)
    results: TaskResults = evaluate_tasks(predictions.by_task(everywhere, mask), bootstrap, config.at)
    return Slice(rows=int(mask.sum()), tasks=results.scores, undefined=results.undefined)


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


def _method(config: EvaluateConfig, *, grouped: bool) -> EvaluationMethod:
    unit = "users with all their rows" if grouped else "rows (the data have no users)"
    return EvaluationMethod(
        interval=f"percentile bootstrap drawing {unit}; the same draws for all tasks, metrics and baselines; XAUC, and "
        f"above {EXACT_ROWS} rows AUC and PR AUC, to first order in the draw's weights; ECE without the bias of its "
        "plain form, by the sizes of error that agree with the observed one",
        level=LEVEL,
        replicates=config.replicates,
        seed=config.seed,
    )
