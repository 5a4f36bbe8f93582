"""Properties of what crosses boundaries: digests, hashes, durations, scores, the schema's JSON, files."""

import json
import string
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from contract.columns import label_column, prediction_column, task_columns, weight_column
from contract.digests import digest_of
from contract.durations import milliseconds
from contract.files import place, write_text
from contract.hashing import NULL_HASH, combine, hash_array, hash_integers, mix
from contract.schema import DenseSpec, IdSpec, Schema, TaskSpec
from contract.score import Score, ScoreConfig
from contract.sha256 import sha256_of

NAMES = st.text(string.ascii_lowercase, min_size=1, max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
WORDS = st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=20)
FLOATS = st.floats(-1e3, 1e3, width=32)
WEIGHTS = st.floats(0.015625, 8, width=32)
ID_SPECS = st.builds(
    IdSpec,
    name=NAMES,
    kind=st.sampled_from(["id", "id_list"]),
    side=st.sampled_from(["user", "item", "context"]),
    rows=st.integers(1, 10**6),
    encoding=st.sampled_from(["vocabulary", "hash"]),
    table=st.just("") | NAMES,
)
DENSE_SPECS = st.builds(
    DenseSpec,
    name=NAMES,
    side=st.sampled_from(["user", "item", "context"]),
    encoding=st.sampled_from(["piecewise_linear", "standardise", "log1p"]),
    edges=st.lists(st.floats(-1e6, 1e6), max_size=4).map(lambda edges: tuple(sorted(edges))),
    mean=FLOATS,
    scale=WEIGHTS,
)
SCHEMAS = st.builds(
    Schema,
    features=st.lists(ID_SPECS | DENSE_SPECS, max_size=5).map(tuple),
    tasks=st.lists(st.builds(TaskSpec, name=NAMES, kind=st.sampled_from(["binary", "regression"])), max_size=3).map(
        tuple
    ),
)


@given(JSON)
def test_a_digest_is_that_of_the_same_value_read_back_from_json(value: object) -> None:
    assert digest_of(value) == digest_of(json.loads(json.dumps(value)))


@given(st.dictionaries(NAMES, st.integers(), min_size=2))
def test_a_digest_does_not_depend_on_the_order_of_keys(value: dict[str, int]) -> None:
    assert digest_of(value) == digest_of(dict(reversed(value.items())))


@given(JSON, JSON)
def test_different_values_have_different_digests(first: object, second: object) -> None:
    same = json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)
    assert (digest_of(first) == digest_of(second)) is same


@given(st.integers(1, 10**6), st.sampled_from("smhd"))
def test_a_duration_is_its_number_of_its_unit(number: int, unit: str) -> None:
    assert milliseconds(f"{number}{unit}") == number * milliseconds(f"1{unit}")


@given(WORDS)
def test_mixing_keeps_different_words_apart(words: list[int]) -> None:
    assert len(set(mix(np.array(words, np.uint64)).tolist())) == len(set(words))


@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)), min_size=1, max_size=9))
def test_combining_works_row_by_row(pairs: list[tuple[int, int]]) -> None:
    columns = [np.array(column, np.uint64) for column in zip(*pairs, strict=True)]
    one_by_one = [int(combine([np.array([a], np.uint64), np.array([b], np.uint64)])[0]) for a, b in pairs]
    assert combine(columns).tolist() == one_by_one


@given(st.integers(1, 2**64 - 1), st.integers(1, 2**64 - 1))
def test_a_combination_depends_on_the_order_of_its_parts(first: int, second: int) -> None:
    a, b = np.array([first], np.uint64), np.array([second], np.uint64)
    assert (combine([a, b])[0] == combine([b, a])[0]) == (first == second)


@given(st.integers(0, 2**64 - 1))
def test_a_combination_with_null_is_null(word: int) -> None:
    parts = np.array([word], np.uint64), np.array([NULL_HASH], np.uint64)
    assert combine([*parts])[0] == combine([*reversed(parts)])[0] == NULL_HASH


@given(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1))
def test_integers_hash_the_same_in_every_width(values: list[int]) -> None:
    wide = hash_array(pa.array(values, pa.int64()))
    assert hash_array(pa.array(values, pa.int32())).tolist() == wide.tolist()
    assert hash_integers(np.array(values, np.int64)).tolist() == wide.tolist()


