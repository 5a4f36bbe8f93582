"""Gates on real data: each one in the same recipe, several seeds, the served graph on held-out rows.

``python -m benchmarks.gates [--recipe movielens] [--gates softmax dselect_k top_k] [--seeds 5] [--json]``; features are
built once, each gate and seed trains, exports and is judged. Runs that are already there are not repeated.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

import yaml

from benchmarks.report import Case, arguments, case_of, finish
from pipeline.config import read_config
from pipeline.evaluation import Evaluation
from pipeline.steps import build_features, evaluate_model, export_model, train_model

RECIPES = Path(__file__).parents[1] / "pipeline" / "recipes"
GATES: dict[str, dict[str, object]] = {
    "softmax": {},
    "dselect_k": {"k": 2},
    "top_k": {"k": 2},
    "noisy_top_k": {"k": 2},
    "comet": {"k": 2},
    "gumbel": {},
    "dense_to_sparse": {"k": 2, "switch_step": 200},
    "top_p": {"p": 0.5, "k": 4},
}
_QUICK = ["evaluate.replicates=50", "evaluate.slice_replicates=50"]


def judge(recipe: str, gate: str, seed: int) -> dict[str, float]:
    """AUC or RMSE by task, and the share of experts that a row needs."""
    options = yaml.safe_dump({"name": gate, **GATES[gate]}, default_flow_style=True).strip()
    config = read_config(RECIPES / f"{recipe}.yaml", [f"model.gate={options}", f"train.seed={seed}", *_QUICK])
    build_features(config)
    run = train_model(config)
    exported = export_model(run).result
    evaluate_model(run)
    tasks = Evaluation.load(run.evaluation_dir).tasks
    figures = {task: scores["auc" if "auc" in scores else "rmse"].value for task, scores in tasks.items()}
    return {**figures, "union/n": float(exported["union_over_n"])}


def cases(gate: str, found: list[Mapping[str, float]], tasks: Mapping[str, str]) -> list[Case]:
    """One case a figure: the mean over seeds, with the lowest and the highest seed."""
    return [
        case_of(
            f"{gate}: {name}",
            [figures[name] for figures in found],
            tasks.get(name, "of experts"),
            better="higher" if tasks.get(name) == "auc" else "lower",
            centre="mean",
        )
        for name in found[0]
    ]


def main() -> int:
    """Train and judge each gate with each seed, then print the table."""
    parser = arguments(__doc__)
    parser.add_argument("--recipe", default="movielens", help="a recipe's name (default movielens)")
    parser.add_argument("--gates", nargs="+", choices=sorted(GATES), default=list(GATES), help="which gates")
    parser.add_argument("--seeds", type=int, default=5, help="how many seeds, from 0 (default 5)")
    options = parser.parse_args()
    declared = read_config(RECIPES / f"{options.recipe}.yaml").data.tasks
    tasks = {task.name: "auc" if task.kind == "binary" else "rmse" for task in declared}
    found = [
        case
        for gate in options.gates
        for case in cases(gate, [judge(options.recipe, gate, seed) for seed in range(options.seeds)], tasks)
    ]
    return finish("gates", found, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
