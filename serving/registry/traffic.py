"""Which share of the requests another version answers (canary), and for which share it is only compared (shadow)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import Field, TypeAdapter, ValidationError

from contract.errors import ConfigError
from contract.hashing import hash_text
from contract.settings import Settings, problems_of
from serving.graph.served_model import RankingModel
from serving.store.model_selection import Scores

ArmName = Literal["canary", "shadow"]
ARMS: tuple[ArmName, ...] = ("canary", "shadow")


class ArmConfig(Settings):
    """A version beside the current one, and its share of the request keys, 0 to 1."""

    version: int = Field(ge=1)
    share: float = Field(ge=0, le=1)


class TrafficConfig(Settings):
    """What stands beside a model's current version."""

    canary: ArmConfig | None = None
    shadow: ArmConfig | None = None


_CONFIGS = TypeAdapter(dict[str, TrafficConfig])
ArmConfigs = dict[tuple[str, ArmName], ArmConfig]


def read_traffic(path: Path | None) -> ArmConfigs:
    """Arms by model name and kind from a JSON file; nothing without a path.

    Raises:
        ConfigError: unreadable, or not ``{"MODEL": {"canary": {"version": 4, "share": 0.05}, "shadow": ...}}``.
    """
    if path is None:
        return {}
    try:
        configs = _CONFIGS.validate_json(path.read_bytes())
    except OSError as error:
        message = f"the traffic file {path} cannot be read: {error.strerror}"
        raise ConfigError(message) from error
    except ValidationError as error:
        message = f"the traffic file {path} is wrong: {problems_of(error)}"
        raise ConfigError(message) from error
    pairs = ((model, arm, getattr(config, arm)) for model, config in configs.items() for arm in ARMS)
    return {(model, arm): config for model, arm, config in pairs if config is not None}


def falls_in(share: float, model: str, arm: ArmName, key: str) -> bool:
    """Whether a request key belongs to an arm: the same on every replica, and growing shares keep their keys."""
    return hash_text(f"{model}\0{arm}\0{key}") < share * 2**64


@dataclass(frozen=True)
class Arm:
    """A loaded version and its share."""

    share: float
    model: RankingModel


class Arms:
    """The loaded canaries and shadows. Readers take one reference and never wait, as with the registry."""

    def __init__(self, path: Path | None) -> None:
        """Read what the file names; `refresh` loads it.

        Raises:
            ConfigError: as `read_traffic`.
        """
        self._path = path
        self._configs: ArmConfigs = {}
        self._loaded: Mapping[tuple[str, ArmName], Arm] = {}
        read_traffic(path)

    def answering(self, primary: RankingModel, key: str) -> RankingModel:
        """The canary for its share of the keys, else the current version."""
        arm = self._loaded.get((primary.name, "canary"))
        return arm.model if arm is not None and falls_in(arm.share, primary.name, "canary", key) else primary

    def shadow(self, answering: RankingModel, key: str) -> RankingModel | None:
        """The version to compare an answer with, if any."""
        arm = self._loaded.get((answering.name, "shadow"))
        if arm is None or arm.model.version == answering.version:
            return None
        return arm.model if falls_in(arm.share, answering.name, "shadow", key) else None

    def canary(self, model: str, version: int) -> RankingModel | None:
        """The canary of a model if it has this version, for callers who name a version."""
        arm = self._loaded.get((model, "canary"))
        return arm.model if arm is not None and arm.model.version == version else None

    def loaded(self) -> dict[tuple[str, ArmName], Arm]:
        """All arms by model and kind."""
        return dict(self._loaded)

    def rescore(self, scores: Scores) -> Callable[[], None]:
        """Bind the arms to other formulas; the result puts them into service.

        Raises:
            ConfigError: a formula does not fit an arm's tasks.
        """
        models = {
            key: replace(arm, model=arm.model.with_score(scores.get(key[0]))) for key, arm in self._loaded.items()
        }

        def commit() -> None:
            self._loaded = models

        return commit

    def read(self) -> ArmConfigs:
        """Look at the file again; arms that the file no longer names go out of service at once.

        Raises:
            ConfigError: as `read_traffic`; everything stays as it was.
        """
        configs = read_traffic(self._path)
        if configs != self._configs:
            self._configs = configs
            kept = {key: arm for key, arm in self._loaded.items() if key in configs}
            self._loaded = {
                key: replace(arm, share=configs[key].share)
                for key, arm in kept.items()
                if arm.model.version == configs[key].version
            }
        return {key: config for key, config in configs.items() if key not in self._loaded}

    def put(self, key: tuple[str, ArmName], model: RankingModel) -> None:
        """Take a version that the file names into service."""
        self._loaded = {**self._loaded, key: Arm(self._configs[key].share, model)}
