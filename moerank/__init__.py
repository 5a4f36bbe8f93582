"""What programs import of moerank; everything else may move between versions.

Names are imported when they are first used, so that a backend that only asks a server loads neither torch nor Prefect.

Example:
    >>> import moerank
    >>> client = moerank.RankingClient("127.0.0.1:50051")
    >>> client.close()
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from contract.errors import (
        AuthenticationError,
        ConfigError,
        DataError,
        DeadlineError,
        ExportError,
        IntegrityError,
        ModelNotFoundError,
        MoerankError,
        NotAllowedError,
        OverloadedError,
        PredictionError,
        QualityGateError,
        RequestError,
        SchemaMismatchError,
        TrainingError,
        UnavailableError,
    )
    from contract.schema import Schema
    from contract.score import ScoreConfig
    from features.batches import BatchReader
    from features.build import build as build_features
    from models.export.exporter import export
    from models.ranker import Ranker
    from pipeline.evaluation.comparing.compare import compare
    from pipeline.evaluation.evaluate import evaluate
    from pipeline.project.project_config import read_config
    from pipeline.training.train import train
    from serving.client.aio_client import AsyncRankingClient
    from serving.client.blocking_client import RankingClient
    from serving.client.client_response import RankResult
    from serving.graph.engine import Engine
    from serving.graph.served_model import RankingModel
    from serving.grpc_server.server import start as start_server
    from serving.grpc_server.server_settings import ServerSettings
    from serving.store.bundle import load as open_bundle
    from serving.store.bundle import publish

__all__ = [
    "AsyncRankingClient",
    "AuthenticationError",
    "BatchReader",
    "ConfigError",
    "DataError",
    "DeadlineError",
    "Engine",
    "ExportError",
    "IntegrityError",
    "ModelNotFoundError",
    "MoerankError",
    "NotAllowedError",
    "OverloadedError",
    "PredictionError",
    "QualityGateError",
    "RankResult",
    "Ranker",
    "RankingClient",
    "RankingModel",
    "RequestError",
    "Schema",
    "SchemaMismatchError",
    "ScoreConfig",
    "ServerSettings",
    "TrainingError",
    "UnavailableError",
    "build_features",
    "compare",
    "evaluate",
    "export",
    "open_bundle",
    "publish",
    "read_config",
    "start_server",
    "train",
]
__version__ = version("moerank")

_PLACES = {
    "AsyncRankingClient": "serving.client.aio_client",
    "BatchReader": "features.batches",
    "Engine": "serving.graph.engine",
    "RankResult": "serving.client.client_response",
    "Ranker": "models.ranker",
    "RankingClient": "serving.client.blocking_client",
    "RankingModel": "serving.graph.served_model",
    "Schema": "contract.schema",
    "ScoreConfig": "contract.score",
    "ServerSettings": "serving.grpc_server.server_settings",
    "build_features": "features.build:build",
    "compare": "pipeline.evaluation.comparing.compare",
    "evaluate": "pipeline.evaluation.evaluate",
    "export": "models.export.exporter",
    "open_bundle": "serving.store.bundle:load",
    "publish": "serving.store.bundle",
    "read_config": "pipeline.project.project_config",
    "start_server": "serving.grpc_server.server:start",
    "train": "pipeline.training.train",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        message = f"moerank offers no {name!r}; it offers {', '.join(__all__)}"
        raise AttributeError(message)
    module, _, original = _PLACES.get(name, "contract.errors").partition(":")
    exported = getattr(import_module(module), original or name)
    globals()[name] = exported
    return exported


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
