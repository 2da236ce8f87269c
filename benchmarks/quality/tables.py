"""Sections of the report as tables, on the terminal and in Markdown."""

import re
from collections.abc import Iterator, Mapping, Sequence

from benchmarks.harness.report import Table
from benchmarks.quality.bootstrap import Figure
from benchmarks.quality.outcome import Compared, Section


def print_section(task: str, section: Section) -> None:
    """Print a task's table."""
    metrics = _metrics(section)
    table = Table(f"{task}: {section.questions:,} questions of {section.households:,} households", ["", *metrics])
    for row in _rows(section, metrics):
        table.add(*row)
    table.print()


def markdown(sections: Mapping[str, Section]) -> str:
    """Return all tasks' tables in Markdown."""
    return "\n".join(_table(task, section) for task, section in sections.items())


def _table(task: str, section: Section) -> str:
    metrics = _metrics(section)
    lines = [
        f"**{task}**: {section.questions:,} questions of {section.households:,} households",
        "",
        "| " + " | ".join(["", *metrics]) + " |",
        "|" + "---|" * (len(metrics) + 1),
        *("| " + " | ".join(row) + " |" for row in _rows(section, metrics)),
    ]
    return "\n".join(lines) + "\n"


def _metrics(section: Section) -> list[str]:
    return list(next(iter(section.methods.values())))


def _rows(section: Section, metrics: Sequence[str]) -> Iterator[list[str]]:
    """Yield the rows of methods, then those of methods left out, then comparisons, then facts."""
    blank = [""] * len(metrics)
    for method, figures in section.methods.items():
        yield [method, *(_cell(figures[metric]) for metric in metrics)]
    for method, why in section.left_out.items():
        yield [method, f"left out: {why}", *blank[1:]]
    compared: dict[str, list[str]] = {}
    for one in section.compared:
        compared.setdefault(_title(one), blank.copy())[metrics.index(one.metric)] = _cell(one.figure, one.how)
    for title, cells in compared.items():
        yield [title, *cells]
    for name, value in section.facts.items():
        yield [name, f"{value:,}", *blank[1:]]


def _title(one: Compared) -> str:
    """Return the title of a comparison's row."""
    return {
        "difference": f"{one.ours} less {one.theirs}",
        "ratio": f"{one.ours} over {one.theirs}",
        "gain": f"gain of {one.ours} over {one.theirs}",
    }[one.how]


def _cell(figure: Figure | None, how: str = "mean") -> str:
    """Return a value, and in brackets where 95% of the resampled ones lie."""
    if figure is None:
        return "undefined"
    form = {"mean": ".4f", "difference": "+.4f", "ratio": ".2f", "gain": "+.1%"}[how]
    value, low, high = (format(one, form) for one in (figure.value, figure.low, figure.high))
    text = f"{value} ({low}, {high})"
    return text if how in {"ratio", "gain"} else re.sub(r"\b0\.", ".", text)
