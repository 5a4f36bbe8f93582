"""Which features are looked at alone, and which together."""

from collections import defaultdict

from contract.schema import DenseSpec, Schema


def feature_groups(schema: Schema) -> dict[str, tuple[str, ...]]:
    """Names of features and groups -> their features.

    Each feature is looked at alone, but a vector's numbers only together. Lists of one side are a group, too, as are
    the features of one pair of keys.
    """
    groups: defaultdict[str, list[str]] = defaultdict(list)
    alone: dict[str, tuple[str, ...]] = {}
    for spec in schema.features:
        vector = spec.vector if isinstance(spec, DenseSpec) else ""
        if vector:
            alone[vector] = (*alone.get(vector, ()), spec.name)
        else:
            alone[spec.name] = (spec.name,)
        if spec.kind == "id_list":
            groups[f"all lists of the {spec.side}"].append(spec.name)
        if spec.side == "pair":
            groups[f"all of {' x '.join(spec.keys)}"].append(spec.name)
    return alone | {name: tuple(features) for name, features in groups.items() if len(features) > 1}
