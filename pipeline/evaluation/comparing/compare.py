"""Compare models on the same rows: bundles on encoded rows or raw days, and files of scores."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from contract.dataset import EncodedDataset
from contract.errors import ConfigError
from contract.schema import Schema
from features.encode_days import FittedRecipe, RawDays, encoded_days
from pipeline.evaluation.comparing.alignment import align, alike, require_build
from pipeline.evaluation.comparing.comparison import MOST_MODELS, Comparison, PairedComparison
from pipeline.evaluation.comparing.paired_test import MeasuredDifference, adjusted_together, measure_difference
from pipeline.evaluation.comparing.slice_differences import SliceDifference, slice_differences, widened
from pipeline.evaluation.findings import two_value_findings
from pipeline.evaluation.intervals import LEVEL
from pipeline.evaluation.list_keys import by_lists
from pipeline.evaluation.measure import EvaluateConfig
from pipeline.evaluation.prediction_file import Columns, load_predictions
from pipeline.evaluation.predictions import Predictions, joined, predict_stretches
from pipeline.evaluation.result import EvaluationMethod
from pipeline.evaluation.row_slices import LabelledRows, slice_masks
from pipeline.evaluation.slices import Masks
from pipeline.evaluation.time_slices import file_slices
from serving.graph.engine import Engine
from serving.store import bundle
from serving.store.manifest import MANIFEST_FILE

_METHOD = (
    "paired bootstrap over users: intervals and p by Student's t from the draws' standard deviation; p_adjusted by "
    "Holm over all tasks, metrics and models, each task's AUC or RMSE named beforehand and given four fifths of the "
    "level together; intervals of slices hold for all slices together (Bonferroni)"
)


def compare(
    a: Path,
    b: Path,
    data: Path | None = None,
    out_dir: Path | None = None,
    *,
    config: EvaluateConfig | None = None,
    columns: Columns | None = None,
    days: RawDays | None = None,
) -> PairedComparison:
    """Compare two bundles or prediction files on the same rows; see `compare_models`, which takes more."""
    return compare_models([a, b], data, out_dir, config=config, columns=columns, days=days).pairs[0]


def compare_models(
    models: Sequence[Path],
    data: Path | None = None,
    out_dir: Path | None = None,
    *,
    config: EvaluateConfig | None = None,
    columns: Columns | None = None,
    days: RawDays | None = None,
    progress: Callable[[str], None] | None = None,
) -> Comparison:
    """Compare bundles or prediction files with the first of them, on the same rows.

    Args:
        models: Bundles, or prediction files such as ``predictions.parquet`` of an evaluation (`load_predictions` says
            which columns they need).
        data: Encoded Parquet to score; it must be of the bundles' own features build.
        out_dir: Gets ``comparison.json``; made if absent.
        config: Replicates and seed of the bootstrap, and slices.
        columns: What the columns of prediction files are called.
        days: Raw rows instead of `data`; each bundle encodes them by its own recipe, so bundles of different builds
            can be compared.
        progress: Called with a few words as each model begins.

    Raises:
        ConfigError: a bundle is given without data, a slice that the first model's rows do not have, or the number of
            models.
        DataError: they are not about the same rows and tasks, or cannot be judged.
        IntegrityError: a bundle is damaged.
        SchemaMismatchError: `data` was encoded for another bundle.
    """
    if len(models) < 2 or len(models) > MOST_MODELS:  # noqa: PLR2004 - a pair
        message = f"a comparison takes 2 to {MOST_MODELS} models; found {len(models)}"
        raise ConfigError(message)
    config = config or EvaluateConfig()
    source = _Source(data, days, columns, config, progress or (lambda _: None))
    first = source.scored(models[0], sliced=True)
    pairs = [_measured(first, source.scored(path), config) for path in models[1:]]
    tested = _together(models, pairs, config, first.notes)
    notes = dict.fromkeys(note for pair in tested for note in pair.notes)
    result = Comparison(models=tuple(map(str, models)), notes=tuple(notes), pairs=tested)
    if out_dir is not None:
        result.save(out_dir)
    return result


@dataclass(frozen=True)
class ScoredRows:
    """A model's predictions, masks [N] of slices, and units of labels by task."""

    predictions: Predictions
    masks: Mapping[str, Masks] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Pair:
    """Two models on their common rows, before any test."""

    rows: int
    tasks: tuple[str, ...]
    measured: dict[tuple[str, str], MeasuredDifference]
    undefined: dict[str, dict[str, str]]
    units: Mapping[str, str]
    slices: list[SliceDifference]
    untested: tuple[str, ...]
    notes: tuple[str, ...]


def _measured(first: ScoredRows, second: ScoredRows, config: EvaluateConfig) -> _Pair:
    """Bring both to the same rows, and measure."""
    one, other = align(_numbered(first.predictions), _numbered(second.predictions))
    measured, undefined = measure_difference(one, other, config)
    places = np.arange(one.rows) if one.place is None else one.place
    masks = {name: {value: mask[places] for value, mask in each.items()} for name, each in first.masks.items()}
    groups = alike(one, other)
    split = [name for name, each in masks.items() if any(_splits(mask, groups) for mask in each.values())]
    whole = {name: each for name, each in masks.items() if name not in split}
    slices, untested = slice_differences(one, other, whole, config)
    units = {**second.units, **first.units}
    notes = (*second.notes, *_chance_notes(one, groups, split))
    return _Pair(one.rows, tuple(one.tasks), measured, undefined, units, slices, untested, notes)


