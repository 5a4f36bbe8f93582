"""Which steps run again when a file changes: found from imports, so a copy of the code is edited and asked."""

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from contract.digests import PACKAGES, _closure, _files, _graph, _ours, code_digest, digest_of

ROOT = Path(__file__).resolve().parents[2]
# The module that does each step, as pipeline/flow/steps.py names it by its function.
STEPS = {
    "features": "features.build",
    "train": "pipeline.training.train",
    "export": "pipeline.export.export_run",
    "evaluate": "pipeline.report.evaluate_and_report",
    "publish": "pipeline.release.publish_run",
}
ASK = """
import json, sys
from contract.digests import code_digest
print(json.dumps([code_digest(module) for module in sys.argv[1:]]))
"""
ALL = set(STEPS)


def digests(root: Path) -> dict[str, str]:
    """The steps' digests in a copy of the code, asked of a process of its own."""
    command = [sys.executable, "-P", "-c", ASK, *STEPS.values()]
    done = subprocess.run(command, cwd=root, env={"PYTHONPATH": str(root)}, check=True, capture_output=True, text=True)
    return dict(zip(STEPS, json.loads(done.stdout), strict=True))


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("copy")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, root / package, ignore=shutil.ignore_patterns("__pycache__"))
    return root


@pytest.fixture(scope="module")
def before(copy: Path) -> dict[str, str]:
    return digests(copy)


@pytest.mark.parametrize(
    ("file", "old", "new", "again"),
    [
        # `auc` picks the best epoch and accepts int8 experts, so it is in all that train, export and judge.
        ("pipeline/evaluation/metrics.py", "return float(", "return 1 - float(", ALL - {"features"}),
        ("models/gates/top_k.py", "import torch\n", "import torch\n\nEXTRA = 1\n", {"train", "export", "publish"}),
        ("pipeline/cli/verb.py", "a training run:", "one training run:", set()),
        ("features/encode/fit_encoders.py", "import numpy", "# A comment.\nimport numpy", set()),
        # The export writes golden requests through the request encoder; the others see it by the rows that they read.
        ("features/encode/encoder.py", "LARGEST = ", "LARGEST = 0.5 * ", {"features", "export"}),
        ("models/export/exporter.py", "import torch\n", "import torch\n\nEXTRA = 1\n", {"export", "publish"}),
        ("pipeline/report/base.html", "<main", "<main id=body", {"evaluate", "publish"}),
        ("pipeline/training/learning_rate.py", "return", "return 0.5 *", {"train"}),
        ("pipeline/release/model_card.py", "Predicts, for", "It predicts, for", {"publish"}),
        ("features/feature_config.py", '"""', '"""In other words: ', set()),
        ("contract/schema.py", "import json\n", "import json\n\nEXTRA = 1\n", ALL),
        ("serving/grpc_server/server.py", "\nclass ", "\nEXTRA = 1\n\n\nclass ", set()),
        # The evaluation starts it as a process of its own.
        (
            "pipeline/evaluation/streaming/scoring_process.py",
            "\n\ndef main",
            "\nEXTRA = 1\n\n\ndef main",
            {"evaluate", "publish"},
        ),
    ],
)
def test_an_edit_runs_again_exactly_what_depends_on_it(
    copy: Path, before: dict[str, str], file: str, old: str, new: str, again: set[str]
) -> None:
    path = copy / file
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    try:
        after = digests(copy)
    finally:
        path.write_text(text, encoding="utf-8")
    assert {step for step in STEPS if before[step] != after[step]} == again


def test_a_module_that_a_step_names_in_a_text_is_in_its_digest() -> None:
    """Such as one that it starts with `python -m`."""
    modules = _graph().modules
    for entry in STEPS.values():
        closure = _closure(entry)
        files = {file for name in closure if _ours(name) for file in _files(name) if file.suffix == ".py"}
        nodes = (node for file in files for node in ast.walk(ast.parse(file.read_bytes())))
        texts = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
        named = {text for text in texts & modules if "." in text and _ours(text)}
        # Kept days remember that module's digest; naming it does not run it.
        assert named - closure - {"features.build"} == set(), entry


def test_what_the_steps_call_is_in_a_digest() -> None:
    tree = ast.parse((ROOT / "pipeline" / "flow" / "steps.py").read_bytes())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and _ours(node.module or "")]
    origin = {alias.name: node.module or "" for node in imports for alias in node.names}
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    digested = {ast.unparse(node.args[0]) for node in calls if ast.unparse(node.func) == "code_digest"}
    closures = set().union(*(_closure(origin[name]) for name in digested))
    works = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "work"]
    called = {ast.unparse(node.func) for work in works for node in ast.walk(work) if isinstance(node, ast.Call)}
    # This one says what was made, for the steps that follow.
    assert {origin[name] for name in called & origin.keys()} - closures == {"pipeline.flow.data_facts"}


def test_another_version_of_a_library_changes_the_steps_that_import_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from contract import digests as module  # noqa: PLC0415 - its cache is cleared below

    def digest_with(versions: dict[str, str]) -> dict[str, str]:
        monkeypatch.setattr(module, "version", lambda name: versions.get(name, "1.0"))
        module._digest.cache_clear()
        return {step: code_digest(entry) for step, entry in STEPS.items()}

    usual, other_torch, other_duckdb = (digest_with(v) for v in ({}, {"torch": "2.0"}, {"duckdb": "2.0"}))
    module._digest.cache_clear()
    assert {step for step in STEPS if usual[step] != other_torch[step]} == {"train", "export", "publish"}
    assert {step for step in STEPS if usual[step] != other_duckdb[step]} >= {"features"}


def test_a_module_that_is_not_there_is_named() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"features\.nothing"):
        code_digest("features.nothing")


def test_a_digest_depends_on_values_and_not_on_the_order_of_keys() -> None:
    assert digest_of({"a": 1, "b": [2]}) == digest_of({"b": [2], "a": 1})
    assert digest_of({"a": 1}) != digest_of({"a": 2})


def test_a_memo_remembers_the_digest_until_a_byte_changes(copy: Path, tmp_path: Path) -> None:
    memo = tmp_path / "code.json"
    ask = ASK.replace("code_digest(module)", f"code_digest(module, __import__('pathlib').Path({str(memo)!r}))")

    def asked() -> str:
        command = [sys.executable, "-P", "-c", ask, "features.build"]
        environment = {"PYTHONPATH": str(copy)}
        done = subprocess.run(command, cwd=copy, env=environment, check=True, capture_output=True, text=True)
        return str(json.loads(done.stdout)[0])

    first, path = asked(), copy / "features" / "encode" / "encoder.py"
    # Only the memo knows this digest.
    memo.write_text(memo.read_text(encoding="utf-8").replace(first, "f" * 16), encoding="utf-8")
    assert asked() == "f" * 16
    text = path.read_text(encoding="utf-8")
    path.write_text(text + "\nEXTRA = 1\n", encoding="utf-8")
    try:
        assert asked() not in {first, "f" * 16}
    finally:
        path.write_text(text, encoding="utf-8")
    assert asked() == first
    memo.write_text("{", encoding="utf-8")
    assert asked() == first
