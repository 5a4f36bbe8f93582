"""The control groups around this process, as containers have them, of either version."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple


class ControlGroup(NamedTuple):
    """A group's directory, and the version that names its files."""

    directory: Path
    version: Literal[1, 2]

    def words(self, name: str) -> list[str]:
        """What one of its files says; nothing where it has none."""
        try:
            return (self.directory / name).read_text(encoding="utf-8").split()
        except OSError:
            return []

    def number(self, name: str) -> int | None:
        """The number in one of its files; None where it says ``max`` or less than 0."""
        words = self.words(name)
        return int(words[0]) if words and words[0].isdigit() else None


def groups_around(controller: str, root: Path = Path("/")) -> Iterator[ControlGroup]:
    """This process's group of a controller, such as ``memory``, and all that it lies in, the innermost first.

    Args:
        controller: As the first version names it.
        root: Where ``/proc`` and ``/sys`` stand.
    """
    membership = root / "proc/self/cgroup"
    for line in membership.read_text(encoding="utf-8").splitlines() if membership.is_file() else ():
        _, controllers, path = line.split(":", 2)
        version: Literal[1, 2] = 1 if controllers else 2
        if controllers and controller not in controllers.split(","):
            continue
        mount = root / "sys/fs/cgroup" / (controller if controllers else "")
        own = mount / path.strip("/")
        # Within a container the path may be the host's, which cannot be seen: the mount itself is the group then.
        for group in (own, *own.parents):
            yield ControlGroup(group, version)
            if group == mount:
                break
