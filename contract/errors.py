"""The one exception tree, and the one table from a cause to exit code and gRPC status.

Every error a user can meet is a leaf of `MoerankError`. A leaf states, as class attributes, the exit code of
the command line, the gRPC status name and a stable machine-readable reason; its message says what was wrong, the
value seen, what is allowed and what to do.
"""

from typing import ClassVar


class MoerankError(Exception):
    """Base of all expected failures; anything else that is raised is a defect."""

    exit_code: ClassVar[int] = 1
    grpc_status: ClassVar[str] = "INTERNAL"
    reason: ClassVar[str] = "INTERNAL"
    request_id: str = ""
    """Of an error that a server answered: the id under which its log has it."""


class ConfigError(MoerankError):
    """A configuration or a command line that cannot be used."""

    exit_code = 2
    grpc_status = "FAILED_PRECONDITION"
    reason = "CONFIG_INVALID"


class NoCardError(ConfigError):
    """A card that was asked for and is not used, whichever model is to be served."""


class DataError(MoerankError):
    """Input data that cannot be used: a missing column, a wrong type, an empty table, a one-class label."""

    grpc_status = "FAILED_PRECONDITION"
    reason = "DATA_INVALID"


class SchemaMismatchError(MoerankError):
    """Two artefacts that disagree on the schema fingerprint."""

    grpc_status = "FAILED_PRECONDITION"
    reason = "SCHEMA_MISMATCH"


class IntegrityError(MoerankError):
    """A file whose content is not what its manifest promises."""

    grpc_status = "DATA_LOSS"
    reason = "BUNDLE_CORRUPT"


class ExportError(MoerankError):
    """A model that cannot be exported, or whose graph does not answer as the eager model does."""

    reason = "EXPORT_FAILED"


class TrainingError(MoerankError):
    """Training that cannot go on, such as a loss that is not finite."""

    reason = "TRAINING_FAILED"


class LostRankError(TrainingError):
    """Another rank of the job has ended, without which training cannot go on."""

    reason = "RANK_LOST"


class QualityGateError(MoerankError):
    """A model that is worse than the configured gate allows; nothing was published."""

    exit_code = 3
    grpc_status = "FAILED_PRECONDITION"
    reason = "QUALITY_GATE"


class AlarmError(MoerankError):
    """A day of a published model that breaks a rule of `monitor`, or a drift beyond its threshold."""

    exit_code = 4
    grpc_status = "FAILED_PRECONDITION"
    reason = "ALARM"


class ModelNotFoundError(MoerankError):
    """A model name or version that the store or the server does not have."""

    grpc_status = "NOT_FOUND"
    reason = "MODEL_NOT_FOUND"


class UnavailableError(MoerankError):
    """A server that cannot be reached or is not ready."""

    grpc_status = "UNAVAILABLE"
    reason = "UNAVAILABLE"


class ServerError(MoerankError):
    """A server that failed on a request, or does not know what is asked of it; its log says why."""

    reason = "SERVER_FAILED"


class RequestError(MoerankError):
    """A request that cannot be answered; `field` names the part that is wrong."""

    exit_code = 2
    grpc_status = "INVALID_ARGUMENT"
    reason = "REQUEST_INVALID"

    def __init__(self, message: str, *, field: str) -> None:
        """Keep the path of the offending field, such as ``context.tab``, for the client."""
        super().__init__(message)
        self.field = field


class PredictionError(MoerankError):
    """A model that answered with something that is not a prediction, such as a NaN."""

    reason = "PREDICTION_INVALID"


class OverloadedError(MoerankError):
    """A request that the server refused because it has as much work as it can finish in time."""

    grpc_status = "RESOURCE_EXHAUSTED"
    reason = "OVERLOADED"


class DeadlineError(MoerankError):
    """A request whose deadline passed before an answer was ready."""

    grpc_status = "DEADLINE_EXCEEDED"
    reason = "DEADLINE_EXCEEDED"


class AuthenticationError(MoerankError):
    """A caller that did not prove who it is."""

    grpc_status = "UNAUTHENTICATED"
    reason = "UNAUTHENTICATED"


class NotAllowedError(MoerankError):
    """A caller that may not do what it asks for."""

    grpc_status = "PERMISSION_DENIED"
    reason = "NOT_ALLOWED"


def raised_elsewhere(reason: str, message: str, default: type[MoerankError]) -> MoerankError:
    """What another process raised and told by its reason; `default` for a reason that is none of these.

    Example:
        >>> raised_elsewhere("DATA_INVALID", "no rows", PredictionError)
        DataError('no rows')
    """
    leaf = next((each for each in MoerankError.__subclasses__() if each.reason == reason), default)
    return leaf(message)
