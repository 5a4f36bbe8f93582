"""Training rows hold what was served: joined with outcomes, re-encoded where versions differ, computed where not."""

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.columns import ITEM_HASH, TIME, USER_HASH, label_column, weight_column
from contract.dataset import EncodedDataset
from contract.errors import ConfigError, DataError
from contract.hashing import hash_array
from contract.schema import DenseSpec, IdSpec, Schema
from features.build import FeatureBuild, build
from features.encode_days import FittedRecipe, RawDays, encoded_days
from features.feature_config import FeaturesConfig
from features.online.request_encoder import RequestEncoder
from features.recipe_files import save_recipe
from features.served.decode_features import decode_feature
from features.served.log_format import ENCODINGS_FOLDER, ServedEncoding
from tests.features.raw_world import quiet
from tests.features.served.served_world import NEW_ITEM, Requests, served_recipe, world

HOUR_MS = 3_600_000


class World(NamedTuple):
    folder: Path
    requests: Requests

    def rows(self, features: str) -> pa.Table:
        parts = [EncodedDataset.open(self.folder / features / split) for split in ("train", "valid")]
        return pa.concat_tables([part.read(part.column_names) for part in parts])

    def by_key(self, features: str) -> dict[tuple[int, int, int], dict[str, Any]]:
        return {(row[USER_HASH], row[ITEM_HASH], row[TIME]): row for row in self.rows(features).to_pylist()}

    def build(self, name: str, said: list[str] | None = None, **changes: Any) -> FeatureBuild:
        return build(served_recipe(self.folder, **changes), self.folder / name, quiet if said is None else said.append)

    def served_rows(self) -> list[tuple[tuple[int, int, int], dict[str, Any]]]:
        """The key of each logged candidate, and its features as they were encoded for it."""
        encoder, found = RequestEncoder.open(self.folder / "features"), []
        schema = encoder.schema
        for _, at_ms, request in self.requests:
            inputs = encoder.encode(request).inputs
            user = int(hash_array(pa.array([request.user]))[0])
            for place, item in enumerate(hash_array(pa.array(list(request.items))).tolist()):
                row: dict[str, Any] = {}
                for part, piece, at in (
                    (schema.request, inputs.request, 0),
                    (schema.candidate, inputs.candidate, place),
                ):
                    row |= dict(zip([s.name for s in part.ids], piece.ids[at].tolist(), strict=True))
                    row |= dict(zip([s.name for s in part.dense], piece.dense[at].tolist(), strict=True))
                found.append(((user, item, at_ms), row))
        return found


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("served")
    made = World(folder, world(folder))
    made.build("next")
    shutil.copytree(folder / "features", folder / "grown")
    made.build("grown", grow=True)
    return made


def test_each_logged_candidate_is_a_row_with_the_outcome_that_came(shop: World) -> None:
    clicks = pq.read_table(shop.folder / "clicks.parquet").to_pylist()
    times = {name: at_ms for name, at_ms, _ in shop.requests}
    last = max(times.values())
    final = sum(times[click["request_id"]] + HOUR_MS <= last for click in clicks)
    rows = shop.rows("next")
    assert len(rows) == sum(len(request.items) for _, _, request in shop.requests)
    assert float(rows[label_column("like")].to_numpy().sum()) == final
    weights = rows[weight_column("like")].to_numpy()
    assert (weights == (rows[TIME].to_numpy() + HOUR_MS <= last)).all()


def test_features_that_both_versions_encode_alike_are_as_they_were_served_to_the_bit(shop: World) -> None:
    rows, schema = shop.by_key("grown"), Schema.load(shop.folder / "grown")
    names = [spec.name for spec in schema.features if spec.name not in {"user", "item", "tags"}]
    assert "age" in names
    for key, served in shop.served_rows():
        assert {name: rows[key][name] for name in names} == {name: served[name] for name in names}


