"""Columns of the input matrix that the towers read beside their mixtures.

Shape legend: B rows, P columns of personal gates, C components of monotone features.
"""

from typing import Annotated, Literal, NamedTuple

from pydantic import Field
from torch import Tensor

from contract.errors import ConfigError
from contract.schema import DenseSpec
from contract.settings import Settings
from models.input_layout import FeatureColumns, columns_of

Direction = Literal["increasing", "decreasing"]


class PersonalGatesConfig(Settings):
    """Gates by some features on the layers of every tower."""

    by: Annotated[tuple[str, ...], Field(min_length=1)]
    """The features that tell who and what the row is about, such as the ids of user, item and author."""
    hidden: Annotated[int, Field(ge=1)] = 32
    """Hidden units of each task's gate."""


class SideColumns(NamedTuple):
    """Where the columns stand: `personal`, and the components of `monotone` features.

    Each component's `signs` are positive where answers rise with it, and all of a feature's together 1 or -1: many bins
    are to weigh no more than one number.
    """

    personal: tuple[int, ...] = ()
    monotone: tuple[int, ...] = ()
    signs: tuple[float, ...] = ()


NO_SIDE = SideColumns()


class SideInput(NamedTuple):
    """The columns of some rows, empty where none are read."""

    personal_BP: Tensor
    monotone_BC: Tensor


def side_columns(
    features: list[FeatureColumns], personal: PersonalGatesConfig | None, monotone: dict[str, Direction]
) -> SideColumns:
    """Find the columns by the features' names.

    Raises:
        ConfigError: a name that is not a feature, or a monotone feature that is not a single number.
    """
    by = () if personal is None else columns_of(features, personal.by, "model.personal_gates.by")
    signs: dict[int, float] = {}
    for name, direction in monotone.items():
        spec = _number(features, name)
        # The mark of a null is not a component of the number: the experts see it.
        columns = columns_of(features, (name,), "model.monotone")[: max(spec.bins, 1)]
        signs |= dict.fromkeys(columns, (1.0 if direction == "increasing" else -1.0) / len(columns))
    return SideColumns(tuple(by), tuple(signs), tuple(signs.values()))


def _number(features: list[FeatureColumns], name: str) -> DenseSpec:
    specs = [each.spec for each in features if each.spec.name == name and isinstance(each.spec, DenseSpec)]
    if len(specs) != 1 or specs[0].vector:
        known = sorted({e.spec.name for e in features if isinstance(e.spec, DenseSpec) and not e.spec.vector})
        message = (
            f"model.monotone names {name!r}, which is not a dense feature; there are: {', '.join(known) or 'none'}"
        )
        raise ConfigError(message)
    return specs[0]
