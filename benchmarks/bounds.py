"""The recipes against LightGBM on the same columns, over several seeds, on every public table.

``python -m benchmarks.bounds [--tables adult movielens ...] [--seeds 5] [--defaults | --drafted]
[--taught [TASK ...]] [--blended] [--override model.k=v ...] [--json]``; features are built once. Adult and
MovieLens-100K must have been imported (``moerank import adult``), and KuaiRand-Pure lie in ``KUAIRAND_DIR``. Adult and
MovieLens are judged on the test rows, KuaiRand on its valid days, which also stop LightGBM and choose the recipe's best
epoch; ``kuairand_event`` has rates up to the row's own moment, and ``kuairand_recent`` also those of the last hours and
days. LightGBM is trained twice, with ids as categories and as numbers, and the better of both counts, task by task.
``--defaults`` leaves out what the recipes say of model and training, and ``--drafted`` has what ``moerank init`` writes
of them. With ``--taught`` the model learns from LightGBM's answers as well as from labels; with ``--blended`` these
answers are features of the recipe, which is then judged beside LightGBM without them.
"""

import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
import torch

from benchmarks.judged_runs import DEFAULTS, DRAFTED, JUDGED, Judged, of_model, of_trees, recipe_of
from benchmarks.paired import p_value, paired
from benchmarks.report import Case, arguments, finish
from benchmarks.tree_scores import with_tree_scores
from benchmarks.tree_teacher import tree_teacher
from benchmarks.trees import absent
from pipeline.evaluation.multiple_tests import holm

BOUNDS = {
    "kuairand is_click auc": 0.7530,
    "kuairand long_view auc": 0.7550,
    "kuairand is_like auc": 0.8797,
    "kuairand is_profile_enter auc": 0.7203,
    "kuairand watch rmse": 1.172,
    "adult income auc": 0.924,
    "adult never_married auc": 0.966,
    "movielens_random like auc": 0.783,
    "movielens_random rating rmse": 0.944,
    "adult income ece": 0.01,
    "adult never_married ece": 0.01,
}
UNTUNED = 0.003
"""How far below LightGBM's AUC a model with all defaults may be."""
for form in ("event", "recent"):
    BOUNDS |= {f"kuairand_{form} {n[9:]}": bound for n, bound in BOUNDS.items() if n.startswith("kuairand ")}
Better = Literal["lower", "higher"]


def better_trees(runs: Sequence[Judged]) -> Judged:
    """The best of several boosters in every figure; the CPU time is that of the cheapest."""
    figures = {
        name: (max if name.endswith("auc") else min)(run.figures[name] for run in runs) for name in runs[0].figures
    }
    return Judged(figures, min(run.cpu for run in runs))


def cases(table: str, runs: Sequence[Judged], trees: Judged, *, defaults: bool = False) -> Iterator[Case]:
    """The recipe's means with their lowest and highest seed, and the differences to LightGBM with their interval."""
    for name, tree in trees.figures.items():
        values = [run.figures[name] for run in runs]
        unit = name.rpartition(" ")[2]
        better: Better = "higher" if unit == "auc" else "lower"
        bound = None if defaults else BOUNDS.get(f"{table} {name}")
        yield Case(f"{table} {name}", statistics.fmean(values), unit, bound, better, len(values), _spread(values))
        yield Case(f"{table} {name}, LightGBM", tree, unit, None, better, 1, (tree, tree))
        gap = paired(values, [tree] * len(values))
        least = -UNTUNED if defaults and unit == "auc" else None
        yield Case(
            f"{table} {name} - LightGBM's", gap.mean, unit, least, better, len(values), (gap.low, gap.high)
        )  # fmt: skip
    ratios = [run.cpu / trees.cpu for run in runs]
    limit = 1.5 if defaults else None
    mean = statistics.fmean(ratios)
    yield Case(f"{table} CPU time / LightGBM's", mean, "times", limit, "lower", len(ratios), _spread(ratios))
    unions = [run.union for run in runs]
    yield Case(f"{table} union/n", statistics.fmean(unions), "of experts", None, "lower", len(unions), _spread(unions))


def _spread(values: Sequence[float]) -> tuple[float, float]:
    return min(values), max(values)


def against(figures: Mapping[str, Sequence[float]], base: Mapping[str, Sequence[float]]) -> str:
    """Differences by figure in Markdown: means, the paired difference with its interval, and p adjusted by Holm."""
    p = holm(np.array([p_value(figures[name], base[name]) for name in figures]), np.ones(len(figures)))
    rows = [["", "mean", "against", "difference", "p, Holm"], ["---"] * 5]
    for (name, values), adjusted in zip(figures.items(), p, strict=True):
        means = [f"{statistics.fmean(each):.4f}" for each in (values, base[name])]
        rows.append([name, *means, str(paired(values, base[name])), f"{adjusted:.3f}"])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def ranked_figures(figures: Mapping[str, float]) -> list[str]:
    """The figures that are tested: AUC and RMSE; calibration has bounds of its own."""
    return [name for name in figures if not name.endswith("ece")]


def _teacher(table: str, tasks: Sequence[str]) -> str:
    """The change of a recipe by which some of its tasks, or all, learn from LightGBM's answers as well."""
    return f"train.teacher={{predictions: {tree_teacher(recipe_of(table, 0, []), tasks)}, weight: 0.5}}"


def main() -> int:
    """Train and judge everything, then print the table."""
    parser = arguments(__doc__)
    parser.add_argument("--tables", nargs="+", default=list(JUDGED), choices=list(JUDGED), help="(default all)")
    parser.add_argument("--seeds", type=int, default=5, help="how many seeds, from 0 (default 5)")
    untuned = parser.add_mutually_exclusive_group()
    untuned.add_argument("--defaults", action="store_true", help="leave out what recipes say of model and training")
    untuned.add_argument("--drafted", action="store_true", help="what `moerank init` writes in its place")
    taught = "tasks that learn from LightGBM's answers as well (without names all)"
    parser.add_argument("--taught", nargs="*", metavar="TASK", help=taught)
    parser.add_argument("--blended", action="store_true", help="LightGBM's answers are features, a learned blend")
    parser.add_argument("--override", nargs="*", default=[], help="changes to the recipe, such as model.gate.k=1")
    options = parser.parse_args()
    if missing := absent():
        return finish("bounds", missing, as_json=options.json)
    torch.set_num_threads(1)
    rows: list[Case] = []
    untuned_form = DEFAULTS if options.defaults else DRAFTED if options.drafted else []
    overrides = [*untuned_form, *options.override]
    for table in options.tables:
        teacher = [] if options.taught is None else [_teacher(table, options.taught)]
        base = recipe_of(table, 0, overrides)
        blend = with_tree_scores(base) if options.blended else []
        configs = [recipe_of(table, seed, [*overrides, *teacher, *blend]) for seed in range(options.seeds)]
        runs = [of_model(table, config) for config in configs]
        trees = better_trees([of_trees(table, base, ids_as_numbers=numbers) for numbers in (False, True)])
        figures = {name: [run.figures[name] for run in runs] for name in ranked_figures(trees.figures)}
        print(f"\n{table}, against LightGBM\n")
        print(against(figures, {name: [trees.figures[name]] * len(runs) for name in figures}), flush=True)
        rows += cases(table, runs, trees, defaults=bool(untuned_form))
    return finish("bounds", rows, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
