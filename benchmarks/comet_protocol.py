"""COMET's claim about tuning budgets, on MovieLens-100K: watched or not, and the rating, with few or many trials.

``python -m benchmarks.comet_protocol [--trials 100] [--budgets 5 25 100] [--gates comet ...] [--json]``; needs
``moerank import movielens``. Trials are kept in ``runs/comet_protocol.jsonl`` and not run twice.

Source: Ibrahim et al. 2023, "COMET: Learning Cardinality Constrained Mixture of Experts with Trees and Local Search",
sections 5.1 and 5.3: two tasks, whether a user watched a film (with as many unwatched pairs drawn evenly) and the
rating of watched ones, weighed .1/.9 and .9/.1; it says that COMET with its permutation needs far fewer trials than
other gates for the same loss. A trial draws learning rate, width of embeddings, dropout, the gate's entropy and a seed,
the same for every gate. A budget of b trials costs the test loss of the one with the least weighted loss on validation
rows, in the mean over all ways to draw b of the trials. Intervals and differences to `softmax` come from drawing the
trials' numbers anew (bootstrap), for both gates alike. The rows are split at random, 80/10/10.
"""

import json
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.budgets import after_budget, enough, redrawn
from benchmarks.ledger import Ledger
from benchmarks.report import Case, arguments, case_of, finish
from models.experts.expert_mlp import Experts
from models.gates import Gate, GateConfig, build_gate
from models.layers.mlp import BlockConfig
from pipeline.console import progress_of
from pipeline.evaluation.metrics import auc

EVENTS = Path("data/movielens/events.parquet")
LEDGER = Path("runs/comet_protocol.jsonl")
EXPERTS, K, WIDTH, BATCH, EPOCHS = 8, 2, 16, 2048, 4
WEIGHTS = {"watch .1, rating .9": (0.1, 0.9), "watch .9, rating .1": (0.9, 0.1)}
BASE = "softmax"
GATES: dict[str, dict[str, Any]] = {
    "softmax": {"name": "softmax"},
    "top_k": {"name": "top_k", "k": K},
    "dselect_k": {"name": "dselect_k", "k": K},
    "comet": {"name": "comet", "k": K},
    "comet+permutation": {"name": "comet", "k": K, "permutation": {"steps": 200}},
}


class Pairs(NamedTuple):
    """Users [N], films [N], whether watched [N], and ratings in units of their spread [N], 0 where not watched."""

    users: Tensor
    films: Tensor
    watched: Tensor
    ratings: Tensor

    def take(self, rows: Tensor) -> "Pairs":
        """Some rows."""
        return Pairs(*(column[rows] for column in self))


class Trial(NamedTuple):
    """What one trial came to, with the weighted loss on validation and on test rows."""

    valid: float
    test: float
    auc: float
    rmse: float
    experts: float


def read_pairs(events: Path = EVENTS) -> tuple[Pairs, Pairs, Pairs, float]:
    """Training, validation and test pairs, and the ratings' spread: every rating, and as many pairs without one."""
    table = pq.read_table(events, columns=["user_id", "item_id", "rating"])
    user, film = (np.unique(table[name].to_numpy(), return_inverse=True)[1] for name in ("user_id", "item_id"))
    rating = table["rating"].to_numpy().astype(np.float64)
    draw = np.random.default_rng(0)
    watched = set(zip(user.tolist(), film.tolist(), strict=True))
    drawn = [_unwatched(draw, each, int(film.max()) + 1, watched) for each in user.tolist()]
    spread = float(rating.std())
    scaled = np.concatenate([(rating - rating.mean()) / spread, np.zeros(len(drawn))])
    columns = np.tile(user, 2), np.concatenate([film, drawn]), np.repeat([1.0, 0.0], len(drawn)), scaled
    users, films, labels, ratings = (torch.from_numpy(np.asarray(column)) for column in columns)
    pairs = Pairs(users, films, labels.float(), ratings.float())
    order = torch.from_numpy(draw.permutation(2 * len(drawn)))
    first, second = len(order) * 8 // 10, len(order) * 9 // 10
    train, valid, test = (pairs.take(part) for part in (order[:first], order[first:second], order[second:]))
    return train, valid, test, spread


def _unwatched(draw: np.random.Generator, user: int, films: int, watched: set[tuple[int, int]]) -> int:
    while (user, (film := int(draw.integers(films)))) in watched:
        pass
    return film


