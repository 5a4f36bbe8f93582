"""The Markdown that a flow run keeps of its data."""

from pathlib import Path

from features.quality.quality_report import Distribution, FeatureProfile, QualityReport
from pipeline.flow.artifacts import artifact_key
from pipeline.report.data_page import data_page

AGE = FeatureProfile(
    kind="dense", null_rate=0.25, low=18, high=90, distribution=Distribution(edges=(40,), shares=(0.7, 0.05, 0.25))
)
REPORT = QualityReport(
    rows=1200, duplicates=3, late=2, cutoff_ms=0, features={"age": AGE},
    label_rates={"like": {"2024-03-01": 0.5, "2024-03-02": 0.25, "2024-03-03": 0.75}},
    leaks=({"feature": "play_time", "task": "like", "measure": "AUC", "value": 0.99},),
    unlearned={"buy": "no training row has a label"},
)  # fmt: skip


def test_the_page_says_what_was_found_and_draws_it() -> None:
    page = data_page(REPORT, "28 days reused, 1 built", Path("runs/shop/features"))
    assert "1,200 rows; 3 repeat another's keys and time; 2 are late. 28 days reused, 1 built." in page
    assert "- **play_time** tells like: AUC 0.99" in page
    assert "- **buy** learns nothing: no training row has a label" in page
    assert "| like | 2024-03-01 to 2024-03-03 | 0.25 | 0.75 | ▄▁█ |" in page
    assert "| age | dense | 25.00% | 18 | 90 |  |  | █▁▃ |" in page
    assert "/runs/shop/features/quality.html](file:///" in page


def test_many_days_are_drawn_no_wider_than_a_page() -> None:
    rates = {f"2024-{month:02d}-{day:02d}": float(month) for month in range(1, 9) for day in range(1, 15)}
    page = data_page(REPORT.model_copy(update={"label_rates": {"like": rates}}), "", Path("features"))
    (plot,) = (line.split(" | ")[-1].rstrip(" |") for line in page.splitlines() if line.startswith("| like"))
    assert (len(plot), plot[0], plot[-1]) == (28, "▁", "█")


def test_a_key_has_only_the_letters_that_prefect_allows() -> None:
    assert artifact_key("data-quality", "My_Shop.2") == "data-quality-my-shop-2"
