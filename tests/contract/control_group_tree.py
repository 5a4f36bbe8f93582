"""What a process in a container sees of its control groups."""

from pathlib import Path


def machine(root: Path, membership: str, **files: str) -> Path:
    """A tree like ``/`` of a process with this ``/proc/self/cgroup``; `files` by path below ``sys/fs/cgroup``."""
    for name, text in ({"proc/self/cgroup": membership} | {f"sys/fs/cgroup/{k}": v for k, v in files.items()}).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root