def _numbered(rows: Predictions) -> Predictions:
    return replace(rows, place=np.arange(rows.rows))


def _splits(mask: NDArray[np.bool_], groups: NDArray[np.int64]) -> bool:
    """Whether a slice [N] has some rows of a group, but not all."""
    inside = np.bincount(groups, mask)
    return bool(((inside > 0) & (inside < np.bincount(groups))).any())


def _chance_notes(rows: Predictions, groups: NDArray[np.int64], split: Sequence[str]) -> Iterator[str]:
    """What cannot be said of rows that are paired by chance; sums by user do not depend on it."""
    sizes = np.bincount(groups)
    why = (
        f"{int(sizes[sizes > 1].sum())} of {rows.rows} rows share user, item, time and labels with another row, and "
        "the files have them in another order; name what tells rows apart, as in --columns key=impression"
    )
    if split:
        yield f"no differences by {', '.join(split)}: {why}"
    if not rows.grouped and sizes.size < rows.rows:
        yield f"pairs are partly by chance, which makes intervals too wide: {why}"


def _together(
    models: Sequence[Path], pairs: Sequence[_Pair], config: EvaluateConfig, notes: tuple[str, ...]
) -> tuple[PairedComparison, ...]:
    """Test the differences of all pairs as one family."""
    every = {(number, *key): each for number, pair in enumerate(pairs) for key, each in pair.measured.items()}
    tested = adjusted_together(every)
    tests = sum(len(pair.slices) for pair in pairs)
    method = EvaluationMethod(interval=_METHOD, level=LEVEL, replicates=config.replicates, seed=config.seed)
    comparisons = []
    for number, pair in enumerate(pairs):
        tasks = {
            task: {metric: each for (place, of, metric), each in tested.items() if (place, of) == (number, task)}
            for task in pair.tasks
        }
        comparisons.append(
            PairedComparison(
                a=str(models[0]),
                b=str(models[number + 1]),
                rows=pair.rows,
                tasks=tasks,
                method=method,
                undefined=pair.undefined,
                units={task: pair.units[task] for task in pair.tasks if task in pair.units},
                slices=widened(pair.slices, tests),
                untested=pair.untested,
                notes=tuple(dict.fromkeys((*notes, *pair.notes))),
            )
        )
    return tuple(comparisons)


@dataclass(frozen=True)
class _Source:
    """The rows to score, and how."""

    data: Path | None
    days: RawDays | None
    columns: Columns | None
    config: EvaluateConfig
    progress: Callable[[str], None]

    def scored(self, path: Path, *, sliced: bool = False) -> ScoredRows:
        """Load a prediction file, or score the rows with a bundle; with the slices of the rows where they are asked."""
        self.progress(f"scoring {path}" if path.is_dir() else f"reading {path}")
        if not path.is_dir():
            rows = self._loaded(path)
            masks = file_slices(rows, path, self.config.slice_by) if sliced else {}
            return ScoredRows(rows, masks, notes=two_value_findings(rows))
        if (path / MANIFEST_FILE).exists():
            bundle.load(path)
        engine = Engine(path, threads=self.config.threads)
        if self.days is not None:
            with encoded_days(FittedRecipe.load(path), self.days, lambda _: None) as encoded:
                days = LabelledRows(encoded.dataset, encoded.name, encoded.zone, tuple(encoded.notes()))
                return self._by_engine(engine, path, days, sliced)
        if self.data is None:
            message = (
                f"{path} is a bundle, so --data must name the encoded Parquet to score it on, or --events raw rows"
            )
            raise ConfigError(message)
        return self._by_engine(engine, path, LabelledRows(self.data, str(self.data)), sliced)

    def _by_engine(self, engine: Engine, path: Path, rows: LabelledRows, sliced: bool) -> ScoredRows:  # noqa: FBT001
        stretches = by_lists(
            predict_stretches(engine, rows.dataset, engine.schema), self.config.lists_by, rows.dataset
        )  # fmt: skip
        predictions, schema = joined(list(stretches)), engine.schema
        masks = slice_masks(predictions, rows, None, schema, path, self.config.slice_by) if sliced else {}
        return ScoredRows(predictions, masks, _units(schema), tuple(f"{path}: {note}" for note in rows.notes))

    def _loaded(self, path: Path) -> Predictions:
        """A prediction file; beside encoded rows it must be of the features build that encoded them."""
        rows = load_predictions(path, self.columns)
        encoded_with = None if self.data is None else EncodedDataset.open(self.data).encoded_with
        if encoded_with is not None:
            require_build(rows, encoded_with.schema_fingerprint, str(path), str(self.data))
        return rows


def _units(schema: Schema) -> dict[str, str]:
    return {task.name: task.unit for task in schema.tasks if task.unit}
