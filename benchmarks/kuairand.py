"""Quality of the KuaiRand recipe on its validation days: the served graph, several seeds, against stated floors.

``KUAIRAND_DIR=... python -m benchmarks.kuairand [--seeds 3] [--json]``; features are built once, each seed trains,
exports and is judged on 2 to 4 May. Seeds whose run is already there are not trained again.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.report import Case, arguments, case_of, finish
from pipeline.evaluation.result import Evaluation
from pipeline.flow.steps import build_features, evaluate_model, export_model, train_model
from pipeline.project.project_config import read_config

RECIPE = Path(__file__).parents[1] / "pipeline" / "recipes" / "kuairand.yaml"
FLOORS = {"is_click": 0.7449, "long_view": 0.7491, "is_like": 0.865, "watch": 1.182}


def judge(seed: int) -> dict[str, float]:
    """AUC or RMSE by task of the recipe trained with one seed."""
    config = read_config(RECIPE, [f"train.seed={seed}", "evaluate.replicates=50", "evaluate.slice_replicates=50"])
    build_features(config)
    run = train_model(config)
    export_model(run)
    evaluate_model(run)
    tasks = Evaluation.load(run.evaluation_dir).tasks
    return {task: scores["auc" if "auc" in scores else "rmse"].value for task, scores in tasks.items()}


def cases(runs: Sequence[dict[str, float]]) -> list[Case]:
    """One case per task: the mean over seeds, with the lowest and the highest seed."""
    return [
        case_of(
            task,
            [figures[task] for figures in runs],
            "rmse" if task == "watch" else "auc",
            bound=FLOORS.get(task),
            better="lower" if task == "watch" else "higher",
            centre="mean",
        )
        for task in runs[0]
    ]


def main() -> int:
    """Train and judge each seed, then print the table."""
    parser = arguments(__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds, from 0 (default 3)")
    options = parser.parse_args()
    return finish("kuairand", cases([judge(seed) for seed in range(options.seeds)]), as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
