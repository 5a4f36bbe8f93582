"""Row keys of the source go with the predictions, and other libraries' scores join by them, as the page shows."""

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.errors import ConfigError
from contract.hashing import hash_array
from contract.schema import Schema
from features.batches import BatchReader
from features.build import build
from features.feature_config import FeaturesConfig
from features.recipe_files import save_recipe
from models.export import export
from pipeline.cli.main import main
from pipeline.evaluation.comparing.alignment import align
from pipeline.evaluation.prediction_file import load_predictions
from tests.features.raw_world import quiet
from tests.models.small import lively_ranker, small_config

pd: Any = pytest.importorskip("pandas")
PAGE = Path(__file__).parents[3] / "docs" / "evaluation.md"
ROWS = 3000


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of impressions of ten days, and a bundle trained before the last two, whose recipe names no key."""
    folder = tmp_path_factory.mktemp("shop")
    rng = np.random.default_rng(0)
    price = rng.gamma(2.0, 10.0, ROWS)
    shown = np.datetime64("2026-01-11T00:00:00", "ms") + np.sort(rng.integers(0, 10 * 86_400_000, ROWS))
    events = pa.table(
        {
            "impression": [f"i{number}" for number in rng.permutation(ROWS)],
            "user_id": rng.integers(0, 60, ROWS),
            "product": rng.integers(0, 40, ROWS),
            "shown_at": pa.array(shown, pa.timestamp("ms")).cast(pa.timestamp("ms", "UTC")),
            "price": price,
            "liked": (rng.random(ROWS) < 1.0 / (1.0 + np.exp(price / 15.0 - 0.5))).astype(np.int8),
        }
    )
    pq.write_table(events, folder / "events.parquet")
    config = FeaturesConfig.model_validate(recipe(folder))
    build(config, folder / "features", quiet)
    bundle = folder / "bundle"
    bundle.mkdir()
    schema = Schema.load(folder / "features")
    sample = next(BatchReader(folder / "features" / "valid", schema, 64).epoch()).inputs
    ranker = lively_ranker(schema, small_config(gate={"name": "softmax"}), seed=1)
    export(ranker, schema, sample, bundle / "model.onnx")
    schema.save(bundle)
    save_recipe(config, folder / "features", bundle)
    return folder


def recipe(folder: Path, key: str | None = None) -> dict[str, object]:
    columns = {"user": "user_id", "item": "product", "time": "shown_at", "key": key}
    return {
        "events": {"path": str(folder / "events.parquet"), **columns},
        "features": [{"name": "user_id"}, {"name": "product"}, {"name": "price", "kind": "dense"}],
        "tasks": [{"name": "like", "kind": "binary", "label": "liked"}],
        "split": {"by": "time", "valid": "2d"},
    }


@pytest.fixture
def here(shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The page's commands run in a folder of their own, with the page's name of the bundle."""
    monkeypatch.chdir(tmp_path)
    store = tmp_path / "runs" / "shop" / "store" / "shop"
    store.mkdir(parents=True)
    (store / "2").symlink_to(shop / "bundle")
    return tmp_path


def page(language: str, word: str) -> str:
    blocks = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    return next(block for block in blocks if word in block)


def test_a_lightgbm_file_joins_by_the_row_key_as_the_page_shows(
    shop: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lightgbm = pytest.importorskip("lightgbm", reason="LightGBM is not installed: pip install 'moerank[trees]'")
    log = pd.read_parquet(shop / "events.parquet")
    late = log["shown_at"] >= "2026-01-20"
    names = {
        "lightgbm": lightgbm,
        "train": log[~late],
        "test": log[late].sample(frac=1.0, random_state=0),
        "columns": ["price", "product"],
    }
    exec(compile(page("python", "lightgbm.train"), str(PAGE), "exec"), names)  # noqa: S102 - our own page
    assert (here / "lightgbm.parquet").is_file()
    commands = page("text", "lightgbm.parquet").strip().splitlines()
    for command in commands:
        assert main(shlex.split(command)[1:]) == 0, command
    shown = capsys.readouterr().out
    assert f"{int(late.sum())} rows; B minus A" in shown
    assert re.search(r"\* like +auc +A \.?\d", shown)
    # Users came along from the file that has them, so that lists are judged too.
    assert "gauc" in shown


def test_the_key_goes_with_the_predictions_raw_and_hashed(here: Path, shop: Path) -> None:
    out = here / "p.parquet"
    words = ["--from", "2026-01-20", "--key", "impression", "--out", str(out)]
    assert main(["predict", str(shop / "bundle"), *words]) == 0
    table = pq.read_table(out)
    assert np.array_equal(table["__key"].to_numpy(), hash_array(table["impression"]))
    log = pd.read_parquet(shop / "events.parquet").set_index("impression")
    found = table.to_pandas().set_index("impression")
    assert (found["label__like"] == log.loc[found.index, "liked"]).all()
    assert (found["user_id"] == log.loc[found.index, "user_id"]).all()
    mine = load_predictions(out)
    one, other = align(mine, mine.take(np.random.default_rng(1).permutation(mine.rows)))
    assert np.array_equal(one.scores, other.scores)


def test_a_key_that_repeats_is_noted(here: Path, shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["predict", str(shop / "bundle"), "--from", "2026-01-20", "--out", str(here / "p.parquet"), "--key"]
    assert main([*words, "product"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"note: 'product' does not tell rows apart: \d+ rows have \d+ of its values", said)
    assert main([*words, "impression"]) == 0
    assert "note: 'impression'" not in capsys.readouterr().out


def test_a_key_that_the_log_does_not_have_is_refused(shop: Path, tmp_path: Path) -> None:
    config = FeaturesConfig.model_validate(recipe(shop, key="row_id"))
    with pytest.raises(ConfigError, match=r"data\.events\.key names 'row_id', which the log does not have"):
        build(config, tmp_path / "features", quiet)


def test_a_recipe_s_key_changes_no_feature(shop: Path, tmp_path: Path) -> None:
    build(FeaturesConfig.model_validate(recipe(shop, key="impression")), tmp_path / "features", quiet)
    assert Schema.load(tmp_path / "features").fingerprint() == Schema.load(shop / "features").fingerprint()
