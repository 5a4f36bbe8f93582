"""From a trained run to the files of a bundle: graph, golden requests, schema, vocabularies and online tables."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from contract.graph_names import (
    CHEAP_FILE,
    FEWER_FILE,
    GOLDEN_FILE,
    MODEL_FILE,
    ONLINE_FOLDER,
    PACKED_FILE,
    PREPARED_FILE,
)
from contract.inputs import Inputs
from contract.schema import Schema
from features.batches import BatchReader
from features.feature_config import FeaturesConfig
from features.recipe_files import save_recipe
from models.export import ExportReport, as_json, export
from models.export.batched_export import export_packed
from models.export.onnx_file import annotate
from models.ranker import Ranker
from pipeline.console import Progress
from pipeline.export.cheaper_stages import stage_costs, write_stages
from pipeline.export.cuda_graphs import judge_cuda_graphs, take_tables_out, write_cuda_graphs
from pipeline.export.cuda_precision import judge_tf32
from pipeline.export.golden_cases import write_golden
from pipeline.export.int8_experts import INT8, Int8Job, write_int8
from pipeline.export.post_export import (
    ExportConfig,
    answerer,
    answers_of,
    apply_if_equal,
    calibrate_on,
    drop_unread_tables,
)
from pipeline.export.prepare import Preparing, prepare, write_prepared_golden
from pipeline.export.prepare import as_json as preparation_as_json
from pipeline.export.pruning import merge_on, prune_on
from pipeline.provenance import git_revision
from pipeline.training.checkpoint import load_ranker
from serving.graph.engine import Engine
from serving.graph.graph_files import graph_files, graph_in
from serving.observe.expected_predictions import PREDICTIONS, validation_counts
from serving.store import golden

SAMPLE_ROWS = 2048
PREDICTED_ROWS = 65_536
"""Validation rows whose predictions a server's are compared with."""


def export_run(
    run_dir: Path,
    features_dir: Path,
    recipe: FeaturesConfig,
    rows: Path,
    out: Path,
    config: ExportConfig,
    progress: Progress,
) -> dict[str, Any]:
    """Write graph, golden requests, schema, recipe with all that it fitted, and online tables into `out`, which exists.

    Raises:
        ExportError: the graph does not answer as the model does, or smaller numbers cost too much.
        SchemaMismatchError: the features are not those that the run was trained on.
    """
    progress("reading the checkpoint")
    schema = Schema.load(features_dir)
    ranker, valid = load_ranker(run_dir, schema), features_dir / "valid"
    pruned = prune_on(ranker, valid, config.prune, progress.say)
    merged = merge_on(ranker, valid, config.merge, progress.say)
    calibration = calibrate_on(ranker, valid, config.methods(schema))
    progress("writing the graph and comparing it with the model")
    sample = next(BatchReader(rows, schema, SAMPLE_ROWS).epoch())
    settings: dict[str, Any] = {"typical_rows": config.typical_rows, "require_sparse": config.require_sparse}
    report = export(ranker, schema, sample.inputs, out / MODEL_FILE, config.form, **settings)
    _pack(ranker, report, sample.inputs, out / PACKED_FILE, config)
    preparation, items = prepare(
        Preparing(ranker, report, features_dir, sample.inputs, out, config.prepare, config.item_rows)
    )
    if config.prepare != "none":
        progress.say(str(preparation))
    write_stages(ranker, report, features_dir, out, config.stages)
    variants = (out / PACKED_FILE, out / PREPARED_FILE, out / CHEAP_FILE, out / FEWER_FILE)
    changed = apply_if_equal(out / MODEL_FILE, schema, valid, config.changes(), variants)
    cuda = write_cuda_graphs(ranker, report, sample.inputs, out, config)
    for reason in cuda.left_out.values():
        progress.say(f"left out: {reason}")
    drop_unread_tables(out, config.tables)
    progress("golden requests and online tables")
    # Every graph is meant to equal the model, but for smaller tables.
    write_golden(ranker, rows, features_dir, out, answerer(out / MODEL_FILE, schema) if changed else None, items=items)
    schema.save(out)
    save_recipe(recipe, features_dir, out)
    shutil.rmtree(out / ONLINE_FOLDER, ignore_errors=True)
    shutil.copytree(features_dir / ONLINE_FOLDER, out / ONLINE_FOLDER)
    write_prepared_golden(out, features_dir)
    progress("int8 experts")
    earlier: Mapping[str, Any] = next(iter(changed.values()), {})
    int8 = write_int8(Int8Job(out, schema, features_dir, sample.inputs, config.quantize, earlier))
    if config.quantize != "none":
        progress.say(str(int8))
    costs = stage_costs(out, schema, valid, config.stages, answerer)
    for cost in costs:
        progress.say(str(cost))
    answers = answers_of(graph_in(out), schema, valid, PREDICTED_ROWS)
    progress("judging the precisions of CUDA")
    precisions = judge_tf32(out / MODEL_FILE, schema, valid) | judge_cuda_graphs(out, schema, valid)
    facts = {
        "cuda_precisions": precisions,
        "cuda": cuda.facts,
        "preparation": preparation_as_json(preparation),
        "calibration": calibration,
        "changes": changed | ({INT8: int8.figures} if int8.files else {}),
        "left_out": dict(cuda.left_out) | ({INT8: int8.reason} if config.quantize == "auto" and not int8.files else {}),
        "int8": asdict(int8),
        "graphs": _graphs_by_device(out),
        "pruned": pruned,
        "merged": merged,
        "stages": [vars(cost) for cost in costs],
        "git_revision": git_revision(),
    }
    _annotate(out, facts)
    take_tables_out(out)
    _answer_golden(out, schema)
    return as_json(report) | facts | {PREDICTIONS: validation_counts(answers.scores, schema)}


def _graphs_by_device(out: Path) -> dict[str, Any]:
    """Which graph answers what, on processors and on cards."""
    names = {path.name for path in out.iterdir()}
    return {device: asdict(graph_files(names, "fp32", cuda=device == "cuda")) for device in ("cpu", "cuda")}


def _annotate(out: Path, facts: Mapping[str, Any]) -> None:
    properties = {name: value if isinstance(value, str) else json.dumps(value) for name, value in facts.items()}
    for graph in sorted(out.glob("*.onnx")):
        annotate(graph, properties)


def _answer_golden(out: Path, schema: Schema) -> None:
    """Answer the golden requests as a server will, so that nothing is published that no server serves.

    Raises:
        PredictionError: an answer is not the model's.
    """
    engines = [Engine(out, schema, file=name) for name in dict.fromkeys((MODEL_FILE, graph_in(out).name))]
    for name, case in golden.read(out / GOLDEN_FILE).items():
        for engine in engines:
            engine.check(name, case)


def _pack(ranker: Ranker, report: ExportReport, sample: Inputs, target: Path, config: ExportConfig) -> None:
    # One of an earlier export would be published beside a graph of other weights.
    target.unlink(missing_ok=True)
    if config.packed:
        export_packed(ranker, report, sample, target)