def test_a_version_with_other_numbers_and_rows_learns_from_the_same_values(shop: World) -> None:
    rows = shop.by_key("next")
    old, new = (ServedEncoding.load(shop.folder / name) for name in ("features", "next"))
    before = {spec.name: spec for spec in old.schema.features}
    compared = 0
    for spec in new.schema.features:
        if spec.name in {"user", "item", "surface", "tags", "maker"}:
            continue
        assert isinstance(spec, DenseSpec)
        compared += before[spec.name] != spec
        for key, served in shop.served_rows():
            value = decode_feature(old.encoder, before[spec.name], pa.array([served[spec.name]], pa.float32()))
            again = new.encoder.dense(spec, value)[0]
            assert rows[key][spec.name] == pytest.approx(again, abs=1e-6)
    assert compared >= 3


def test_ids_take_the_new_versions_rows_of_the_same_values(shop: World) -> None:
    rows = shop.rows("next")
    encoding = ServedEncoding.load(shop.folder / "next")
    (item,) = (spec for spec in encoding.schema.features if spec.name == "item")
    values = decode_feature(encoding.encoder, item, rows["item"].combine_chunks())
    known = values.is_valid().to_numpy(zero_copy_only=False)
    assert (hash_array(values)[known] == rows[ITEM_HASH].to_numpy()[known]).all()
    assert known.mean() > 0.5


def test_an_item_that_the_serving_version_did_not_know_trains_a_row_of_its_own(shop: World) -> None:
    old, new = (ServedEncoding.load(shop.folder / name) for name in ("features", "next"))
    hashes = hash_array(pa.array([NEW_ITEM]))
    found = {}
    for name, encoding in (("old", old), ("new", new)):
        (spec,) = (s for s in encoding.schema.features if s.name == "item")
        assert isinstance(spec, IdSpec)
        found[name] = int(encoding.encoder.rows(spec, hashes)[0])
    assert found["old"] == 0 < found["new"]
    rows = shop.rows("next")
    mine = rows.filter(pa.array(rows[ITEM_HASH].to_numpy() == hashes[0]))
    assert set(mine["item"].to_pylist()) == {found["new"]}


def test_a_feature_that_was_not_served_is_computed_and_said(shop: World) -> None:
    said: list[str] = []
    features = [*served_recipe(shop.folder).model_dump()["features"], {"name": "served_position", "kind": "dense"}]
    shop.build("added", said, features=features)
    assert [line for line in said if "'served_position' was not served" in line]
    assert "served_position" in shop.rows("added").column_names


def test_a_longer_log_ends_in_the_same_rows_as_one_that_was_read_at_once(shop: World, tmp_path: Path) -> None:
    logged = shop.folder / "log" / "model=shop"
    files = sorted(logged.rglob("date=*/**/*.parquet"))
    log = tmp_path / "model=shop"
    shutil.copytree(logged / ENCODINGS_FOLDER, log / ENCODINGS_FOLDER)
    (log / "date=2024-03-06").mkdir()
    for file in files:
        shutil.copyfile(file, log / "date=2024-03-06" / file.name)
        events = served_recipe(shop.folder).events.model_copy(update={"served": str(log)})
        config = served_recipe(shop.folder).model_copy(update={"events": events})
        build(config, tmp_path / "next", quiet)
    for split in ("train", "valid"):
        grown, whole = (EncodedDataset.open(folder / "next" / split) for folder in (tmp_path, shop.folder))
        assert sorted(map(str, grown.read(grown.column_names).to_pylist())) == sorted(
            map(str, whole.read(whole.column_names).to_pylist())
        )


