"""The committed stubs are what proto/ says."""

import subprocess
import sys
from pathlib import Path

from serving.generate import ROOT, generate
from serving.stubs.moerank.v1 import ranking_pb2
from serving.stubs.moerank.wire.v1 import ranking_pb2 as twin_pb2


def test_the_committed_stubs_are_those_that_protoc_makes_now(tmp_path: Path) -> None:
    made = generate(tmp_path)
    committed = ROOT / "serving" / "stubs"
    kept = [p.relative_to(ROOT) for p in committed.rglob("*.py*") if p.suffix in {".py", ".pyi"}]
    assert made == sorted(kept), "run `make proto`"
    for path in made:
        assert (tmp_path / path).read_text() == (ROOT / path).read_text(), f"{path} is stale: run `make proto`"


def test_the_twin_has_the_field_numbers_of_the_answer() -> None:
    for name in ("RankResponse", "Predictions", "BatchRankResponse"):
        mine = ranking_pb2.DESCRIPTOR.message_types_by_name[name].fields_by_name
        other = twin_pb2.DESCRIPTOR.message_types_by_name[name].fields_by_name
        assert {n: f.number for n, f in mine.items()} == {n: f.number for n, f in other.items()}


def test_proto_files_pass_buf_lint() -> None:
    buf = Path(sys.executable).parent / "buf"
    run = subprocess.run([buf, "lint", "proto"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
