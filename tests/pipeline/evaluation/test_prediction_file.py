"""Score files from anywhere."""

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from contract.errors import ConfigError, DataError
from pipeline.cli.main import main
from pipeline.evaluation.comparing.compare import compare
from pipeline.evaluation.evaluate import EvaluateConfig, evaluate_file
from pipeline.evaluation.metrics import gauc
from pipeline.evaluation.prediction_file import load_predictions, parse_columns

QUICK = EvaluateConfig(replicates=50)
COLUMNS = ["user=uid", "item=iid", "label.click=y", "prediction.click=p", "label.watch=seconds", "prediction.watch=s"]


def _table(seed: int = 0, rows: int = 300) -> pa.Table:
    """String ids of which one is missing, and a task without a label in some rows."""
    rng = np.random.default_rng(seed)
    p = rng.random(rows)
    clicked = rng.random(rows) < p
    seconds = [float(v) if on else None for on, v in zip(clicked, rng.gamma(2.0, 9.0, rows), strict=True)]
    users = [None if i == 0 else f"u{i % 40}" for i in range(rows)]
    columns = {"uid": users, "iid": [f"i{i}" for i in rng.integers(0, 50, rows)], "y": clicked, "p": p}
    return pa.table({**columns, "seconds": seconds, "s": rng.gamma(2.0, 9.0, rows)})


def test_a_file_with_its_own_names_is_compared_with_itself(tmp_path: Path) -> None:
    pq.write_table(_table(), tmp_path / "scores.parquet")
    shuffled = _table().take(np.random.default_rng(1).permutation(300))
    pq.write_table(shuffled, tmp_path / "shuffled.parquet")
    columns = parse_columns(COLUMNS)
    found = compare(tmp_path / "scores.parquet", tmp_path / "shuffled.parquet", config=QUICK, columns=columns)
    assert found.rows == 300
    assert found.tasks["click"]["auc"].difference == 0.0
    assert found.tasks["watch"]["rmse"].n == sum(_table()["y"].to_pylist())


def test_another_tool_s_scores_get_the_full_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pq.write_table(_table(), tmp_path / "lightgbm.parquet")
    out = tmp_path / "out"
    words = ["--predictions", str(tmp_path / "lightgbm.parquet"), "--columns", *COLUMNS, "--out", str(out)]
    assert main(["evaluate", *words, "--replicates", "50", "--at", "3,5"]) == 0
    assert "click: auc 0.8" in capsys.readouterr().out
    found = json.loads((out / "evaluation.json").read_text())
    assert {"auc", "gauc", "ndcg@3", "recall@5"} <= found["tasks"]["click"].keys()
    assert found["baselines"]["constant"]["click"]["auc"]["value"] == 0.5
    assert "<h1>lightgbm</h1>" in (out / "report.html").read_text("utf-8")


@pytest.mark.parametrize(("no", "yes"), [(0, 2), (1, 2), (-1, 1)])
def test_two_labels_that_are_not_0_and_1_are_named_with_the_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], no: int, yes: int
) -> None:
    table = _table()
    labels = [yes if each else no for each in table["y"].to_pylist()]
    pq.write_table(table.set_column(2, "y", pa.array(labels)).select(["uid", "y", "p"]), tmp_path / "scores.parquet")
    columns = ["--columns", "user=uid", "label.click=y", "prediction.click=p", "--replicates", "50"]
    scores = str(tmp_path / "scores.parquet")
    assert main(["evaluate", "--predictions", scores, "--out", str(tmp_path / "out"), *columns]) == 0
    said = f"note: click: the labels are {no} and {yes} and nothing else, so the task is judged as a regression"
    assert said in capsys.readouterr().out
    assert f"write 0 for {no} and 1 for {yes}" in (tmp_path / "out" / "report.html").read_text("utf-8")
    assert main(["compare", scores, scores, "--out", str(tmp_path / "both"), *columns]) == 0
    assert capsys.readouterr().out.count(said) == 1


def test_a_regression_with_more_than_two_labels_is_taken_as_one(tmp_path: Path) -> None:
    pq.write_table(_table(), tmp_path / "scores.parquet")
    found = evaluate_file(tmp_path / "scores.parquet", tmp_path / "out", columns=parse_columns(COLUMNS), config=QUICK)
    assert not any("nothing else" in finding for finding in found.findings)