@pytest.mark.parametrize("by", ["request_id", "window"])
def test_events_of_a_log_of_its_own_train_on_what_they_were_served_with(shop: World, tmp_path: Path, by: str) -> None:
    rows = [
        {"user": request.user, "item": item, "at": at_ms + 5000, "surface": request.context["surface"],
         "liked": number % 2, "request_id": name}
        for number, (name, at_ms, request) in enumerate(shop.requests)
        for item in request.items[:2]
    ]  # fmt: skip
    unseen = [rows[0] | {"item": 39, "at": rows[0]["at"] - 10 * HOUR_MS, "request_id": "none"}]
    table = pa.Table.from_pylist([*rows, *unseen])
    table = table.set_column(2, "at", table["at"].cast(pa.timestamp("ms", "UTC")))
    pq.write_table(table if by == "request_id" else table.drop_columns(["request_id"]), tmp_path / "shown.parquet")
    events = {"path": str(tmp_path / "shown.parquet"), "served": str(shop.folder / "log"), "user": "user",
              "item": "item", "time": "at", "served_within": "10s"}  # fmt: skip
    task = {"name": "like", "kind": "binary", "label": "liked == 1"}
    config = served_recipe(shop.folder, events=events, labels=[], tasks=[task])
    made = build(config, tmp_path / "next", quiet)
    assert made.rows["train"] + made.rows["valid"] == len(rows)
    encoded = World(tmp_path, []).by_key("next")
    old = {spec.name: spec for spec in Schema.load(shop.folder / "features").features}
    new = ServedEncoding.load(tmp_path / "next")
    (age,) = (spec for spec in new.schema.features if spec.name == "age")
    assert isinstance(age, DenseSpec)
    source = ServedEncoding.load(shop.folder / "features").encoder
    overridden = np.float64(30.5)
    served = dict(shop.served_rows())
    for number, (_, at_ms, request) in enumerate(shop.requests):
        key = (int(hash_array(pa.array([request.user]))[0]), int(hash_array(pa.array([request.items[0]]))[0]), at_ms)
        row = encoded[(*key[:2], at_ms + 5000)]
        value = decode_feature(source, old["age"], pa.array([served[key]["age"]], pa.float32()))
        assert row["age"] == new.encoder.dense(age, value)[0]
        if number % 3 == 0:
            assert value[0].as_py() == pytest.approx(overridden, abs=1e-5)


def test_a_bundles_recipe_encodes_its_log_as_training_did(shop: World, tmp_path: Path) -> None:
    shutil.copytree(shop.folder / "next", tmp_path / "bundle")
    save_recipe(served_recipe(shop.folder), shop.folder / "next", tmp_path / "bundle")
    with encoded_days(FittedRecipe.load(tmp_path / "bundle"), RawDays(), quiet) as days:
        again = EncodedDataset.open(days.dataset)
        found = sorted(map(str, again.read(again.column_names).to_pylist()))
    assert found == sorted(map(str, shop.rows("next").to_pylist()))


def test_a_log_of_two_models_is_refused_by_name(shop: World, tmp_path: Path) -> None:
    for model in ("shop", "other"):
        shutil.copytree(shop.folder / "log" / "model=shop", tmp_path / "log" / f"model={model}")
    with pytest.raises(ConfigError, match=r"several models; name one of them, such as .*model=other"):
        build(of_log(shop, tmp_path / "log"), tmp_path / "next", quiet)


def test_a_log_without_what_encoded_it_is_refused(shop: World, tmp_path: Path) -> None:
    shutil.copytree(shop.folder / "log", tmp_path / "log")
    shutil.rmtree(tmp_path / "log" / "model=shop" / ENCODINGS_FOLDER)
    with pytest.raises(DataError, match=f"lacks {ENCODINGS_FOLDER}/"):
        build(of_log(shop, tmp_path / "log"), tmp_path / "next", quiet)


def test_other_parquet_than_a_log_is_refused(shop: World, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a log of served requests"):
        build(of_log(shop, shop.folder / "clicks.parquet"), tmp_path / "next", quiet)


def of_log(shop: World, log: Path) -> FeaturesConfig:
    config = served_recipe(shop.folder)
    return config.model_copy(update={"events": config.events.model_copy(update={"served": str(log)})})