class Model(nn.Module):
    """Embeddings of both sides, experts, a gate and a linear head for each task."""

    def __init__(self, gate: dict[str, Any], sizes: tuple[int, int], dim: int, dropout: float) -> None:
        """Build for so many users and films."""
        super().__init__()
        settings = TypeAdapter[Any](GateConfig).validate_python(gate)
        tables = [nn.Embedding(size, dim) for size in sizes]
        for table in tables:
            nn.init.normal_(table.weight, std=0.05)
        self.tables = nn.ModuleList(tables)
        self.experts = Experts(2 * dim, EXPERTS, (WIDTH, WIDTH), BlockConfig("relu", "none", dropout, residual=False))
        self.gates = nn.ModuleList(build_gate(settings, EXPERTS, 2 * dim) for _ in range(2))
        self.heads = nn.ModuleList(nn.Linear(WIDTH, 1) for _ in range(2))

    def forward(self, pairs: Pairs) -> tuple[Tensor, Tensor, float]:
        """Answers [B, 2], the gates' penalties, and how many experts each task uses per row."""
        x_BD = torch.cat([table(ids) for table, ids in zip(self.tables, (pairs.users, pairs.films), strict=True)], 1)
        routings = [gate(x_BD) for gate in self.gates]
        answers_BEO = self.experts(x_BD)
        mixed = [torch.einsum("be,beo->bo", r.weights_BE.expand(len(x_BD), -1), answers_BEO) for r in routings]
        outputs_B2 = torch.cat([head(mixture) for head, mixture in zip(self.heads, mixed, strict=True)], dim=1)
        penalty = sum((p for r in routings for p in r.penalties.values()), x_BD.new_zeros(()))
        used = statistics.fmean(float(r.selected_BE.float().sum(1).mean()) for r in routings)
        return outputs_B2, penalty, used


