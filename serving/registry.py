"""Which models are served, and their replacement while requests are being answered."""

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic import TypeAdapter, ValidationError

from features.errors import ConfigError, ModelNotFoundError, MoerankError
from serving import store as stores
from serving.model import EngineOptions, RankingModel
from serving.score import ScoreConfig

LOG = logging.getLogger("moerank.registry")
_SCORES = TypeAdapter(dict[str, ScoreConfig])


@dataclass(frozen=True)
class Choice:
    """A model to serve; `version` None follows the store's pointer."""

    model: str
    version: int | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """``NAME`` or ``NAME@VERSION``.

        Raises:
            ConfigError: neither of the two.
        """
        name, at, version = text.partition("@")
        stores.require_name(name)
        if at and not (version.isascii() and version.isdigit() and int(version) > 0):
            message = f"{text!r} pins no version: write NAME or NAME@VERSION, such as movies@3"
            raise ConfigError(message)
        return cls(name, int(version) if at else None)


def read_scores(path: Path | None) -> dict[str, ScoreConfig]:
    """Formulas by model name from a JSON file; nothing without a path.

    Raises:
        ConfigError: unreadable, or not ``{"MODEL": {"form": ..., "weights": {"TASK": number}}}``.
    """
    if path is None:
        return {}
    try:
        return _SCORES.validate_json(path.read_bytes())
    except OSError as error:
        message = f"the score file {path} cannot be read: {error.strerror}"
        raise ConfigError(message) from error
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        message = f"the score file {path} is wrong: {problems}"
        raise ConfigError(message) from error


class Registry:
    """The served models. Readers take one reference and never wait; `refresh` replaces references."""

    def __init__(
        self,
        store: Path,
        choices: Sequence[Choice] = (),
        options: EngineOptions | None = None,
        score_file: Path | None = None,
    ) -> None:
        """Load every chosen model, or every model of the store; any failure is fatal here.

        Raises:
            ModelNotFoundError: the store has none, or not the chosen one.
            MoerankError: as `RankingModel.open`.
        """
        self._store = store
        self._choices = tuple(choices)
        self._options = options or EngineOptions()
        self._score_file = score_file
        self._scores = read_scores(score_file)
        self._refused: dict[str, object] = {}
        self._refreshing = threading.Lock()
        chosen = self._wanted()
        if not chosen:
            message = f"the store {store} has no model to serve; publish one first with `moerank publish`"
            raise ModelNotFoundError(message)
        self._models: Mapping[str, RankingModel] = {name: self._open(name, version) for name, version in chosen.items()}

    def get(self, model: str = "", version: int = 0) -> RankingModel:
        """The model that answers; an empty name means the only one, version 0 the current one.

        Raises:
            ModelNotFoundError: it is not served; the message lists what is.
        """
        served = self._models
        if not model and len(served) == 1:
            found = next(iter(served.values()))
        elif model in served:
            found = served[model]
        else:
            asked = f"no model {model!r}" if model else "several models, so name one"
            message = f"this server has {asked}; it serves {', '.join(sorted(served))}"
            raise ModelNotFoundError(message)
        if version not in {0, found.version}:
            message = f"this server has no version {version} of {found.name}; it serves version {found.version}"
            raise ModelNotFoundError(message)
        return found

    def models(self) -> list[RankingModel]:
        """All served models, by name."""
        return [model for _, model in sorted(self._models.items())]

    def refresh(self) -> bool:
        """Load what the store now points at; keep the last good model wherever that fails, and log why.

        Returns:
            Whether anything changed.
        """
        with self._refreshing:
            changed = self._refresh_scores()
            for name, version in self._wanted_or_logged().items():
                serving = self._models.get(name)
                if serving is None or serving.version != version:
                    changed = self._replace(name, version) or changed
            return changed

    def _replace(self, name: str, version: int) -> bool:
        evidence = (version, _manifest_time(self._store, name, version))
        if self._refused.get(name) == evidence:
            return False
        try:
            model = self._open(name, version)
        except MoerankError as error:
            self._refused[name] = evidence
            kept = self._models.get(name)
            last = f"version {kept.version} goes on" if kept else "the model stays absent"
            LOG.error("refused %s version %d (%s): %s; %s", name, version, error.reason, error, last)  # noqa: TRY400 the message says it all
            return False
        self._refused.pop(name, None)
        self._models = {**self._models, name: model}
        LOG.info("serving %s version %d", name, version)
        return True

    def _refresh_scores(self) -> bool:
        try:
            scores = read_scores(self._score_file)
            if scores == self._scores:
                return False
            models = {name: model.with_score(scores.get(name)) for name, model in self._models.items()}
        except ConfigError as error:
            if self._refused.get("") != str(error):
                LOG.error("kept the scores as they were: %s", error)  # noqa: TRY400 the message says it all
            self._refused[""] = str(error)
            return False
        self._scores, self._models = scores, models
        LOG.info("serving with the scores of %s", self._score_file)
        return True

    def _wanted_or_logged(self) -> dict[str, int]:
        try:
            return self._wanted()
        except MoerankError as error:
            LOG.error("cannot read the store, everything goes on as it was: %s", error)  # noqa: TRY400 the message says it all
            return {}

    def _wanted(self) -> dict[str, int]:
        choices = self._choices or [Choice(name) for name in stores.models(self._store)]
        return {c.model: c.version or stores.current(self._store, c.model) for c in choices}

    def _open(self, name: str, version: int) -> RankingModel:
        path = stores.version_path(self._store, name, version)
        return RankingModel.open(path, self._options, self._scores.get(name))


def _manifest_time(store: Path, name: str, version: int) -> int | None:
    """Tells a repaired bundle from the refused one, so that a refused one is not hashed every second."""
    try:
        return (store / name / str(version)).stat().st_mtime_ns
    except OSError:
        return None


class Watcher:
    """A thread that refreshes a registry until it is stopped."""

    def __init__(self, registry: Registry, seconds: float) -> None:
        """Prepare; `start` begins."""
        self._registry = registry
        self._seconds = seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="moerank-watcher", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Stop, after a load that may be under way."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._seconds):
            try:
                self._registry.refresh()
            except Exception:
                # A defect in loading must not end the watch: the server would silently serve an old model for ever.
                LOG.exception("watching the store failed; everything goes on as it was")
