"""The verb `store`: how much room a project takes."""

from argparse import ArgumentParser, Namespace

from pipeline.cli.verb import Verb, add_config, add_json, respond

_MB, _GB = 10**6, 10**9


def _store_arguments(parser: ArgumentParser) -> None:
    add_config(parser)
    add_json(parser)


def _store(args: Namespace) -> None:
    from pipeline.project import retention  # noqa: PLC0415 - keeps `moerank --help` fast
    from pipeline.project.project_config import read_config  # noqa: PLC0415

    config = read_config(args.config, args.overrides)
    parts, going = retention.sizes(config.parts), retention.outdated(config.parts, config.retention)
    lines = [f"{name:<10} {_size(size):>9}" for name, size in parts.items()]
    lines.append(f"{'all':<10} {_size(sum(parts.values())):>9}")
    lines.append(f"{len(config.parts.runs())} runs; versions {', '.join(map(str, config.parts.versions())) or 'none'}")
    logs = f" and {len(going.logs)} days of the served log" if going.logs else ""
    lines.append(f"`moerank prune` would remove {len(going.runs)} runs and {len(going.versions)} versions{logs}")
    respond(args, {"bytes": parts, **going.as_json()}, lines)


def _size(size: int) -> str:
    """Bytes for a person, in decimal units."""
    return f"{size / _GB:.1f} GB" if size >= _GB else f"{size / _MB:.1f} MB"


VERB = Verb(
    "store",
    "show how much room a project's features, runs and versions take",
    "moerank store shop.yaml",
    _store_arguments,
    _store,
)
