"""Epochs and batch by the number of rows against those that were fixed before: quality on test rows, several seeds.

``python -m benchmarks.training_sizes [--recipes adult movielens] [--seeds 3] [--json]``; the demo is MovieLens. Three
forms of each recipe: ``written``, as it stands; ``before``, with the defaults until November 2026, 5 epochs in batches
of 1,024; ``by rows``, with neither written, so that the number of training rows decides. Both tables must have been
imported (``moerank import adult``).
"""

import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import torch

from benchmarks.judged_runs import JUDGED, Judged, of_model, recipe_of
from benchmarks.paired import paired
from benchmarks.report import Case, arguments, finish

FORMS: dict[str, tuple[str, ...]] = {
    "written": (),
    "before": ("train.epochs=5", "train.batch_size=1024"),
    "by rows": ("train.epochs=null", "train.batch_size=null"),
}


def cases(recipe: str, runs: Mapping[str, Sequence[Judged]]) -> Iterator[Case]:
    """Each form's means with the range over seeds, and the difference of ``by rows`` to the others."""
    for name in runs["by rows"][0].figures:
        unit = name.rpartition(" ")[2]
        if unit == "ece":
            continue
        better: Literal["lower", "higher"] = "higher" if unit == "auc" else "lower"
        figures = {form: [run.figures[name] for run in judged] for form, judged in runs.items()}
        for form, values in figures.items():
            spread = (min(values), max(values))
            title = f"{recipe} {name}, {form}"
            yield Case(title, statistics.fmean(values), unit, None, better, len(values), spread)
        for form in ("written", "before"):
            gap = paired(figures["by rows"], figures[form])
            title = f"{recipe} {name}, by rows - {form}"
            yield Case(title, gap.mean, unit, None, better, len(figures[form]), (gap.low, gap.high))
    for form, judged in runs.items():
        seconds = [run.cpu for run in judged]
        spread = (min(seconds), max(seconds))
        yield Case(f"{recipe} training, {form}", statistics.fmean(seconds), "CPU s", None, "lower", len(judged), spread)


def main() -> int:
    """Train and judge everything, then print the table."""
    parser = arguments(__doc__)
    parser.add_argument(
        "--recipes", nargs="+", default=["adult", "movielens"], choices=list(JUDGED), help="(default adult movielens)"
    )
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds, from 0 (default 3)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[Case] = []
    for name in options.recipes:
        runs: dict[str, list[Judged]] = {form: [] for form in FORMS}
        for seed in range(options.seeds):
            for form, changes in FORMS.items():
                runs[form].append(of_model(name, recipe_of(name, seed, changes)))
        rows += cases(name, runs)
    return finish("training_sizes", rows, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