def losses(outputs_B2: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
    """Cross-entropy of watching, and the squared error of the ratings of watched pairs."""
    watching = functional.binary_cross_entropy_with_logits(outputs_B2[:, 0], pairs.watched)
    errors_B = (outputs_B2[:, 1] - pairs.ratings).square() * pairs.watched
    return watching, errors_B.sum() / pairs.watched.sum()


def trial(gate: str, weights: tuple[float, float], number: int, data: tuple[Pairs, Pairs, Pairs, float]) -> Trial:
    """Train once with settings drawn by the trial's number, the same for every gate."""
    train, valid, test, spread = data
    draw = np.random.default_rng(number)
    rate, dim, dropout = 10 ** draw.uniform(-3.3, -1.7), int(draw.choice([8, 16, 32])), float(draw.uniform(0.0, 0.4))
    entropy, steps = 10 ** draw.uniform(-3.0, 0.0), EPOCHS * (len(train.users) // BATCH)
    config = dict(GATES[gate])
    if config["name"] in {"dselect_k", "comet"}:
        late = {"first_step": steps // 3, "last_step": steps * 9 // 10}
        config["entropy"] = {"start": 0.0, "end": float(entropy), **late}
    torch.manual_seed(number)
    sizes = tuple(int(torch.cat([part[side] for part in data[:3]]).max()) + 1 for side in (0, 1))
    model = Model(config, (sizes[0], sizes[1]), dim, dropout)
    optimiser = torch.optim.Adam(model.parameters(), lr=float(rate), fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, float(rate), total_steps=steps)
    for step in range(steps):
        for each in model.gates:
            assert isinstance(each, Gate)  # noqa: S101 the list holds gates; this tells the type checker
            each.step(step)
        batch = train.take(torch.randint(0, len(train.users), (BATCH,)))
        outputs_B2, penalty, _ = model.train()(batch)
        watching, rating = losses(outputs_B2, batch)
        optimiser.zero_grad()
        (weights[0] * watching + weights[1] * rating + penalty).backward()
        optimiser.step()
        schedule.step()
    return _judged(model.eval(), weights, valid, test, spread)


@torch.no_grad()
def _judged(model: nn.Module, weights: tuple[float, float], valid: Pairs, test: Pairs, spread: float) -> Trial:
    totals = []
    for rows in (valid, test):
        outputs_B2, _, used = model(rows)
        watching, rating = losses(outputs_B2, rows)
        totals.append(float(weights[0] * watching + weights[1] * rating))
    area = auc(test.watched.double().numpy(), outputs_B2[:, 0].double().numpy())
    return Trial(totals[0], totals[1], area, float(rating) ** 0.5 * spread, used)


def popularity(train: Pairs, test: Pairs, spread: float) -> tuple[float, float]:
    """How often a film was watched as the answer to watching (AUC), and its mean rating (RMSE)."""
    films = int(max(train.films.max(), test.films.max())) + 1
    seen = torch.bincount(train.films, train.watched, films)
    means = torch.bincount(train.films, train.ratings, films) / seen.clamp(min=1.0)
    area = auc(test.watched.double().numpy(), seen[test.films].double().numpy())
    errors = (means[test.films] - test.ratings)[test.watched > 0]
    return area, float(errors.square().mean()) ** 0.5 * spread


def cases(name: str, trials: Sequence[Trial], base: Sequence[Trial], budgets: Sequence[int]) -> Iterator[Case]:
    """For each budget the chosen trial's test loss, its difference to the base's, and its AUC and RMSE."""
    for budget in budgets:
        case = f"{name}, budget {budget}"
        loss, gap = redrawn(_losses(trials), _losses(base), budget)
        yield Case(f"{case}: test loss", loss.mean, "loss", None, "lower", len(trials), (loss.low, loss.high))
        if trials is not base:
            yield Case(
                f"{case}: test loss - {BASE}'s", gap.mean, "loss", None, "lower", len(trials), (gap.low, gap.high)
            )
        for words, figure in (("watch", "auc"), ("rating", "rmse"), ("experts per task", "experts")):
            mean = after_budget([(each.valid, getattr(each, figure)) for each in trials], budget)
            yield Case(f"{case}: {words}", mean, figure, None, "lower", len(trials), (mean, mean))


def table(found: Mapping[str, Sequence[Trial]], budgets: Sequence[int]) -> str:
    """Gates in Markdown: by budget the loss and its difference to softmax, and the trials that reach softmax's best."""
    base = found.get(BASE, next(iter(found.values())))
    goal = after_budget(_losses(base), len(base))
    rows = [
        ["gate", *(f"{budget} trials" for budget in budgets), "watch AUC", "rating RMSE", "trials to softmax's best"]
    ]
    rows.append(["---"] * len(rows[0]))
    for gate, trials in found.items():
        cells = []
        for budget in budgets:
            loss, gap = redrawn(_losses(trials), _losses(base), budget)
            cells.append(f"{loss.mean:.4f}" if trials is base else f"{loss.mean:.4f}, {gap}")
        best = min(trials, key=lambda each: each.valid)
        needed = enough(_losses(trials), goal)
        cells += [f"{best.auc:.4f}", f"{best.rmse:.4f}", "never" if needed is None else str(needed)]
        rows.append([f"`{gate}`", *cells])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _losses(trials: Sequence[Trial]) -> list[tuple[float, float]]:
    return [(each.valid, each.test) for each in trials]


def kept_trial(
    ledger: Ledger, gate: str, weights: tuple[float, float], number: int, data: tuple[Pairs, Pairs, Pairs, float]
) -> Trial:
    """Look a trial up, or run it."""
    setting = [GATES[gate], weights, number, len(data[0].users), EXPERTS, WIDTH, BATCH, EPOCHS]
    key = json.dumps(setting, sort_keys=True)
    return Trial(**ledger.figures(key, lambda: trial(gate, weights, number, data)._asdict()))


def main() -> int:
    """Run every gate's trials under both weightings, then print the tables."""
    parser = arguments(__doc__)
    parser.add_argument("--gates", nargs="+", default=list(GATES), choices=list(GATES), help="(default all)")
    parser.add_argument("--trials", type=int, default=100, help="of each gate and weighting (default 100)")
    parser.add_argument("--budgets", type=int, nargs="+", default=[5, 25, 100], help="how many trials to choose from")
    options = parser.parse_args()
    torch.set_num_threads(1)
    data, ledger = read_pairs(), Ledger(LEDGER)
    area, error = popularity(data[0], data[2], data[3])
    rows = [
        case_of("popularity: watch", [area], "auc", better="higher"),
        case_of("popularity: rating", [error], "rmse"),
    ]
    budgets = [budget for budget in options.budgets if budget <= options.trials]
    found: dict[str, dict[str, list[Trial]]] = {words: {gate: [] for gate in options.gates} for words in WEIGHTS}
    with progress_of("comet_protocol") as progress:
        # Gates and weightings in turns: an interruption leaves paired trials.
        for number in range(options.trials):
            progress(f"trial {number + 1} of {options.trials}")
            for words, weights in WEIGHTS.items():
                for gate, trials in found[words].items():
                    trials.append(kept_trial(ledger, gate, weights, number, data))
    for words, by_gate in found.items():
        print(f"\n{words}, {options.trials} trials of each gate\n\n{table(by_gate, budgets)}\n", flush=True)
        base = by_gate.get(BASE, next(iter(by_gate.values())))
        rows += [case for gate, trials in by_gate.items() for case in cases(f"{gate}, {words}", trials, base, budgets)]
    return finish("comet_protocol", rows, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
