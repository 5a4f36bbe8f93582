"""Gates, and what else the model offers, on real data: paired over seeds, each against one baseline.

``KUAIRAND_DIR=... python -m benchmarks.gates [--recipe movielens] [--groups gates norm] [--seeds 5] [--epochs 8]
[--plot FILE.svg] [--json]``; features are built once. Every variant trains the recipe with one change for a set number
of epochs and is judged after the last on the validation rows, which choose nothing here. Figures are kept beside the
features and not measured twice.
"""

import json
import statistics
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import torch

from benchmarks.gate_plot import drawing
from benchmarks.gate_variants import BASELINE, EPOCHS, GROUPS, overrides
from benchmarks.paired import Paired, paired
from benchmarks.report import Case, arguments, finish
from contract.files import write_text
from pipeline.flow.steps import build_features
from pipeline.project.project_config import ProjectConfig, read_config
from pipeline.training.train import train
from pipeline.training.training_log import HISTORY_FILE

RECIPES = Path(__file__).parents[1] / "pipeline" / "recipes"
Figures = dict[str, float]


class Ledger:
    """Figures by variant and seed, in a file of JSON lines."""

    def __init__(self, path: Path) -> None:
        """Read what was measured before."""
        self._path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        self._figures: dict[str, Figures] = {entry["key"]: entry["figures"] for entry in map(json.loads, lines)}

    def figures(self, config: ProjectConfig, features: Path) -> Figures:
        """Look a run up, or train it and write it down."""
        key = json.dumps([config.model.model_dump(mode="json"), config.train.model_dump(mode="json")], sort_keys=True)
        if key not in self._figures:
            self._figures[key] = measure(config, features)
            with self._path.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps({"key": key, "figures": self._figures[key]}) + "\n")
        return self._figures[key]


def measure(config: ProjectConfig, features: Path) -> Figures:
    """AUC or RMSE by task, and the share of experts that a row needs, after the last epoch."""
    with TemporaryDirectory() as folder:
        train(features, config.model, config.train, Path(folder), say=lambda _: None)
        last = json.loads((Path(folder) / HISTORY_FILE).read_text(encoding="utf-8"))["epochs"][-1]
    scores = {task: value for task, metrics in last["valid"].items() for value in metrics.values()}
    return {**scores, "union/n": last["experts"]["union_over_n"]}


def cases(figures: Mapping[str, list[Figures]], units: Mapping[str, str]) -> Iterator[Case]:
    """Each variant's means with their range, and its differences to the baseline with their interval."""
    for variant, runs in figures.items():
        for figure in runs[0]:
            values = [run[figure] for run in runs]
            unit = units.get(figure, "of experts")
            better: Literal["higher", "lower"] = "higher" if unit == "auc" else "lower"
            spread = (min(values), max(values))
            yield Case(f"{variant}: {figure}", statistics.fmean(values), unit, None, better, len(values), spread)
            if variant != BASELINE and figure in units:
                gap = paired(values, [run[figure] for run in figures[BASELINE]])
                name = f"{variant}: {figure} - {BASELINE}'s"
                yield Case(name, gap.mean, unit, None, better, len(values), (gap.low, gap.high))


def gaps(figures: Mapping[str, list[Figures]], tasks: Sequence[str]) -> dict[str, dict[str, Paired]]:
    """Every variant's difference to the baseline, by task."""
    return {
        variant: {task: paired([r[task] for r in runs], [r[task] for r in figures[BASELINE]]) for task in tasks}
        for variant, runs in figures.items()
        if variant != BASELINE
    }


def table(figures: Mapping[str, list[Figures]], tasks: Sequence[str]) -> str:
    """Variants by tasks in Markdown: the baseline's means, the others' differences to it, bold where 0 is outside."""
    rows = [["variant", *tasks, "union/n"], ["---"] * (len(tasks) + 2)]
    means = {task: f"{statistics.fmean(run[task] for run in figures[BASELINE]):.4f}" for task in tasks}
    lines: dict[str, Mapping[str, object]] = {BASELINE: means, **gaps(figures, tasks)}
    for variant, cells in lines.items():
        union = statistics.fmean(run["union/n"] for run in figures[variant])
        rows.append([variant, *(str(cells[task]) for task in tasks), f"{union:.2f}"])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def measure_all(
    recipe: Path, names: Sequence[str], runs: Iterable[tuple[int, int]], features: Path, ledger: Path
) -> dict[str, list[Figures]]:
    """Every variant with every (seed, epochs), one of these after the other: an interruption leaves paired runs."""
    figures: dict[str, list[Figures]] = {name: [] for name in names}
    for seed, epochs in runs:
        for name in names:
            config = read_config(recipe, overrides(recipe.stem, name, seed, epochs))
            figures[name].append(Ledger(ledger).figures(config, features))
    return figures


def main() -> int:
    """Train and judge every variant with every seed, then print the table."""
    parser = arguments(__doc__)
    parser.add_argument("--recipe", default="movielens", choices=sorted(EPOCHS), help="(default movielens)")
    parser.add_argument("--groups", nargs="+", choices=sorted(GROUPS), default=["gates"], help="(default gates)")
    parser.add_argument("--seeds", type=int, default=5, help="how many seeds, from 0 (default 5)")
    parser.add_argument("--epochs", type=int, help=f"of each run (default {EPOCHS}, fewer than the recipes')")
    parser.add_argument("--plot", type=Path, help="write the differences as an SVG, too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    recipe = RECIPES / f"{options.recipe}.yaml"
    config = read_config(recipe)
    ledger = config.features_dir.parent / f"gates-{build_features(config).stamp}.jsonl"
    names = list(dict.fromkeys([BASELINE, *(name for group in options.groups for name in GROUPS[group])]))
    runs = [(seed, options.epochs or EPOCHS[options.recipe]) for seed in range(options.seeds)]
    figures = measure_all(recipe, names, runs, config.features_dir, ledger)
    units = {task.name: "auc" if task.kind == "binary" else "rmse" for task in config.data.tasks}
    print(table(figures, list(units)), end="\n\n")
    if options.plot:
        write_text(drawing(gaps(figures, list(units)), units, BASELINE), options.plot)
    return finish("gates", list(cases(figures, units)), as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
