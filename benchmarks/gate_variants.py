"""What `benchmarks.gates` compares: changes to a recipe, by group and name."""

from collections.abc import Sequence

import yaml

BASELINE, AS_IT_STANDS = "softmax", "recipe"
"""A softmax gate in the recipe, and the recipe as it stands: what others are compared with."""
EPOCHS = {"movielens": 3, "kuairand": 1}
"""Of a short run; the recipes train for 8 and 4."""
_STEPS = {"movielens": 78, "kuairand": 113}
"""Of an epoch; schedules are a share of a run's."""
ORDERED = {"movielens": "like", "kuairand": "is_click"}
"""The task whose order within a user is judged as well."""
_HASHED = {"movielens": "item_id", "kuairand": "first_tag"}

Change = dict[str, object]


def _gates(recipe: str, epochs: int) -> dict[str, Change]:
    steps = _STEPS[recipe] * epochs
    late = {"start": 0.1, "end": 1.0, "first_step": steps // 3, "last_step": steps * 9 // 10}
    local_search = {"steps": steps // 2}
    return {
        "softmax": {},
        "top_k": {"k": 2},
        "noisy_top_k": {"k": 2},
        "hash": {"feature": _HASHED[recipe], "assignment": "balanced"},
        "dselect_k": {"k": 2, "entropy": late},
        "comet": {"k": 2, "entropy": late},
        "gumbel": {},
        "dense_to_sparse": {"k": 2, "switch_step": steps // 2, "normalise": True},
        "top_p": {"p": 0.5, "k": 4},
        "top_any": {},
        "mask_moe": {"k": 2, "feature": _HASHED[recipe], "rare": 100},
        "top_k + permutation": {"name": "top_k", "k": 2, "permutation": local_search},
        "comet + permutation": {"name": "comet", "k": 2, "entropy": late, "permutation": local_search},
    }


_OWN_GATES: Change = {"gate_scope": "per_task"}
_WITHIN = ("pairwise", "listwise", "jrc")
_DIN: Change = {"last_items": {"name": "din"}}
_SPARSE: Change = {"name": "dselect_k", "k": 2, "entropy": 1.0}
"""The recipe's own gate, for changes to it."""
_OF_RECIPE: dict[str, dict[str, Change]] = {
    # Of the recipe as it stands: name it as the baseline.
    "parts": {
        "no shared expert": {"architecture": {"name": "mmoe"}},
        "two shared experts": {"architecture": {"name": "mmoe", "shared_experts": 2}},
        "two members": {"members": 2},
        "four members": {"members": 4},
        "expert dropout .1": {"gate": {**_SPARSE, "expert_dropout": 0.1}},
        "recipe + ppnet": {"personal_gates": {"by": ["user_id", "item_id"]}},
        "recipe + din": {"sequences": _DIN},
        "recipe + aw_moe": {"sequences": _DIN, "routing": "history", "history_contrast": {}},
        "aw_moe without contrast": {"sequences": _DIN, "routing": "history"},
        "monotone in the film's means": {
            "monotone": {"item_id__like_mean": "increasing", "item_id__rating_mean": "increasing"}
        },
    },
    "losses": {
        **{f"{name} .3": {"train.within_user": {"like": {"name": name, "weight": 0.3}}} for name in _WITHIN},
        "batches by user": {"train.batches": "by_user"},
        "raw losses": {"train.loss_scale": "none"},
        "focal": {"train.losses": {"like": {"name": "focal"}}},
        "class weight 2": {"train.losses": {"like": {"name": "cross_entropy", "positive_weight": 2.0}}},
        "huber": {"train.losses": {"rating": {"name": "huber"}}},
        "median": {"train.losses": {"rating": {"name": "quantile", "quantile": 0.5}}},
    },
}
_OTHERS: dict[str, dict[str, Change]] = {
    "norm": {"norm none": {"norm": "none"}, "norm layer": {"norm": "layer"}},
    # As many experts for each task as MMoE's 8: its own and the shared ones.
    "architectures": {
        "shared_bottom": {"architecture": {"name": "shared_bottom"}, "gate": {"name": "dselect_k"}},
        "cgc": {"architecture": {"name": "cgc"}, **_OWN_GATES, "experts": 7},
        "ple": {"architecture": {"name": "ple", "levels": 2}, **_OWN_GATES, "experts": 7},
        "home": {"architecture": {"name": "home"}, **_OWN_GATES, "experts": 6},
    },
    # Of recipes with a history that shares the item's embedding: MovieLens.
    "histories": {
        "din": {"sequences": _DIN},
        "sim": {"sequences": {"last_items": {"name": "sim", "search": "last_items"}}},
        "aw_moe": {"sequences": _DIN, "routing": "history", "history_contrast": {}},
    },
    # Of recipes with these ids as features: MovieLens.
    "personal": {
        "ppnet": {"personal_gates": {"by": ["user_id", "item_id"]}},
        "epnet": {"interaction": {"name": "epnet", "by": ["occupation"]}},
        # Eight columns for each task and eight shared ones, and as many experts as MMoE's 8.
        "stem": {"architecture": {"name": "stem"}, **_OWN_GATES, "embedding_dim": 24, "experts": 6},
    },
    "interactions": {"dcn_v2": {"interaction": {"name": "dcn_v2"}}, "autoint": {"interaction": {"name": "autoint"}}},
    "weightings": {name: {"train.weighting": {"name": name}} for name in ("uncertainty", "gradnorm", "pcgrad")},
}

GROUPS: dict[str, list[str]] = {
    "gates": list(_gates("movielens", 1)),
    **{group: list(variants) for group, variants in {**_OTHERS, **_OF_RECIPE}.items()},
}
"""The variants of each group."""


def baseline(groups: Sequence[str]) -> str:
    """What the variants of groups are compared with: the recipe, where all of them are changes to it alone."""
    return AS_IT_STANDS if set(groups) <= set(_OF_RECIPE) else BASELINE


def overrides(recipe: str, variant: str, seed: int, epochs: int) -> list[str]:
    """The changes of a variant as the command line writes them."""
    gates = _gates(recipe, epochs)
    of_recipe: dict[str, Change] = {AS_IT_STANDS: {}}
    for variants in _OF_RECIPE.values():
        of_recipe |= variants
    change: Change = {"gate": {"name": variant, **gates[variant]}} if variant in gates else {"gate": {"name": BASELINE}}
    for variants in _OTHERS.values():
        change |= variants.get(variant, {})
    change = of_recipe.get(variant, change)
    places = {name if "." in name else f"model.{name}": value for name, value in change.items()}
    places |= {"train.seed": seed, "train.epochs": epochs, "train.early_stopping": None}
    if variant in of_recipe:
        # It stops nothing: the last epoch is judged, and the order within a user too.
        metric = f"{ORDERED[recipe]}.gauc"
        places["train.early_stopping"] = {"metric": metric, "patience": epochs}
    return [f"{place}={_flow(value)}" for place, value in places.items()]


def _flow(value: object) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("...\n").strip()
