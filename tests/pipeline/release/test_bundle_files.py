"""A version holds what its export finished."""

from pathlib import Path

from pipeline.release.publish_run import bundle_files


def test_a_half_written_file_of_a_killed_export_is_not_published(tmp_path: Path) -> None:
    for name in ("model.onnx", ".model.onnx-watched", "step.json", "online/user.npy", "online/.user.npy.tmp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = {path.relative_to(tmp_path).as_posix() for path in bundle_files(tmp_path)}
    assert found == {"model.onnx", "online/user.npy"}
