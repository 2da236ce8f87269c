"""What the quality suite writes: sections that outlive runs of other tasks, and tables of them."""

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from benchmarks.harness.report import write_report
from benchmarks.quality import run as suite
from benchmarks.quality.outcome import Comparison, Outcome, Section, section
from benchmarks.quality.run import TASKS, Report, read_report
from benchmarks.quality.tables import markdown, print_section
from embeddings.errors import InvalidInput

UNTIL = datetime(2017, 12, 4, tzinfo=UTC)


def found(ours: float = 0.5, version: str = "one") -> Section:
    households = ["a", "b", "c"]
    scores = {
        "opportune": {"ndcg@10": [ours] * 3, "hit@1": [1.0, 1.0, 1.0]},
        "weak": {"ndcg@10": [0.1] * 3, "hit@1": [0.5, 0.5, 0.5]},
        "strong": {"ndcg@10": [0.25] * 3, "hit@1": [0.0, 0.0, 0.0]},
    }
    comparisons = [
        Comparison("ratio", "opportune", "weak", "ndcg@10"),
        Comparison("ratio", "opportune", "strong", "hit@1"),
    ]
    outcome = Outcome(households, scores, "opportune", comparisons, {"absent": "not installed"}, {"violations": 1234})
    return section(outcome, version, UNTIL)


def test_a_section_compares_with_the_best_of_the_others_by_metric():
    compared = {(one.how, one.theirs, one.metric): one.figure and one.figure.value for one in found().compared}
    assert compared == {
        ("difference", "strong", "ndcg@10"): 0.25,
        ("difference", "weak", "hit@1"): 0.5,
        ("ratio", "weak", "ndcg@10"): 5.0,
        ("ratio", "strong", "hit@1"): None,
    }


def test_a_section_says_what_it_was_measured_on():
    one = found()
    assert (one.version, one.until, one.questions, one.households) == ("one", UNTIL, 3, 3)
    assert "processor" in one.machine


def test_tasks_that_are_not_run_keep_what_the_file_says(tmp_path: Path):
    file = tmp_path / "quality.json"
    write_report(file, msgspec.structs.asdict(Report().with_task("novel", found()).with_task("coupons", found())))
    report = read_report(file).with_task("novel", found(0.75, "two")).with_task("next-basket", found())
    assert list(report.tasks) == ["next-basket", "novel", "coupons"]
    assert [one.version for one in report.tasks.values()] == ["one", "two", "one"]
    assert report.tasks["coupons"] == found()
    assert report.summary["novel: difference of opportune and strong, ndcg@10"] == 0.5
    assert report.summary["coupons: difference of opportune and strong, ndcg@10"] == 0.25


def test_without_a_file_or_with_one_of_before_there_is_nothing_to_keep(tmp_path: Path):
    file = tmp_path / "quality.json"
    assert read_report(file) == Report()
    file.write_text('{"suite": "quality", "households": 2014, "results": {"popular": {"ndcg@10": 0.09}}}')
    assert read_report(file).tasks == {}


def test_an_unknown_task_is_refused_before_anything_is_done(tmp_path: Path):
    with pytest.raises(InvalidInput, match=r"next-basket.*got guess"):
        suite.run(tmp_path, tmp_path / "quality.json", ["novel", "guess"])


def test_the_table_names_figures_what_was_left_out_and_features(capsys: pytest.CaptureFixture[str]):
    table = markdown({"next-basket": found()})
    assert "**next-basket**: 3 questions of 3 households" in table
    for row in (
        "|  | ndcg@10 | hit@1 |",
        "| opportune | .5000 (.5000, .5000) | 1.0000 (1.0000, 1.0000) |",
        "| absent | left out: not installed |  |",
        "| opportune less strong | +.2500 (+.2500, +.2500) |  |",
        "| opportune over weak | 5.00 (5.00, 5.00) |  |",
        "| opportune over strong |  | undefined |",
        "| violations | 1,234 |  |",
    ):
        assert row in table
    print_section("next-basket", found())
    assert "opportune less strong" in capsys.readouterr().out


def test_the_command_names_every_task():
    from benchmarks.__main__ import _parser  # pyright: ignore[reportPrivateUsage]

    suites = next(action.choices for action in _parser()._actions if action.choices)  # pyright: ignore[reportPrivateUsage]
    assert isinstance(suites, dict)
    text = "".join(suites["quality"].format_help().split())  # lines are broken at hyphens too
    assert all(task in text for task in TASKS)
