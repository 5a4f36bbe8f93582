"""A sparse gate against its softmax twin: the same recipe, the same seeds, the gate alone differs.

``python -m benchmarks.twins [--tables movielens kuairand] [--variants ...] [--seeds 5] [--override model.k=v ...]
[--json]``; judged as `benchmarks.bounds` judges. The twin is the recipe with a softmax gate for each task over 8
experts, and it stays on the disk, as it teaches in the variants with ``distilled``; overrides change both. Differences
are paired by seed; p is adjusted by Holm for a variant's tasks. With several variants, each is held against the first
of them as well.
"""

import statistics
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
import yaml

from benchmarks.bounds import against, ranked_figures
from benchmarks.judged_runs import Judged, of_model, recipe_of
from benchmarks.paired import paired
from benchmarks.report import Case, arguments, finish
from contract.digests import digest_of

_TOP: dict[str, Any] = {"name": "top_k", "k": 2}
_SHARED: dict[str, Any] = {"model.gate_scope": "shared", "model.architecture": {"name": "mmoe", "shared_experts": 1}}
TWIN: dict[str, Any] = {
    "model.gate": {"name": "softmax"},
    "model.gate_scope": "per_task",
    "model.architecture": {"name": "mmoe"},
    "model.experts": 8,
}
STEPS = {"movielens": 79, "kuairand": 113, "kuairand_event": 113}
"""Of an epoch in batches of 1,024."""
TAUGHT = "+distilled"


def variants(table: str) -> dict[str, dict[str, Any]]:
    """The changes of each variant to the recipe, by name; those with `TAUGHT` learn from the twin as well."""
    late = {"name": "dense_to_sparse", "k": 2, "switch_step": 2 * STEPS[table], "normalise": True}
    plain = {
        "top_k": {"model.gate": _TOP, "model.gate_scope": "shared", "model.architecture": {"name": "mmoe"}},
        "top_k+shared": {"model.gate": _TOP, **_SHARED},
        "dselect_k+shared": {"model.gate": {"name": "dselect_k", "k": 2, "entropy": 1.0}, **_SHARED},
        "top_k-3-of-12+shared": {"model.gate": {**_TOP, "k": 3}, "model.experts": 12, **_SHARED},
        "dense-first+shared": {"model.gate": late, **_SHARED},
        "dropout+shared": {"model.gate": {**_TOP, "expert_dropout": 0.1}, **_SHARED},
        "balance+shared": {"model.gate": {**_TOP, "regularisers": {"load_balance": 0.01}}, **_SHARED},
    }
    return plain | {name + TAUGHT: change for name, change in plain.items()}


def overrides(changes: dict[str, Any]) -> list[str]:
    """Changes as the command line takes them."""
    dumped = {key: yaml.safe_dump(value, default_flow_style=True, width=1000) for key, value in changes.items()}
    return [f"{key}={text.removesuffix('...' + chr(10)).strip()}" for key, text in dumped.items()]


def twin(table: str, seed: int, changed: Sequence[str] = ()) -> tuple[Judged, str]:
    """The softmax twin of a recipe, with changes that its variants have as well, and where its run lies."""
    config = recipe_of(table, seed, [*overrides(TWIN), *changed])
    of_changes = f"-{digest_of(list(changed))[:8]}" if changed else ""
    run_dir = config.root / "twins" / f"seed-{seed}{of_changes}"
    return of_model(table, config, run_dir), str(run_dir)


def cases(table: str, name: str, runs: Sequence[Judged], twins: Sequence[Judged]) -> Iterator[Case]:
    """A variant's differences to its twins."""
    for figure in ranked_figures(runs[0].figures):
        unit = figure.rpartition(" ")[2]
        better: Literal["lower", "higher"] = "higher" if unit == "auc" else "lower"
        gap = paired([run.figures[figure] for run in runs], [each.figures[figure] for each in twins])
        case = f"{table}, {name}: {figure} - twin's"
        yield Case(case, gap.mean, unit, None, better, len(runs), (gap.low, gap.high))
    unions = [run.union for run in runs]
    spread = (min(unions), max(unions))
    cpu = [run.cpu for run in runs]
    yield Case(f"{table}, {name}: CPU", statistics.fmean(cpu), "s", None, "lower", len(cpu), (min(cpu), max(cpu)))
    yield Case(f"{table}, {name}: union/n", statistics.fmean(unions), "of experts", 0.4, "lower", len(unions), spread)


def main() -> int:
    """Train twins and variants, then print a table for each variant."""
    parser = arguments(__doc__)
    parser.add_argument("--tables", nargs="+", default=list(STEPS), choices=list(STEPS), help="(default all)")
    parser.add_argument("--variants", nargs="+", choices=list(variants("movielens")), help="(default all)")
    parser.add_argument("--seeds", type=int, default=5, help="how many seeds, from 0 (default 5)")
    parser.add_argument("--override", nargs="*", default=[], help="changes to twins and variants alike")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[Case] = []
    for table in options.tables:
        known = [twin(table, seed, options.override) for seed in range(options.seeds)]
        twins = [judged for judged, _ in known]
        found: dict[str, dict[str, list[float]]] = {}
        for name in options.variants or variants(table):
            changes = overrides(variants(table)[name])
            runs = []
            for seed, (_, run_dir) in enumerate(known):
                taught = [f"train.teacher={{run: {run_dir}, weight: 0.5}}"] if name.endswith(TAUGHT) else []
                runs.append(of_model(table, recipe_of(table, seed, [*changes, *options.override, *taught])))
            figures = {f: [run.figures[f] for run in runs] for f in ranked_figures(runs[0].figures)}
            base = {f: [each.figures[f] for each in twins] for f in figures}
            print(f"\n{table}, {name}, against softmax\n\n{against(figures, base)}", flush=True)
            for first, theirs in list(found.items())[:1]:
                print(f"\n{table}, {name}, against {first}\n\n{against(figures, theirs)}", flush=True)
            found[name] = figures
            rows += cases(table, name, runs, twins)
    return finish("twins", rows, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
