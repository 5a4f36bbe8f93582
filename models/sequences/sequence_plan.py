"""Which lists and features of a schema an attended history reads, and the columns that it adds to the input matrix.

Shape legend: B rows, S slots.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from contract.errors import ConfigError
from contract.schema import IdSpec, Schema
from models.input_layout import FeatureColumns, TableDims, feature_columns
from models.sequences.sequence_settings import Attention, SequenceSettings

ATTENDED = "attended "
"""Before a history's name: that of the columns which attention makes of it."""


@dataclass(frozen=True)
class SequencePlan:
    """The lists of an attended history, those with a counterpart of the candidate first.

    `targets` are the counterparts, one for each of the first lists. `searched` is the place of the list of which only
    values that equal their counterpart are attended; None: all events are.
    """

    name: str
    settings: SequenceSettings
    lists: tuple[IdSpec, ...]
    targets: tuple[IdSpec, ...]
    main: int
    searched: int | None

    @property
    def slots(self) -> int:
        """How many events are attended at most."""
        held = self.lists[self.main].max_length
        return held if self.settings.last is None else min(held, self.settings.last)

    def outputs(self, dims: TableDims) -> int:
        """How many columns attention answers, embeddings having the widths `dims`."""
        return self.settings.outputs(sum(map(dims.of, self.lists)))

    def attention(self, dims: TableDims) -> Attention:
        """The module that attends."""
        return self.settings.build(sum(map(dims.of, self.lists)), sum(map(dims.of, self.targets)))

    def matches(self, ids_BS: Tensor, candidate_B: Tensor) -> Tensor:
        """Which of a searched list's ids [B, S] are the candidate's own; the unknown is like nobody."""
        assert self.searched is not None  # noqa: S101 the caller asks; this tells the type checker
        spec = self.targets[self.searched]
        known_B = candidate_B > spec.null_row + spec.unknown_rows
        return (ids_BS == candidate_B.unsqueeze(1)) & known_B.unsqueeze(1)


def plan_sequences(schema: Schema, sequences: Mapping[str, SequenceSettings]) -> tuple[SequencePlan, ...]:
    """Look the lists and features up that the settings name.

    Raises:
        ConfigError: one that the schema does not have where it is needed, or whose embedding is not shared.
    """
    return tuple(_plan(schema, name, settings) for name, settings in sequences.items())


def network_columns(schema: Schema, dims: TableDims, sequences: Mapping[str, SequenceSettings]) -> list[FeatureColumns]:
    """Every feature with its columns of the input matrix, and behind them what attention makes of each history."""
    features = feature_columns(schema, dims)
    first = sum(len(feature.columns) for feature in features)
    for plan in plan_sequences(schema, sequences):
        width = plan.outputs(dims)
        spec = plan.lists[plan.main].model_copy(update={"name": f"{ATTENDED}{plan.name}", "side": "pair"})
        features.append(FeatureColumns(spec, tuple(range(first, first + width))))
        first += width
    return features


def _plan(schema: Schema, name: str, settings: SequenceSettings) -> SequencePlan:
    main = _list(schema, name, f"model.sequences names {name!r}")
    pairs: list[tuple[IdSpec, str | None]] = [(main, settings.target or main.table_name)]
    pairs += [(_list(schema, each, _where(name, "beside")), target) for each, target in settings.beside.items()]
    compared = [(spec, _target(schema, name, spec, target)) for spec, target in pairs if target is not None]
    lists = [*(spec for spec, _ in compared), *(spec for spec, target in pairs if target is None)]
    return SequencePlan(
        name=name,
        settings=settings,
        lists=tuple(lists),
        targets=tuple(target for _, target in compared),
        main=lists.index(main),
        searched=_searched(name, settings, [spec.name for spec, _ in compared]),
    )


def _searched(name: str, settings: SequenceSettings, compared: list[str]) -> int | None:
    if settings.search_by is None:
        return None
    if settings.search_by not in compared:
        message = (
            f"{_where(name, 'search')} is {settings.search_by!r}; it must be a list that has a counterpart of the "
            f"candidate: {', '.join(compared)}"
        )
        raise ConfigError(message)
    return compared.index(settings.search_by)


def _list(schema: Schema, name: str, what: str) -> IdSpec:
    known = {spec.name: spec for spec in schema.request.lists}
    if name not in known:
        message = f"{what}, which is not a list of the user or the context; these are: {', '.join(known) or 'none'}"
        raise ConfigError(message)
    return known[name]


def _target(schema: Schema, name: str, spec: IdSpec, target: str) -> IdSpec:
    known = {each.name: each for each in schema.candidate.ids}
    if target not in known:
        message = (
            f"{_where(name, 'target')}: {spec.name} is to be compared with {target!r}, which is not an id feature of "
            f"the candidate; these are: {', '.join(known) or 'none'}"
        )
        raise ConfigError(message)
    if known[target].table_name != spec.table_name:
        message = (
            f"{_where(name, 'target')}: {spec.name} has embeddings of {spec.table_name}, {target} those of "
            f"{known[target].table_name}; let the history share them (`shares: {target}`)"
        )
        raise ConfigError(message)
    return known[target]


def _where(name: str, key: str) -> str:
    return f"model.sequences.{name}.{key}"
