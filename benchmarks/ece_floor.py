"""How low an ECE can be: that of answers which are exactly right, on labels drawn by them.

``python -m benchmarks.ece_floor [--tables adult] [--draws 300] [--override train.epochs=1] [--json]``. ECE sums the
distances between mean answer and mean label of 20 bins, and with a few hundred rows in a bin such means differ by
chance. So labels are drawn from the answers themselves, of the recipe and of LightGBM, and the ECE of such draws is
what calibration cannot better.

Source: Roelofs et al. 2022, "Mitigating Bias in Calibration Error Estimation".
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.judged_runs import JUDGED, Answers, answers_of, grown, recipe_of
from benchmarks.report import Case, arguments, finish
from benchmarks.trees import absent
from pipeline.evaluation.metrics import ece
from pipeline.flow.steps import build_features
from pipeline.project.project_config import ProjectConfig
from pipeline.training.train import train


def drawn_eces(scores: NDArray[np.float64], draws: int) -> NDArray[np.float64]:
    """The ECE of probabilities against labels drawn by them, so many times.

    Example:
        >>> float(drawn_eces(np.ones(5), 2).max())
        0.0
    """
    random = np.random.default_rng(0)
    return np.array([ece((random.random(len(scores)) < scores).astype(np.float64), scores) for _ in range(draws)])


def cases(name: str, answers: Answers, draws: int) -> Iterator[Case]:
    """For each binary task the ECE as it is, and the mean of drawn ones with the middle 95 % of them."""
    for task, truth, scores in answers.tasks():
        if task.kind == "binary":
            seen, drawn = ece(truth, scores), drawn_eces(scores, draws)
            low, high = (float(each) for each in np.quantile(drawn, [0.025, 0.975]))
            yield Case(f"{name}, {task.name}", seen, "ece", None, "lower", 1, (seen, seen))
            exact = f"{name}, {task.name}, exact answers"
            yield Case(exact, float(drawn.mean()), "ece", None, "lower", draws, (low, high))


def _recipe(config: ProjectConfig, split: str) -> Answers:
    with TemporaryDirectory() as folder:
        train(config.features_dir, config.model, config.train, Path(folder), say=lambda _: None)
        return answers_of(config, split, Path(folder))


def main() -> int:
    """Train the recipe and LightGBM once on each table, then print the figures."""
    parser = arguments(__doc__)
    parser.add_argument("--tables", nargs="+", default=["adult"], choices=list(JUDGED), help="(default adult)")
    parser.add_argument("--draws", type=int, default=300, help="how often labels are drawn (default 300)")
    parser.add_argument("--override", nargs="*", default=[], help="changes to the recipe, such as train.epochs=1")
    options = parser.parse_args()
    if missing := absent():
        return finish("ece_floor", missing, as_json=options.json)
    torch.set_num_threads(1)
    rows: list[Case] = []
    for table in options.tables:
        config = recipe_of(table, 0, options.override)
        build_features(config)
        trees, _ = grown(config, JUDGED[table], ids_as_numbers=False)
        rows += cases(f"{table}, LightGBM", trees, options.draws)
        rows += cases(f"{table}, recipe", _recipe(config, JUDGED[table]), options.draws)
    return finish("ece_floor", rows, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
