"""Options of several values may be given once or several times: none is lost."""

from argparse import ArgumentParser

import pytest

from contract.errors import ConfigError
from pipeline.cli.compare_verb import VERB as COMPARE
from pipeline.cli.drift_verb import VERB as DRIFT
from pipeline.cli.evaluate_verb import VERB as EVALUATE
from pipeline.cli.evaluate_verb import _settings
from pipeline.cli.evaluation_arguments import raw_days
from pipeline.cli.verb import Verb


def _parser(verb: Verb) -> ArgumentParser:
    parser = ArgumentParser()
    verb.arguments(parser)
    return parser


def test_values_with_commas_and_repeated_options_are_all_kept() -> None:
    line = ["--at", "3,5", "--at", "10", "--slice-by", "tab", "--slice-by", "hour,price"]
    settings = _settings(_parser(EVALUATE).parse_args([*line, "--columns", "user=u", "--columns", "item=i"]))
    assert (settings["at"], settings["slice_by"]) == (("3", "5", "10"), ("tab", "hour", "price"))


@pytest.mark.parametrize("verb", [EVALUATE, COMPARE])
def test_repeated_columns_are_all_kept(verb: Verb) -> None:
    line = ["--columns", "user=u", "label.y=l", "--columns", "item=i"]
    args = _parser(verb).parse_args(line if verb is EVALUATE else ["a", "b", *line])
    assert args.columns == ["user=u", "label.y=l", "item=i"]


def test_days_the_wrong_way_round_are_refused_before_anything_is_computed() -> None:
    args = _parser(EVALUATE).parse_args(["v1", "--from", "2026-11-09", "--to", "2026-11-08"])
    with pytest.raises(ConfigError, match="--from 2026-11-09 is after --to 2026-11-08"):
        raw_days(args)


@pytest.mark.parametrize("threshold", ["-1", "nan", "inf"])
def test_a_threshold_that_no_psi_can_be_is_refused_before_anything_is_computed(threshold: str) -> None:
    words = ["bundle", "--from", "2026-11-20", "--reference", "train", f"--threshold={threshold}"]
    with pytest.raises(ConfigError, match=f"--threshold {threshold}: a PSI is at least 0"):
        DRIFT.run(_parser(DRIFT).parse_args(words))
