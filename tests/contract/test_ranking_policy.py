"""Formulas have names, requests choose among them, and what does not fit is refused."""

import pytest
from pydantic import ValidationError

from contract.errors import ConfigError, RequestError
from contract.ranking_policy import BoundPolicy, RankingPolicy, require_context
from contract.schema import TaskSpec
from contract.score import ScoreConfig

TASKS = [TaskSpec(name="like", kind="binary"), TaskSpec(name="stay", kind="regression")]
BOTH = {"like": {"weights": {"like": 1.0}}, "stay": {"weights": {"stay": 2.0}}}


def policy(**changes: object) -> RankingPolicy:
    return RankingPolicy.model_validate({"formulas": BOTH, "default": "like", **changes})


def test_a_request_takes_the_formula_that_it_names_then_that_of_its_surface_then_the_default() -> None:
    bound = BoundPolicy(policy(by={"surface": {"home": "stay"}}), TASKS)
    assert bound.name_for({}) == "like"
    assert bound.name_for({"surface": "search"}) == "like"
    assert bound.name_for({"surface": "home"}) == "stay"
    assert bound.name_for({"surface": "home"}, "like") == "like"


def test_a_single_formula_is_a_policy_named_default() -> None:
    bound = BoundPolicy(ScoreConfig(weights={"stay": 1.0}), TASKS)
    assert (bound.name_for({}), str(bound.default.config)) == ("default", "1 * stay")
    assert str(BoundPolicy(None, TASKS).default.config) == "1 * like"


def test_a_formula_that_a_request_misspells_is_refused_with_those_there_are() -> None:
    with pytest.raises(RequestError, match=r"no score formula 'lik'; allowed are: like, stay") as refused:
        BoundPolicy(policy(), TASKS).name_for({}, "lik")
    assert refused.value.field == "score"


def test_a_policy_that_names_no_formula_is_refused() -> None:
    with pytest.raises(ValidationError, match="no formula watch; there are like, stay"):
        policy(by={"surface": {"home": "watch"}})


def test_a_policy_that_chooses_by_what_no_context_holds_is_refused() -> None:
    chosen = policy(by={"tabs": {"home": "stay"}})
    with pytest.raises(ConfigError, match="'tabs', which no request has in its context; allowed are: surface, tab"):
        require_context(chosen, {"tab", "surface"})
    require_context(chosen, {"tabs"})
    require_context(None, set())


def test_a_formula_of_a_task_that_there_is_not_is_refused_by_its_name() -> None:
    wrong = RankingPolicy.model_validate({"formulas": {"buy": {"weights": {"buy": 1.0}}}, "default": "buy"})
    with pytest.raises(ConfigError, match="formula 'buy': the score formula uses the task 'buy'"):
        BoundPolicy(wrong, TASKS)


@pytest.mark.parametrize(
    "explore", [{"method": "epsilon", "epsilon": 0}, {"method": "plackett_luce"}, {"method": "thompson"}]
)
def test_exploration_without_a_sense_is_refused(explore: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        policy(explore=explore)


def test_an_exploration_is_told_by_its_settings() -> None:
    found = policy(explore={"method": "epsilon", "epsilon": 0.1, "depth": 10}).explore
    assert found is not None
    assert found.version == "epsilon depth=10 epsilon=0.1"
