"""Checks of paths that a person typed, before anything is loaded: the message says what belongs there."""

from pathlib import Path

from contract.errors import ConfigError

GRAPH_FILE, POINTER_FILE, CONFIG_FILE = "model.onnx", "current", "config.yaml"


def existing(path: Path, what: str) -> Path:
    """The path, if something is there.

    Raises:
        ConfigError: there is nothing.
    """
    if not path.exists():
        message = f"{what}: there is nothing at {path} (relative paths start at {Path.cwd()})"
        raise ConfigError(message)
    return path


def new_file(path: Path, what: str) -> Path:
    """The path, if a file can be written there; it may replace one.

    Raises:
        ConfigError: it is a directory, or in none.
    """
    if path.is_dir():
        message = f"{what}: {path} is a directory; name a file"
        raise ConfigError(message)
    if not path.parent.is_dir():
        message = f"{what}: there is no directory {path.parent} to write {path.name} in; make it, or name another place"
        raise ConfigError(message)
    return path


def new_directory(path: Path, what: str) -> Path:
    """The path, if a directory can be made there, or is there.

    Raises:
        ConfigError: it is a file, or below one.
    """
    taken = next((place for place in (path, *path.parents) if place.exists()), path)
    if taken.is_file():
        message = f"{what}: {taken} is a file where a directory belongs; name another place"
        raise ConfigError(message)
    return path


def encoded_rows(path: Path, what: str) -> Path:
    """The path, if a dataset directory or a Parquet file is there.

    Raises:
        ConfigError: there is nothing; a split that was a file once is named as the directory that it is.
    """
    from contract.dataset import split_directory  # noqa: PLC0415 - keeps `moerank --help` fast

    directory = split_directory(path)
    if directory is not None:
        message = f"{what}: there is nothing at {path}: encoded rows are a directory of parts; use {directory}"
        raise ConfigError(message)
    return existing(path, what)


def a_bundle(path: Path) -> Path:
    """The path, if it is a published version or an exported run; a file is taken for what it is.

    Raises:
        ConfigError: there is nothing, or a directory without a graph.
    """
    if existing(path, "BUNDLE").is_file() or (path / GRAPH_FILE).exists():
        return path
    pointer = path / POINTER_FILE
    hint = f"its current version is {path / pointer.read_text('utf-8').strip()}" if pointer.is_file() else (
        "a bundle is a directory such as runs/NAME/store/NAME/1"
    )  # fmt: skip
    message = f"{path} is not a bundle, it has no {GRAPH_FILE}; {hint}"
    raise ConfigError(message)


def a_run(path: Path) -> Path:
    """The path, if it is a training run.

    Raises:
        ConfigError: it is not.
    """
    if not (existing(path, "RUN") / CONFIG_FILE).exists():
        message = f"{path} is not a training run, it has no {CONFIG_FILE}; a run is a directory runs/NAME/training/RUN"
        raise ConfigError(message)
    return path