def test_files_without_ids_are_matched_by_their_order(tmp_path: Path) -> None:
    bare = _table().select(["y", "p"])
    pyarrow.csv.write_csv(bare, tmp_path / "bare.csv")
    pq.write_table(_table(), tmp_path / "full.parquet")
    columns = {role: name for role, name in parse_columns(COLUMNS).items() if role.endswith("click")}
    found = compare(tmp_path / "bare.csv", tmp_path / "full.parquet", config=QUICK, columns=columns)
    assert found.tasks["click"]["auc"].difference == 0.0


def test_an_empty_id_of_a_csv_is_a_missing_one(tmp_path: Path) -> None:
    pyarrow.csv.write_csv(_table(), tmp_path / "scores.csv")
    pq.write_table(_table(), tmp_path / "scores.parquet")
    columns = parse_columns(COLUMNS)
    found = compare(tmp_path / "scores.csv", tmp_path / "scores.parquet", config=QUICK, columns=columns)
    assert found.tasks["click"]["auc"].difference == 0.0
    assert load_predictions(tmp_path / "scores.csv", columns).user[0] == 0


@pytest.mark.parametrize("name", ["hour", "user_activity", "item_activity"])
def test_a_slice_that_the_rows_cannot_have_is_refused(tmp_path: Path, name: str) -> None:
    pq.write_table(_table().select(["y", "p"]), tmp_path / "bare.parquet")
    columns = parse_columns(["label.click=y", "prediction.click=p"])
    config = QUICK.model_copy(update={"slice_by": (name,)})
    with pytest.raises(ConfigError, match=f"cannot slice by '{name}': the rows have no "):
        evaluate_file(tmp_path / "bare.parquet", tmp_path / "out", columns=columns, config=config)


def test_raw_ids_are_hashed_as_features_hash_them(tmp_path: Path) -> None:
    pq.write_table(pa.table({"uid": [7, 8], "y": [0, 1], "p": [0.1, 0.9]}), tmp_path / "i.parquet")
    pq.write_table(pa.table({"uid": [7.0, 8.0], "y": [0, 1], "p": [0.1, 0.9]}), tmp_path / "f.parquet")
    columns = parse_columns(["user=uid", "label.t=y", "prediction.t=p"])
    ids = [load_predictions(tmp_path / name, columns).user.tolist() for name in ("i.parquet", "f.parquet")]
    assert ids[0] == ids[1]
    assert ids[0] != [7, 8]


def test_scores_that_are_no_probabilities_have_an_auc_and_no_log_loss(tmp_path: Path) -> None:
    table = _table().append_column("raw", pa.array(_table()["p"].to_numpy() * 6 - 3))
    pq.write_table(table, tmp_path / "r.parquet")
    words = ["--predictions", str(tmp_path / "r.parquet"), "--columns", "label.click=y", "prediction.click=raw"]
    assert main(["evaluate", *words, "--out", str(tmp_path / "out"), "--replicates", "50"]) == 0
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert {"auc", "pr_auc"} <= found["tasks"]["click"].keys()
    assert found["undefined"]["click"]["log_loss"].startswith("the scores are not probabilities: they lie from -2.99")


@pytest.mark.parametrize(
    ("name", "values", "says"),
    [
        ("w", np.r_[-1.0, np.ones(299)], "w is -1.0 in 1 rows; a weight is a finite number of at least 0"),
        ("w", np.r_[np.inf, np.ones(299)], "w is inf in 1 rows"),
        ("uid", np.arange(300) + 0.5, "'uid' is a key, but has fractions such as 0.5"),
        ("p", 1_700_000_000_000.0 + np.arange(300), "of 300 different values of 'p'"),
    ],
)
def test_values_that_would_be_misread_are_refused(
    tmp_path: Path, name: str, values: NDArray[np.float64], says: str
) -> None:
    table = _table().select(["y", "p"])
    table = table.drop_columns(["p"]) if name == "p" else table
    pq.write_table(table.append_column(name, pa.array(values)), tmp_path / "scores.parquet")
    roles = {"label.click": "y", "prediction.click": "p"} | {"w": {"weight.click": "w"}, "uid": {"user": "uid"}}.get(
        name, {}
    )
    with pytest.raises(DataError, match=re.escape(says)):
        load_predictions(tmp_path / "scores.parquet", roles)