@given(st.lists(st.none() | st.text(max_size=6), min_size=1), st.integers(0, 9))
def test_chunks_change_no_hash(values: list[str | None], at: int) -> None:
    chunks = pa.chunked_array([pa.array(values[:at], pa.string()), pa.array(values[at:], pa.string())])
    assert hash_array(chunks).tolist() == hash_array(pa.array(values, pa.string())).tolist()


@given(SCHEMAS)
def test_a_schema_survives_its_json(schema: Schema) -> None:
    with TemporaryDirectory() as folder:
        schema.save(Path(folder))
        assert Schema.load(Path(folder)) == schema


@given(SCHEMAS)
def test_a_schema_has_the_fingerprint_of_its_copy(schema: Schema) -> None:
    assert Schema.model_validate_json(schema.model_dump_json()).fingerprint() == schema.fingerprint()


@given(SCHEMAS, NAMES)
def test_another_task_is_another_fingerprint(schema: Schema, name: str) -> None:
    more = schema.model_copy(update={"tasks": (*schema.tasks, TaskSpec(name=name, kind="binary"))})
    assert more.fingerprint() != schema.fingerprint()


@given(SCHEMAS)
def test_every_feature_travels_in_exactly_one_part(schema: Schema) -> None:
    parts = [*schema.request.ids, *schema.request.lists, *schema.request.dense]
    parts += [*schema.candidate.ids, *schema.candidate.lists, *schema.candidate.dense]
    assert sorted(map(repr, parts)) == sorted(map(repr, schema.features))


@given(st.lists(NAMES, min_size=1, unique=True))
def test_each_task_has_columns_of_its_own(tasks: list[str]) -> None:
    names = [*task_columns(tasks), *map(prediction_column, tasks)]
    assert len(set(names)) == 3 * len(tasks)
    assert task_columns(tasks)[:2] == [label_column(tasks[0]), weight_column(tasks[0])]


@given(st.lists(st.tuples(FLOATS, FLOATS), min_size=1), WEIGHTS, WEIGHTS)
def test_a_weighted_sum_is_the_sum(rows: list[tuple[float, float]], first: float, second: float) -> None:
    a, b = (np.array(column, np.float32) for column in zip(*rows, strict=True))
    score = Score(ScoreConfig(weights={"a": first, "b": second}), TASKS)
    expected = first * a.astype(np.float64) + second * b.astype(np.float64)
    np.testing.assert_allclose(score({"a": a, "b": b}), expected, rtol=1e-6, atol=1e-6)


@given(st.lists(st.floats(0.0009765625, 1, width=32), min_size=2), st.floats(0.125, 4))
def test_a_product_of_powers_orders_as_its_only_task_does(values: list[float], exponent: float) -> None:
    a = np.array(values, np.float32)
    scores = Score(ScoreConfig(form="product_of_powers", weights={"a": exponent}), TASKS)({"a": a})
    assert (np.diff(scores[np.argsort(a, kind="stable")]) >= 0).all()


@given(st.lists(FLOATS, min_size=1), st.floats(-16, 16).filter(bool))
def test_any_finite_prediction_has_a_finite_score(values: list[float], exponent: float) -> None:
    config = ScoreConfig(form="product_of_powers", weights={"a": exponent})
    assert np.isfinite(Score(config, TASKS)({"a": np.array(values, np.float32)})).all()


TASKS = [TaskSpec(name="a", kind="binary"), TaskSpec(name="b", kind="regression")]


@given(st.binary(max_size=300))
def test_a_placed_file_has_the_digest_of_its_source(content: bytes) -> None:
    with TemporaryDirectory() as folder:
        source, target = Path(folder) / "source", Path(folder) / "new" / "target"
        source.write_bytes(content)
        place(source, target)
        assert sha256_of(source) == sha256_of(target)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), max_size=30))
def test_text_is_read_back_as_it_was_written(text: str) -> None:
    with TemporaryDirectory() as folder:
        write_text(text, Path(folder) / "file")
        assert (Path(folder) / "file").read_text(encoding="utf-8") == text
