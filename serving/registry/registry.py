"""Which models are served, and their replacement while requests are being answered."""

import difflib
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from contract.errors import ConfigError, IntegrityError, ModelNotFoundError, MoerankError, NoCardError, UnavailableError
from serving.graph.model_graphs import EngineOptions
from serving.graph.served_model import RankingModel
from serving.registry.traffic import Arms
from serving.store.model_selection import ModelSelection, Scores, read_scores
from serving.store.model_source import Source, open_source

LOG = logging.getLogger("moerank.registry")
SCORE_FILE = "the score file"
"""Under which name it is refused."""


class Registry:
    """The served models. Readers take one reference and never wait; `refresh` replaces references."""

    def __init__(
        self,
        store: str | Path | Source,
        selections: Sequence[ModelSelection] = (),
        options: EngineOptions | None = None,
        score_file: Path | None = None,
        traffic_file: Path | None = None,
    ) -> None:
        """Load every chosen model, or every model of the store.

        Of a model whose current version cannot be loaded, the newest older version that verifies is served, and of a
        model without one nothing. It is fatal if no model at all can be served, or not a version that was pinned, or if
        there is no card and one is required.

        Raises:
            ModelNotFoundError: the store has none, or not the chosen one.
            ConfigError: the score file names a model that there is not.
            MoerankError: as `RankingModel.open`.
        """
        self._store = open_source(store) if isinstance(store, str | Path) else store
        self._selections = tuple(selections)
        self._options = options or EngineOptions()
        self._score_file = score_file
        self._scores = read_scores(score_file)
        self.arms = Arms(traffic_file)
        self._refused: dict[str, object] = {}
        self._unloaded: set[str] = set()
        self.swaps = 0
        """How many versions were taken into service after the start."""
        self._refreshing = threading.Lock()
        self.agree: Callable[[str, int], None] = lambda *_: None
        """Called with a model and a version that is about to be served, which waits until it returns."""
        self.changed: Callable[[], None] = lambda: None
        """Called when another set of models, or another version, serves."""
        self._models: Mapping[str, RankingModel] = {}
        selected = self._selections or [ModelSelection(name) for name in self._store.models()]
        if not selected:
            message = f"the store {store} has no model to serve; publish one first with `moerank publish`"
            raise ModelNotFoundError(message)
        self._require_known(self._scores)
        self._models = self._open_all(selected)
        self._refresh_arms()

    def get(self, model: str = "", version: int = 0) -> RankingModel:
        """The model that answers; an empty name means the only one, version 0 the current one.

        Raises:
            ModelNotFoundError: it is not served; the message lists what is.
        """
        served = self._models
        if not model and len(served) == 1:
            current = next(iter(served.values()))
        elif model in served:
            current = served[model]
        else:
            problem = f"no model {model!r}" if model or not served else "several models, so name one"
            message = f"this server has {problem}; it serves {', '.join(sorted(served)) or 'none'}"
            raise ModelNotFoundError(message)
        if version not in {0, current.version}:
            canary = self.arms.canary(current.name, version)
            if canary is not None:
                return canary
            message = f"this server has no version {version} of {current.name}; it serves version {current.version}"
            raise ModelNotFoundError(message)
        return current

    def choose(self, model: str, version: int, key: str) -> tuple[RankingModel, RankingModel | None]:
        """The model that answers a request with this key, and the one to compare its answer with, if any.

        Raises:
            ModelNotFoundError: as `get`.
        """
        current = self.get(model, version)
        answering = current if version else self.arms.answering(current, key)
        return answering, self.arms.shadow(answering, key)

    def arm_of(self, model: RankingModel) -> str:
        """``current``, or ``canary`` for a version beside the current one."""
        current = self._models.get(model.name)
        return "current" if current is None or current.version == model.version else "canary"

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
            for selection in self._listed():
                if selection.model not in self._unloaded:
                    changed = self._follow(selection) or changed
            return self._refresh_arms() or changed

    def load(self, name: str) -> None:
        """Look at the store now for one model, also if it was unloaded: one that is absent begins as at a start.

        Raises:
            ModelNotFoundError: it is not among those to serve.
            UnavailableError: it cannot be loaded.
        """
        with self._refreshing:
            selections = [selection for selection in self._listed() if selection.model == name]
            if not selections:
                message = f"the store has no model {name[:80]!r} that this server may serve"
                raise ModelNotFoundError(message)
            self._unloaded.discard(name)
            self._refused.pop(name, None)
            is_served = name in self._models
            if is_served:
                self._follow(selections[0])
            else:
                self._begin(selections[0])
            if name not in self._models or (is_served and name in self._refused):
                message = f"{name} could not be loaded; the server's log says why"
                raise UnavailableError(message)

    def _begin(self, selection: ModelSelection) -> None:
        """Serve a model that is absent, as at a start; what cannot be served stays refused."""
        name = selection.model
        try:
            model = self._open_newest(selection)
        except MoerankError as error:
            if name not in self._refused:
                self._refuse(name, None, error)
            return
        self._take(name, model)

    def _take(self, name: str, model: RankingModel) -> None:
        self.agree(name, model.version)
        self._serve({**self._models, name: model})
        self.swaps += 1

    def unload(self, name: str) -> None:
        """Stop to serve a model until it is loaded again.

        Raises:
            ModelNotFoundError: it is not served.
        """
        with self._refreshing:
            self.get(name or "(none)")
            self._unloaded.add(name)
            self._serve({other: model for other, model in self._models.items() if other != name})

    def refused(self) -> list[str]:
        """Names of models of which the store has something that cannot be served."""
        return sorted(dict(self._refused))

    def refused_models(self) -> list[str]:
        """As `refused`, without the files and arms that are refused beside models."""
        names = {selection.model for selection in self._listed()}
        return [name for name in self.refused() if name in names]

    def index(self) -> list[tuple[str, int, bool]]:
        """Name, version, and whether it is served, of all versions of the models to serve."""
        served = {(model.name, model.version) for model in self._models.values()}
        names = [selection.model for selection in self._listed()]
        stored = {(name, version) for name in names for version in self._store.versions(name)}
        return [(*key, key in served) for key in sorted(stored | served)]

    def _open_all(self, selected: Sequence[ModelSelection]) -> dict[str, RankingModel]:
        """What can be served at the start."""
        opened: dict[str, RankingModel] = {}
        first: MoerankError | None = None
        for selection in selected:
            try:
                opened[selection.model] = self._open_newest(selection)
            except MoerankError as error:
                first = first or error
                # Without a card nothing else loads either.
                if selection.version is not None or isinstance(error, NoCardError):
                    raise
        if first is not None and not opened:
            raise first
        return opened

    def _open_newest(self, selection: ModelSelection) -> RankingModel:
        """The selected version, or the newest older one that can be loaded, as after a restart beside a broken one."""
        name = selection.model
        if selection.version is not None:
            return self._open(name, selection.version)
        evidence: object = None
        try:
            current = self._store.current(name)
            evidence = self._evidence(name, current)
            return self._open(name, current)
        except NoCardError:
            raise
        except MoerankError as error:
            self._refuse(name, evidence, error, otherwise="older versions are tried")
            failed = error
        for version in reversed(self._store.versions(name)):
            if evidence is not None and version >= current:
                continue
            try:
                model = self._open(name, version)
            except MoerankError as error:
                LOG.warning("cannot serve %s version %d either: %s", name, version, error)
                continue
            LOG.error("serving %s version %d instead, the newest that can be served", name, version)
            return model
        raise failed

    def _evidence(self, name: str, version: int) -> object:
        """What changes when a version is put there anew."""
        return version, self._store.version_path(name, version).stat().st_mtime_ns

    def _require_known(self, scores: Scores) -> None:
        """Refuse a formula for a model that nobody has, which is a misspelt name."""
        known = sorted({selection.model for selection in self._selections} | set(self._store.models()))
        for name in scores.keys() - set(known):
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"
            message = (
                f"the score file {self._score_file} names the model {name!r}, which the store does not have; {hint}"
            )
            raise ConfigError(message)

    def _serve(self, models: Mapping[str, RankingModel]) -> None:
        self._models = models
        self.changed()

    def _follow(self, selection: ModelSelection) -> bool:
        """Serve what the selection now means, if it is something else than before and it can be loaded."""
        name = selection.model
        serving = self._models.get(name)
        evidence: object = None
        try:
            version = selection.version or self._store.current(name)
            if serving is not None and serving.version == version:
                self._refused.pop(name, None)
                return False
            evidence = self._evidence(name, version)
            if self._refused.get(name) == evidence:
                # Nothing has changed since it was refused; do not hash gigabytes every second.
                return False
            model = self._open(name, version)
        except Exception as error:  # noqa: BLE001 after any failure whatever the last good model serves on
            self._refuse(name, evidence, error)
            return False
        self._refused.pop(name, None)
        self._take(name, model)
        kept = 0 if model.held is None else model.held.taken_over
        LOG.info("serving %s version %d; %d arrays of tables are those of the version before", name, version, kept)
        return True

    def _refuse(self, name: str, evidence: object, error: Exception, otherwise: str = "the model stays absent") -> None:
        """Log a failure once, not at every look at the store; what happens `otherwise` than that a version goes on."""
        evidence = evidence or str(error)
        if self._refused.get(name) == evidence:
            return
        self._refused[name] = evidence
        kept = self._models.get(name)
        last = f"version {kept.version} goes on" if kept else otherwise
        trace = None if isinstance(error, MoerankError) else error
        LOG.error("cannot serve what the store has of %s: %s; %s", name, error, last, exc_info=trace)

    def _refresh_scores(self) -> bool:
        try:
            scores = read_scores(self._score_file)
            if scores == self._scores:
                self._refused.pop(SCORE_FILE, None)
                return False
            self._require_known(scores)
            models = {name: model.with_score(scores.get(name)) for name, model in self._models.items()}
            commit_arms = self.arms.rescore(scores)
        except ConfigError as error:
            if self._refused.get(SCORE_FILE) != str(error):
                LOG.error("kept the scores as they were: %s", error)  # noqa: TRY400 the message says it all
            self._refused[SCORE_FILE] = str(error)
            return False
        self._refused.pop(SCORE_FILE, None)
        self._scores, self._models = scores, models
        commit_arms()
        LOG.info("serving with the scores of %s", self._score_file)
        return True

    def _refresh_arms(self) -> bool:
        """Load the canaries and shadows that are wanted; the current version answers alone wherever that fails."""
        try:
            missing = self.arms.read()
        except ConfigError as error:
            self._refuse("the traffic file", str(error), error)
            return False
        self._refused.pop("the traffic file", None)
        changed = False
        for (name, arm), config in missing.items():
            label = f"{name} {arm}"
            evidence: object = None
            try:
                evidence = self._evidence(name, config.version)
                if self._refused.get(label) == evidence:
                    continue
                serving = self._models.get(name)
                same = serving is not None and serving.version == config.version
                self.arms.put((name, arm), serving if same and serving else self._open(name, config.version))
            except Exception as error:  # noqa: BLE001 after any failure whatever the current version answers alone
                self._refuse(label, evidence, error)
                continue
            self._refused.pop(label, None)
            changed = True
            LOG.info("%s version %d is the %s for %.4g of the requests", name, config.version, arm, config.share)
        return changed

    def _listed(self) -> Sequence[ModelSelection]:
        try:
            return self._selections or [ModelSelection(name) for name in self._store.models()]
        except (MoerankError, OSError) as error:
            self._refuse("the store", None, error)
            return ()

    def _open(self, name: str, version: int) -> RankingModel:
        path = self._store.version_path(name, version)
        before = self._models.get(name)
        model = RankingModel.open(path, self._options, self._scores.get(name), before)
        if (model.name, model.version) != (name, version):
            message = (
                f"{path} holds {model.name} version {model.version} by its manifest, so it is not served as {name} "
                f"version {version}; publish the model under this name, or remove the copy"
            )
            raise IntegrityError(message)
        return model
