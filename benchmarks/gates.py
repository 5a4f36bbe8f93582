"""Gates, and what else the model offers, on real data: paired over seeds, each against one baseline.

``KUAIRAND_DIR=... python -m benchmarks.gates [--recipe movielens] [--groups gates norm] [--seeds 5] [--epochs 8]
[--plot FILE.svg] [--json]``; features are built once. Every variant trains the recipe with one change for a set number
of epochs and is judged after the last on the validation rows, which choose nothing here. Figures are kept beside the
features and not measured twice. The groups ``parts`` and ``losses`` change the recipe as it stands, which is their
baseline; that of all others is a softmax gate in it; ``--baseline`` names another. p is adjusted by Holm for all
variants and tasks of a command.
"""

import json
import statistics
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
import torch

from benchmarks.gate_plot import drawing
from benchmarks.gate_variants import EPOCHS, GROUPS, ORDERED, baseline, overrides
from benchmarks.ledger import Figures, Ledger
from benchmarks.paired import Paired, p_value, paired
from benchmarks.report import Case, arguments, finish
from contract.files import write_text
from pipeline.evaluation.multiple_tests import holm
from pipeline.flow.steps import build_features
from pipeline.project.project_config import ProjectConfig, read_config
from pipeline.training.train import train
from pipeline.training.training_log import HISTORY_FILE

RECIPES = Path(__file__).parents[1] / "pipeline" / "recipes"
CPU = "CPU s"


def measure(config: ProjectConfig, features: Path) -> Figures:
    """AUC or RMSE by task, the share of experts that a row needs, and CPU seconds, after the last epoch."""
    with TemporaryDirectory() as folder:
        started = time.process_time()
        train(features, config.model, config.train, Path(folder), say=lambda _: None)
        cpu = time.process_time() - started
        last = json.loads((Path(folder) / HISTORY_FILE).read_text(encoding="utf-8"))["epochs"][-1]
    scores = {
        task if metric in {"auc", "rmse"} else f"{task} {metric}": value
        for task, metrics in last["valid"].items()
        for metric, value in metrics.items()
    }
    return {**scores, "union/n": last["experts"]["union_over_n"], CPU: cpu}


def cases(figures: Mapping[str, list[Figures]], units: Mapping[str, str]) -> Iterator[Case]:
    """Each variant's means with their range, and its differences to the baseline, the first, with their interval."""
    base = next(iter(figures))
    for variant, runs in figures.items():
        for figure in runs[0]:
            values = [run[figure] for run in runs]
            unit = units.get(figure, "s" if figure == CPU else "of experts")
            better: Literal["higher", "lower"] = "higher" if unit == "auc" else "lower"
            spread = (min(values), max(values))
            yield Case(f"{variant}: {figure}", statistics.fmean(values), unit, None, better, len(values), spread)
            if variant != base and figure in units:
                gap = paired(values, [run[figure] for run in figures[base]])
                name = f"{variant}: {figure} - {base}'s"
                yield Case(name, gap.mean, unit, None, better, len(values), (gap.low, gap.high))


def gaps(figures: Mapping[str, list[Figures]], tasks: Sequence[str]) -> dict[str, dict[str, Paired]]:
    """Every variant's difference to the baseline, the first, by task."""
    base, *others = figures
    return {
        name: {task: paired([r[task] for r in figures[name]], [r[task] for r in figures[base]]) for task in tasks}
        for name in others
    }


def adjusted(figures: Mapping[str, list[Figures]], tasks: Sequence[str]) -> dict[str, dict[str, float]]:
    """By variant and task the p of its difference to the baseline, adjusted by Holm for all of them."""
    base, *others = figures
    pairs = [(name, task) for name in others for task in tasks]
    p = [p_value([r[t] for r in figures[name]], [r[t] for r in figures[base]]) for name, t in pairs]
    by_variant: dict[str, dict[str, float]] = {name: {} for name in others}
    for (name, task), value in zip(pairs, holm(np.array(p), np.ones(len(p))), strict=True):
        by_variant[name][task] = float(value)
    return by_variant


