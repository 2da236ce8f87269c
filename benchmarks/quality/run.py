"""The suite, from a trained release to figures with intervals: one task after the other."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

from benchmarks.harness.release import UNTIL, release
from benchmarks.harness.report import write_report
from benchmarks.quality import cold_start, completion, coupons, mixed, new_products, next_basket, novel, similar
from benchmarks.quality.outcome import Outcome, Section, section
from benchmarks.quality.service import Service, fresh_service
from benchmarks.quality.tables import markdown, print_section
from embeddings.errors import InvalidInput

COUPONS_UNTIL = datetime(2017, 9, 1, 4, tzinfo=UTC)
"""Midnight in New York."""


class Task(NamedTuple):
    """A question, and the release that it is asked of.

    Attributes:
        folder: the release's store, within the suites' own.
        until: its cut-off.
        measure: asks a service that has heard of no events.
        write: writes the tables that the release is trained on into a folder; None for all of Complete Journey.
    """

    folder: str
    until: datetime
    measure: Callable[[Service, datetime], Outcome]
    write: Callable[[Path, datetime], None] | None = None


TASKS: Mapping[str, Task] = {
    "next-basket": Task(".", UNTIL, next_basket.measure),
    "web": Task(".", UNTIL, next_basket.measure_web),
    "push": Task(".", UNTIL, next_basket.measure_push),
    "novel": Task(".", UNTIL, novel.measure),
    "completion": Task(".", UNTIL, completion.measure),
    "cold-start": Task(".", UNTIL, cold_start.measure),
    "new-products": Task(".", UNTIL, new_products.measure),
    "substitutes": Task(".", UNTIL, similar.measure_substitutes),
    "substitutes-bare": Task("bare", UNTIL, similar.measure_bare_substitutes, similar.write_bare),
    "complements": Task(".", UNTIL, similar.measure_complements),
    "coupons": Task("coupons", COUPONS_UNTIL, coupons.measure),
    "mixed": Task("coupons", COUPONS_UNTIL, mixed.measure),
}


class Report(msgspec.Struct, frozen=True):
    """The report that is written.

    Attributes:
        tasks: by name; each says which release and machine it was measured on.
        summary: ratios and differences of things measured in the same run.
    """

    suite: str = "quality"
    dataset: str = "complete-journey"
    tasks: dict[str, Section] = {}
    summary: dict[str, float | None] = {}

    def with_task(self, name: str, found: Section) -> "Report":
        """Return this report with one task's section replaced, tasks in their usual order."""
        tasks = self.tasks | {name: found}
        tasks = {task: tasks[task] for task in sorted(tasks, key=list(TASKS).index)}
        summary = {
            f"{task}: {one.how} of {one.ours} and {one.theirs}, {one.metric}": one.figure and one.figure.value
            for task, of_task in tasks.items()
            for one in of_task.compared
        }
        return msgspec.structs.replace(self, tasks=tasks, summary=summary)


def run(store: Path, json_file: Path, names: Sequence[str] = tuple(TASKS)) -> Report:
    """Train what is missing, serve, ask; print every task's table and write it as soon as it is known.

    Args:
        store: a store of the suites' own; a release with the right cut-off in it is used as it is.
        json_file: sections of tasks that are not run keep what it says; all tables go beside it, as Markdown.
        names: the tasks to run.

    Raises:
        InvalidInput: there is no such task.
    """
    if unknown := [name for name in names if name not in TASKS]:
        raise InvalidInput("--task", f"expected some of {', '.join(TASKS)}, got {', '.join(unknown)}")
    report = read_report(json_file)
    for name in names:
        task = TASKS[name]
        of_task = store / task.folder
        version = release(of_task, task.until, task.write)
        with fresh_service(of_task, version) as service:
            outcome = task.measure(service, task.until)
        found = section(outcome, version, task.until)
        print_section(name, found)
        report = report.with_task(name, found)
        write_report(json_file, msgspec.structs.asdict(report))
        json_file.with_suffix(".md").write_text(markdown(report.tasks))
    return report


def read_report(json_file: Path) -> Report:
    """Return the report that was written before; an empty one if there is no file."""
    if not json_file.exists():
        return Report()
    return msgspec.json.decode(json_file.read_bytes(), type=Report)
