"""What made a model: the code's revision and the libraries' versions."""

import subprocess
from importlib import metadata
from pathlib import Path

LIBRARIES = ("moerank", "torch", "torchrec", "onnx", "onnxruntime", "numpy")


def library_versions() -> dict[str, str]:
    """The versions that made the model."""
    return {name: metadata.version(name) for name in LIBRARIES}


def git_revision() -> str:
    """The commit of the code, with ``+`` where files differ from it; empty outside a repository."""
    root = Path(__file__).parent.parent
    try:
        run = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"],  # noqa: S607 - the user's git
            cwd=root,
            check=False,
            capture_output=True,
            text=True,
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return run.stdout.strip() if run.returncode == 0 else ""
