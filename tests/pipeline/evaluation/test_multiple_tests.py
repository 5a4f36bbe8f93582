"""Adjusted p-values."""

import numpy as np
import pytest
from scipy.stats import norm

from pipeline.evaluation.multiple_tests import holm, smallest_shown, two_sided, weights_of


def test_equal_weights_give_the_procedure_of_textbooks() -> None:
    adjusted = holm(np.array([0.01, 0.04, 0.03, 0.005]), np.ones(4))
    assert adjusted == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_a_test_of_more_weight_needs_less() -> None:
    adjusted = holm(np.array([0.03, 0.03]), weights_of([True, False]))
    assert adjusted[0] == pytest.approx(0.03 / 0.8)
    assert adjusted[1] == pytest.approx(adjusted[0])


def test_a_difference_of_the_smallest_size_is_found_four_times_of_five() -> None:
    size = smallest_shown(2.0, 0.05)
    assert norm.sf(norm.isf(0.025) - size / 2.0) == pytest.approx(0.8, abs=1e-6)


def test_no_difference_without_noise_is_no_finding() -> None:
    assert two_sided(0.0, 0.0, 10) == 1.0
    assert two_sided(0.1, 0.0, 10) == 0.0