def table(figures: Mapping[str, list[Figures]], tasks: Sequence[str]) -> str:
    """Variants by tasks in Markdown: the baseline's means, the others' differences to it, bold where 0 is outside."""
    base = next(iter(figures))
    rows = [["variant", *tasks, "least p, Holm", "union/n", CPU], ["---"] * (len(tasks) + 4)]
    means = {task: f"{statistics.fmean(run[task] for run in figures[base]):.4f}" for task in tasks}
    lines: dict[str, Mapping[str, object]] = {base: means, **gaps(figures, tasks)}
    p = adjusted(figures, tasks)
    for variant, cells in lines.items():
        union, cpu = (statistics.fmean(run[each] for run in figures[variant]) for each in ("union/n", CPU))
        least = f"{min(p[variant].values()):.3f}" if variant in p else ""
        rows.append([variant, *(str(cells[task]) for task in tasks), least, f"{union:.2f}", f"{cpu:.0f}"])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def measure_all(
    recipe: Path, names: Sequence[str], runs: Iterable[tuple[int, int]], features: Path, ledger: Path
) -> dict[str, list[Figures]]:
    """Every variant with every (seed, epochs), one of these after the other: an interruption leaves paired runs."""
    figures: dict[str, list[Figures]] = {name: [] for name in names}
    for seed, epochs in runs:
        for name in names:
            config = read_config(recipe, overrides(recipe.stem, name, seed, epochs))
            blocks = [config.model.model_dump(mode="json"), config.train.model_dump(mode="json")]
            key = json.dumps(blocks, sort_keys=True)
            figures[name].append(Ledger(ledger).figures(key, partial(measure, config, features)))
    return figures


def main() -> int:
    """Train and judge every variant with every seed, then print the table."""
    parser = arguments(__doc__)
    parser.add_argument("--recipe", default="movielens", choices=sorted(EPOCHS), help="(default movielens)")
    parser.add_argument("--groups", nargs="+", choices=sorted(GROUPS), default=["gates"], help="(default gates)")
    parser.add_argument("--only", nargs="+", metavar="VARIANT", help="of these groups (default all)")
    parser.add_argument("--baseline", metavar="VARIANT", help="compare with this one of these groups instead")
    parser.add_argument("--seeds", type=int, default=5, help="how many seeds, from 0 (default 5)")
    parser.add_argument("--epochs", type=int, help=f"of each run (default {EPOCHS}, fewer than the recipes')")
    parser.add_argument("--plot", type=Path, help="write the differences as an SVG, too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    recipe = RECIPES / f"{options.recipe}.yaml"
    config = read_config(recipe)
    ledger = config.features_dir.parent / f"gates-{build_features(config).stamp}.jsonl"
    base = options.baseline or baseline(options.groups)
    offered = [name for group in options.groups for name in GROUPS[group]]
    named = {*(options.only or ()), *([options.baseline] if options.baseline else [])}
    if unknown := sorted(named - set(offered)):
        parser.error(f"no variants of these groups: {', '.join(unknown)}; there are: {', '.join(offered)}")
    names = list(dict.fromkeys([base, *(options.only or offered)]))
    runs = [(seed, options.epochs or EPOCHS[options.recipe]) for seed in range(options.seeds)]
    figures = measure_all(recipe, names, runs, config.features_dir, ledger)
    units = {task.name: "auc" if task.kind == "binary" else "rmse" for task in config.data.tasks}
    ordered = f"{ORDERED[options.recipe]} gauc"
    units |= {ordered: "auc"} if all(ordered in run for runs in figures.values() for run in runs) else {}
    print(table(figures, list(units)), end="\n\n")
    if options.plot:
        write_text(drawing(gaps(figures, list(units)), units, base), options.plot)
    return finish("gates", list(cases(figures, units)), as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
