"""Raw days encoded with what a model's own build fitted."""

from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.columns import ITEM_HASH, TIME, USER_HASH
from contract.dataset import EncodedDataset
from contract.errors import ConfigError, DataError, SchemaMismatchError
from contract.schema import Schema
from features.build import build
from features.encode_days import FittedRecipe, RawDays, encoded_days
from features.recipe_files import save_recipe
from tests.features.raw_world import quiet, raw_tables, recipe, write_raw

HISTORIES = [{"name": "last_items", "of": "item", "by": "user", "last": 3, "shares": "item", "elapsed": "ago"}]
LAST = date(2024, 3, 6)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A bundle's recipe, and the training build that it came from, of six days of which the last one validates."""
    folder = tmp_path_factory.mktemp("world")
    write_raw(folder, raw_tables())
    config = recipe(folder, histories=HISTORIES)
    build(config, folder / "features", quiet)
    bundle = folder / "bundle"
    bundle.mkdir()
    Schema.load(folder / "features").save(bundle)
    save_recipe(config, folder / "features", bundle)
    return folder, bundle


def _sorted(dataset: Path) -> pa.Table:
    found = EncodedDataset.open(dataset)
    names = list(found.column_names)
    keys = [USER_HASH, ITEM_HASH, TIME]
    order = [*keys, *(name for name in names if name not in keys and name not in ("tags", "last_items", "ago"))]
    return found.read(names).sort_by([(name, "ascending") for name in order])


def test_rows_equal_those_of_the_training_build_bit_for_bit(world: tuple[Path, Path]) -> None:
    folder, bundle = world
    with encoded_days(FittedRecipe.load(bundle), RawDays(first=LAST), quiet) as days:
        assert _sorted(days.dataset).equals(_sorted(folder / "features" / "valid"))
        EncodedDataset.open(days.dataset).require(Schema.load(bundle))
        assert days.notes() == []


def test_a_log_in_files_of_days_elsewhere_gives_the_same_rows(world: tuple[Path, Path], tmp_path: Path) -> None:
    folder, bundle = world
    events = pq.read_table(folder / "events.parquet")
    for day in range(6):
        pq.write_table(events.filter(pa.array(events["day"].to_numpy() == day)), tmp_path / f"day-{day}.parquet")
    given = RawDays(events=str(tmp_path / "day-*.parquet"), first=LAST, last=LAST)
    kept = tmp_path / "kept"
    for _ in range(2):
        with encoded_days(FittedRecipe.load(bundle), given, quiet, kept) as days:
            assert _sorted(days.dataset).equals(_sorted(folder / "features" / "valid"))


def test_raw_ids_lie_beside_the_encoded_rows(world: tuple[Path, Path]) -> None:
    _, bundle = world
    with encoded_days(FittedRecipe.load(bundle), RawDays(first=LAST), quiet) as days:
        (part,) = days.parts
        raw, encoded = part.raw(["user", "item", TIME]), pq.read_table(part.file)
        assert raw[TIME].to_pylist() == encoded[TIME].to_pylist()
        by_hash = dict(zip(encoded[USER_HASH].to_pylist(), raw["user"].to_pylist(), strict=True))
        assert len(by_hash) == len(set(raw["user"].to_pylist()))
        assert days.keys == ("user", "item")


def test_rows_that_the_model_may_have_been_trained_on_are_said(world: tuple[Path, Path]) -> None:
    folder, bundle = world
    trained = EncodedDataset.open(folder / "features" / "train").read([TIME])[TIME].to_numpy()
    first = date(2024, 3, 4)
    with encoded_days(FittedRecipe.load(bundle), RawDays(first=first), quiet) as days:
        (note,) = days.notes()
        times = EncodedDataset.open(days.dataset).read([TIME])[TIME].to_numpy()
    assert 0 < (times <= trained.max()).sum() < times.size
    assert note.startswith(f"{(times <= trained.max()).sum():,} of these {times.size:,} rows are of times")


def test_features_that_saw_no_past_are_said(world: tuple[Path, Path], tmp_path: Path) -> None:
    folder, bundle = world
    events = pq.read_table(folder / "events.parquet")
    pq.write_table(events.filter(pa.array(events["day"].to_numpy() == 5)), tmp_path / "day.parquet")
    with encoded_days(FittedRecipe.load(bundle), RawDays(events=str(tmp_path / "day.parquet")), quiet) as days:
        (note,) = days.notes()
    assert "saw nothing before it" in note


def test_days_that_the_log_does_not_have_are_refused_with_those_it_has(world: tuple[Path, Path]) -> None:
    with (
        pytest.raises(DataError, match=r"no rows from 2025-01-01; it has those of 2024-03-01 to 2024-03-06"),
        encoded_days(FittedRecipe.load(world[1]), RawDays(first=date(2025, 1, 1)), quiet),
    ):
        pass


def test_ids_of_another_type_are_refused_because_all_would_be_unknown(world: tuple[Path, Path], tmp_path: Path) -> None:
    folder, bundle = world
    events = pq.read_table(folder / "events.parquet")
    texts = pa.array([str(item) for item in events["item"].to_pylist()])
    pq.write_table(events.set_column(events.column_names.index("item"), "item", texts), tmp_path / "e.parquet")
    items = pq.read_table(folder / "items.parquet")
    pq.write_table(items.set_column(0, "item", items["item"].cast(pa.string())), tmp_path / "i.parquet")
    given = RawDays(events=str(tmp_path / "e.parquet"), items=str(tmp_path / "i.parquet"))
    with (
        pytest.raises(
            SchemaMismatchError, match="'item' is string in these rows, but the model was trained on integer"
        ),
        encoded_days(FittedRecipe.load(bundle), given, quiet),
    ):
        pass


def test_a_bundle_without_its_recipe_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no recipe.json.*export its run again"):
        FittedRecipe.load(tmp_path)


def test_a_table_that_the_recipe_lacks_is_refused(world: tuple[Path, Path]) -> None:
    fitted = FittedRecipe.load(world[1])
    alone = fitted.config.model_copy(update={"users": None})
    with pytest.raises(ConfigError, match=r"--users u.parquet: .* has no data.users"):
        RawDays(users="u.parquet").apply(alone)


def test_rows_of_another_build_are_refused_by_name(world: tuple[Path, Path], tmp_path: Path) -> None:
    folder, bundle = world
    other = recipe(folder, histories=HISTORIES, split={"by": "expression", "valid": "day >= 4"})
    build(other, tmp_path / "features", quiet)
    with pytest.raises(SchemaMismatchError, match="the ids and bins of one mean nothing to the other"):
        EncodedDataset.open(tmp_path / "features" / "valid").require(Schema.load(bundle))