@pytest.mark.parametrize("option", ["--importance", "--train", "--key"])
def test_what_needs_a_bundle_s_features_is_refused_beside_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    # They were left out in silence.
    pq.write_table(_table(), tmp_path / "scores.parquet")
    words = [option] if option == "--importance" else [option, str(tmp_path)]
    assert main(["evaluate", "--predictions", str(tmp_path / "scores.parquet"), *words]) == 2
    assert f"{option} needs a BUNDLE's own features" in capsys.readouterr().err


def test_a_damaged_text_file_is_not_called_parquet(tmp_path: Path) -> None:
    (tmp_path / "scores.csv").write_text("y,p\n1,0.5\n1\n", encoding="utf-8")
    with pytest.raises(DataError, match="cannot be read as a table of text"):
        load_predictions(tmp_path / "scores.csv")


def test_rows_of_one_user_have_no_winner_and_the_report_says_why(tmp_path: Path) -> None:
    # Every draw of one user is the same, which gave intervals without width and p-values of 0.
    rng = np.random.default_rng(5)
    one = _table().select(["y", "p"]).append_column("uid", pa.array(["u"] * 300))
    pq.write_table(one, tmp_path / "a.parquet")
    noisy = pa.array(np.clip(one["p"].to_numpy() + rng.normal(scale=0.01, size=300), 0, 1))
    pq.write_table(one.set_column(1, "p", noisy), tmp_path / "b.parquet")
    columns = {"user": "uid", "label.click": "y", "prediction.click": "p"}
    found = compare(tmp_path / "a.parquet", tmp_path / "b.parquet", config=QUICK, columns=columns)
    assert found.tasks["click"] == {}
    assert found.undefined["click"]["auc"] == "all rows are of one user, and a test needs two at least"
    evaluation = evaluate_file(tmp_path / "a.parquet", tmp_path / "out", columns=columns, config=QUICK)
    assert evaluation.findings == (
        "click: all rows are of one user, so the intervals say nothing; judge on rows of two users at least",
    )


def test_wrong_words_and_missing_columns_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--columns labels=y: expected is WHAT=COLUMN"):
        parse_columns(["labels=y"])
    pq.write_table(_table(), tmp_path / "s.parquet")
    with pytest.raises(DataError, match=r"no column 'z'; it has uid, iid, y, p"):
        load_predictions(tmp_path / "s.parquet", {"label.click": "z", "prediction.click": "p"})
    with pytest.raises(DataError, match=r"no column 'prediction__TASK'"):
        load_predictions(tmp_path / "s.parquet")
    with pytest.raises(DataError, match=r"column 'uid' is string, but labels"):
        load_predictions(tmp_path / "s.parquet", {"label.click": "uid", "prediction.click": "p"})
    holes = _table().set_column(3, "p", pa.array([None, *_table()["p"].to_pylist()[1:]]))
    pq.write_table(holes, tmp_path / "h.parquet")
    with pytest.raises(DataError, match=r"p has no finite value in 1 rows that have a label"):
        load_predictions(tmp_path / "h.parquet", {"label.click": "y", "prediction.click": "p"})


@pytest.mark.parametrize("role", ["label.share", "weight.share"])
def test_a_column_of_a_task_without_a_prediction_is_refused(tmp_path: Path, role: str) -> None:
    pq.write_table(_table(), tmp_path / "scores.parquet")
    with pytest.raises(ConfigError, match=rf"{role}=y: .* has no prediction of 'share', only of click, watch"):
        load_predictions(tmp_path / "scores.parquet", parse_columns([*COLUMNS, f"{role}=y"]))


def test_one_mapping_may_speak_of_files_with_and_without_the_usual_names(tmp_path: Path) -> None:
    pq.write_table(_table(), tmp_path / "theirs.parquet")
    columns = {role: name for role, name in parse_columns(COLUMNS).items() if not role.endswith("watch")}
    load_predictions(tmp_path / "theirs.parquet", columns).save(tmp_path / "ours.parquet")
    found = compare(tmp_path / "ours.parquet", tmp_path / "theirs.parquet", config=QUICK, columns=columns)
    assert found.tasks["click"]["auc"].difference == 0.0
    assert "gauc" in found.tasks["click"]


