"""What pruning and merging experts at export save, and what they cost on rows that chose nothing.

``python -m benchmarks.pruning [--table movielens] [--seeds 5] [--share 0.005] [--distance 0.1] [--json]``; the table
must have been imported. Each model is trained as its recipe says, with one change, pruned and merged on the validation
rows as `moerank export` does it, under the same guard, and judged before and after on the rows that `benchmarks.bounds`
judges. Differences are paired by seed.
"""

import copy
import statistics
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch

from benchmarks.bounds import ranked_figures
from benchmarks.judged_runs import JUDGED, of_model, ranker_answers, recipe_of
from benchmarks.paired import paired
from benchmarks.report import Case, arguments, finish
from benchmarks.twins import overrides
from contract.errors import ExportError
from contract.schema import Schema
from pipeline.export.pruning import merge_on, prune_on
from pipeline.training.checkpoint import load_ranker

_TOP: dict[str, Any] = {"name": "top_k", "k": 2}
VARIANTS: dict[str, dict[str, Any]] = {
    "recipe": {},
    "top_k 2 of 16": {"model.gate": _TOP, "model.experts": 16},
    "top_k 2 of 16, per task": {
        "model.gate": _TOP,
        "model.experts": 16,
        "model.gate_scope": "per_task",
        "model.architecture": {"name": "mmoe"},
    },
}


class Shrunk(NamedTuple):
    """A model's figures before and after, and the shares of its experts and of their weights that went."""

    before: dict[str, float]
    after: dict[str, float]
    experts: float
    weights: float


def shrunk(table: str, variant: str, seed: int, share: float, distance: float) -> Shrunk:
    """Train a variant, unless its run is there, and prune and merge its experts; the guard may refuse either."""
    config = recipe_of(table, seed, overrides(VARIANTS[variant]))
    run_dir = config.root / "pruning" / f"{variant.replace(' ', '-').replace(',', '')}-{seed}"
    before = of_model(table, config, run_dir).figures
    features = config.features_dir
    ranker = load_ranker(run_dir, Schema.load(features))
    whole = sum(each.numel() for level in ranker.network.typed_levels for each in level.banks.parameters())
    experts = ranker.network.plan.experts
    done = []
    for shrink, most in ((prune_on, share), (merge_on, distance)):
        smaller = copy.deepcopy(ranker)
        try:
            done.append(shrink(smaller, features / "valid", most, _silent))
        except ExportError as error:
            print(f"{variant}, seed {seed}: refused: {error}", flush=True)
        else:
            ranker = smaller
    gone = sum(sum(map(len, each.get("dropped", each.get("groups", ())))) for each in done)
    weights = sum(each.get("weights", 0) for each in done)
    return Shrunk(before, ranker_answers(ranker, features / JUDGED[table]).figures(), gone / experts, weights / whole)


def cases(name: str, runs: Sequence[Shrunk]) -> Iterator[Case]:
    """The shares that went, and each figure after with its difference to before."""
    for words, shares in (("experts", [run.experts for run in runs]), ("weights", [run.weights for run in runs])):
        spread = (min(shares), max(shares))
        yield Case(f"{name}: {words} that went", statistics.fmean(shares), "share", None, "higher", len(runs), spread)
    for figure in ranked_figures(runs[0].before):
        gap = paired([run.after[figure] for run in runs], [run.before[figure] for run in runs])
        unit = figure.rpartition(" ")[2]
        case = f"{name}: {figure} after - before"
        yield Case(case, gap.mean, unit, None, "higher" if unit == "auc" else "lower", len(runs), (gap.low, gap.high))


def main() -> int:
    """Train, prune and judge every variant with every seed, then print the table."""
    parser = arguments(__doc__)
    parser.add_argument("--table", default="movielens", choices=list(JUDGED), help="(default movielens)")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS), help="(default all)")
    parser.add_argument("--seeds", type=int, default=5, help="how many seeds, from 0 (default 5)")
    parser.add_argument("--share", type=float, default=0.005, help="of rows that select an expert which goes")
    parser.add_argument("--distance", type=float, default=0.1, help="within which experts answer alike")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[Case] = []
    for name in options.variants:
        runs = [shrunk(options.table, name, seed, options.share, options.distance) for seed in range(options.seeds)]
        rows += cases(f"{options.table}, {name}", runs)
        print(f"{name}: done", flush=True)
    return finish("pruning", rows, as_json=options.json)


def _silent(text: str) -> None:
    del text


if __name__ == "__main__":
    sys.exit(main())
