"""The block `split`: what its sizes may be, and what is said of others."""

from datetime import date
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from features.split_config import SplitByTime, SplitConfig

SPLIT: TypeAdapter[Any] = TypeAdapter(SplitConfig)


@pytest.mark.parametrize(
    ("split", "place", "said"),
    [
        ({"by": "time", "valid": 0.08}, "valid", "such as 12h or 7d; shares go with `by: random`"),
        ({"by": "time", "valid": "7d", "test": 1000}, "test", "takes lengths of time, such as 12h or 7d"),
        ({"by": "time", "valid": date(2026, 5, 9)}, "valid", "`by: expression`, such as valid: time >= '2026-05-09'"),
        ({"by": "time", "valid": "2026-05-09 12:00"}, "valid", "a day goes with `by: expression`"),
        ({"by": "time", "valid": "a week"}, "valid", "a whole number of s, m, h or d, such as 90s, 12h or 7d"),
        ({"by": "time", "valid": "7d", "embargo": 3}, "embargo", "a whole number of s, m, h or d"),
        ({"by": "user_time", "valid": "7d"}, "valid", "a share of rows, such as 0.1; a length of time goes with"),
        ({"by": "random", "valid": 0.1, "test": "12h"}, "test", "a length of time goes with `by: time`"),
    ],
)
def test_a_size_of_another_split_is_refused_with_what_is_allowed(split: Any, place: str, said: str) -> None:
    with pytest.raises(ValidationError) as refused:
        SPLIT.validate_python(split)
    (problem,) = refused.value.errors()
    assert problem["loc"][-1] == place
    assert said in problem["msg"]


def test_sizes_may_be_texts_of_numbers_as_variables_are() -> None:
    assert SPLIT.validate_python({"by": "random", "valid": "0.1"}).valid == 0.1
    assert SPLIT.validate_python({"by": "time", "valid": "1000d"}) == SplitByTime(by="time", valid="1000d")