def test_a_file_is_sliced_by_any_of_its_columns_and_judged_in_lists_of_its_own(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    score = rng.random(600)
    table = pa.table(
        {
            "uid": rng.integers(1, 50, 600),
            "session": [f"s{number}" for number in rng.integers(1, 90, 600)],
            "y": (rng.random(600) < score).astype(np.int8),
            "p": score,
            "country": pa.array([None if place % 7 == 0 else ("fr", "nl")[place % 2] for place in range(600)]),
            "price": rng.gamma(2.0, 1.0, 600),
        }
    )
    pq.write_table(table, tmp_path / "scores.parquet")
    columns = {"user": "uid", "list": "session", "label.click": "y", "prediction.click": "p"}
    config = EvaluateConfig(replicates=50, slice_replicates=50, slice_by=("country", "price"), at=(2,))
    found = evaluate_file(tmp_path / "scores.parquet", tmp_path / "out", columns=columns, config=config)
    assert found.slices["country"].keys() == {"fr", "nl", "null"}
    assert [each.rows for each in found.slices["price"].values()] == [150, 150, 150, 150]
    session = table["session"].to_numpy()
    expected = gauc(table["y"].to_numpy(), score.astype(np.float32), np.unique(session, return_inverse=True)[1])
    assert found.tasks["click"]["gauc"].value == pytest.approx(expected, rel=1e-9)
    with pytest.raises(ConfigError, match="cannot slice by 'colour'"):
        evaluate_file(tmp_path / "scores.parquet", tmp_path / "out", columns=columns,
                      config=EvaluateConfig(slice_by=("colour",)))  # fmt: skip
    with pytest.raises(ConfigError, match="name its column, as in --columns list=session"):
        evaluate_file(tmp_path / "scores.parquet", tmp_path / "out", columns=columns,
                      config=EvaluateConfig(lists_by="session"))  # fmt: skip


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_a_table_of_text_is_sliced_by_its_columns_as_parquet_is(tmp_path: Path, suffix: str) -> None:
    rows = [(place % 2, place % 7 / 7, ("fr", "", "nl")[place % 3], place / 10) for place in range(300)]
    mark = {"csv": ",", "tsv": "\t"}[suffix]
    lines = [mark.join(("y", "p", "country", "price")), *(mark.join(map(str, row)) for row in rows)]
    (tmp_path / f"scores.{suffix}").write_text("\n".join(lines) + "\n", encoding="utf-8")
    columns = parse_columns(["label.click=y", "prediction.click=p"])
    config = QUICK.model_copy(update={"slice_by": ("country", "price")})
    found = evaluate_file(tmp_path / f"scores.{suffix}", tmp_path / "out", columns=columns, config=config)
    assert {name: each.rows for name, each in found.slices["country"].items()} == {"fr": 100, "null": 100, "nl": 100}
    assert [each.rows for each in found.slices["price"].values()] == [75, 75, 75, 75]


def test_rows_without_a_user_are_not_rows_of_one_user(tmp_path: Path) -> None:
    # They were one user, whose rows were compared with each other in GAUC and drawn together.
    table = _table()
    missing = np.arange(300) % 3 == 0
    users = [None if lost else user for lost, user in zip(missing, table["uid"].to_pylist(), strict=True)]
    pq.write_table(table.set_column(0, "uid", pa.array(users)), tmp_path / "some.parquet")
    pq.write_table(table.filter(pa.array(~missing)), tmp_path / "known.parquet")
    columns = parse_columns(COLUMNS[:4])
    some, known = (
        evaluate_file(tmp_path / f"{name}.parquet", tmp_path / name, columns=columns, config=QUICK).tasks["click"]
        for name in ("some", "known")
    )
    assert some["gauc"].value == pytest.approx(known["gauc"].value, abs=1e-12)
    assert some["auc"].value != known["auc"].value
    assert load_predictions(tmp_path / "some.parquet", columns).users().count == 40 + 100


def test_a_file_without_rows_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pq.write_table(_table().slice(0, 0), tmp_path / "empty.parquet")
    words = ["--predictions", str(tmp_path / "empty.parquet"), "--columns", *COLUMNS, "--out", str(tmp_path / "out")]
    assert main(["evaluate", *words]) == 1
    assert "empty.parquet has no rows" in capsys.readouterr().err
