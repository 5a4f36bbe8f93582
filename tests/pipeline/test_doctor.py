"""What `moerank doctor` finds."""

import socket
from pathlib import Path

import pytest

from pipeline import doctor


def by_subject(findings: list[doctor.Check], subject: str) -> doctor.Check:
    return next(finding for finding in findings if finding.subject == subject)


def pretend_installed(directory: Path, name: str, version: str) -> None:
    """Put a distribution's metadata onto the path, as a second build of a library would."""
    info = directory / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")


@pytest.mark.slow
def test_this_machine_has_no_problem_and_every_other_finding_has_advice(tmp_path: Path) -> None:
    findings = doctor.examine(tmp_path / "not" / "yet")
    problems = [finding for finding in findings if finding.status == "problem"]
    assert problems == []
    assert all(finding.advice for finding in findings if finding.status != "ok")
    assert by_subject(findings, "torch and fbgemm").status == "ok"
    assert doctor.as_json(findings)["healthy"] is True


def test_a_session_says_which_providers_it_really_got() -> None:
    offered, got = doctor.session_providers()
    assert "CPUExecutionProvider" in got
    assert set(got) <= set(offered)


def test_both_builds_of_onnxruntime_are_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = "onnxruntime" if doctor.version("onnxruntime-gpu") else "onnxruntime-gpu"
    pretend_installed(tmp_path, other, "1.0")
    monkeypatch.syspath_prepend(str(tmp_path))
    (finding,) = doctor._onnxruntime()
    assert finding.status == "problem"
    assert "onnxruntime-gpu" in finding.found
    assert "make clean" in finding.advice


def test_an_untested_pair_of_torch_and_fbgemm_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "TESTED_PAIRS", {"1.0.0": "0.1.0"})
    (finding,) = doctor._torch_pair()
    assert finding.status == "warning"
    assert "tested is torch 1.0.0 with fbgemm 0.1.0" in finding.advice


def test_an_import_that_fails_is_told_in_one_line() -> None:
    assert doctor._import_failure("import no_such_library") == "ModuleNotFoundError: No module named 'no_such_library'"
    assert doctor._import_failure("import os; os.abort()") == "the import ended with code -6"


def test_a_taken_port_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setattr(doctor, "PORTS", {listener.getsockname()[1]: "a test"})
        (finding,) = doctor._ports()
    assert finding.status == "warning"
    assert "is taken" in finding.found


def test_too_little_disk_is_a_warning_with_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LEAST_DISK_GB", 1e9)
    (finding,) = doctor._disk(tmp_path)
    assert (finding.status, bool(finding.advice)) == ("warning", True)
    assert doctor.healthy([finding])
