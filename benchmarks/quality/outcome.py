"""What a task found, from scores of single questions to figures with their intervals."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Literal, NamedTuple

import numpy as np
from msgspec import Struct

from benchmarks.harness import machine
from benchmarks.quality.bootstrap import RESAMPLES, Figure, Resamples
from embeddings.metrics import ndcg_at, recall_at

Scores = Mapping[str, Sequence[float]]
"""By metric, of every question."""


class Comparison(NamedTuple):
    """Two methods to hold against each other; a gain is a ratio less one."""

    how: Literal["difference", "ratio", "gain"]
    ours: str
    theirs: str
    metric: str


class Scored(NamedTuple):
    """Items of all answers of a method, to hold their scores against what happened.

    Attributes:
        scores: probabilities.
        taken: whether each was taken.
        questions: the number of the question that each is of.
    """

    scores: Sequence[float]
    taken: Sequence[bool]
    questions: Sequence[int]


class Outcome(NamedTuple):
    """What a task found.

    Attributes:
        households: of every question.
        scores: by method.
        ours: the method that is held against the best of all others; None where they answer different questions.
        comparisons: others that the task is about.
        left_out: by method, why it was not measured.
        facts: whatever else there is to say, by name.
        scored: by method, what its calibration error is measured on.
    """

    households: Sequence[str]
    scores: Mapping[str, Scores]
    ours: str | None
    comparisons: Sequence[Comparison]
    left_out: Mapping[str, str]
    facts: Mapping[str, int]
    scored: Mapping[str, Scored] = {}


class Compared(Struct, frozen=True):
    """The result of a comparison; its figure is None where there is nothing to divide by."""

    how: str
    ours: str
    theirs: str
    metric: str
    figure: Figure | None


class Section(Struct, frozen=True):
    """A task's part of the report.

    Attributes:
        version: of the release that was asked.
        until: its cut-off.
        questions: how many were asked.
        households: of how many.
        resamples: that the intervals come from.
        methods: figures by method and metric.
    """

    version: str
    until: datetime
    questions: int
    households: int
    resamples: int
    methods: dict[str, dict[str, Figure]]
    compared: list[Compared]
    left_out: dict[str, str]
    facts: dict[str, int]
    machine: dict[str, object]


def section(outcome: Outcome, version: str, until: datetime) -> Section:
    """Compute the figures of an outcome."""
    resamples = Resamples(outcome.households)
    compared: list[Compared] = []
    for one in [*_to_best(outcome), *outcome.comparisons]:
        ours_Q, theirs_Q = (outcome.scores[method][one.metric] for method in (one.ours, one.theirs))
        compare = {"difference": resamples.difference, "ratio": resamples.ratio, "gain": resamples.gain}[one.how]
        compared.append(Compared(*one, compare(ours_Q, theirs_Q)))
    return Section(
        version=version,
        until=until,
        questions=len(outcome.households),
        households=len(set(outcome.households)),
        resamples=RESAMPLES,
        methods={
            method: {metric: resamples.mean(values_Q) for metric, values_Q in scores.items()}
            | (
                {"calibration_error": _calibration(resamples, outcome.scored[method])}
                if method in outcome.scored
                else {}
            )
            for method, scores in outcome.scores.items()
        },
        compared=compared,
        left_out=dict(outcome.left_out),
        facts=dict(outcome.facts),
        machine=machine.describe(),
    )


def judge(rankings: Sequence[Sequence[str]], truths: Sequence[Collection[str]], k: int) -> Scores:
    """Return NDCG and recall of the first ``k`` of every ranking."""
    pairs = list(zip(rankings, truths, strict=True))
    return {
        f"ndcg@{k}": [ndcg_at(ranking, truth, k) for ranking, truth in pairs],
        f"recall@{k}": [recall_at(ranking, truth, k) for ranking, truth in pairs],
    }


def _calibration(resamples: Resamples, scored: Scored) -> Figure:
    return resamples.calibration(
        np.asarray(scored.scores), np.asarray(scored.taken, np.float64), np.asarray(scored.questions, np.int64)
    )


def _to_best(outcome: Outcome) -> list[Comparison]:
    """Return comparisons of ours with whichever other method is best, metric by metric."""
    if outcome.ours is None:
        return []
    others = [method for method in outcome.scores if method != outcome.ours]
    return [
        Comparison("difference", outcome.ours, max(others, key=lambda other: _mean(outcome, other, metric)), metric)
        for metric in outcome.scores[outcome.ours]
    ]


def _mean(outcome: Outcome, method: str, metric: str) -> float:
    return float(np.mean(outcome.scores[method][metric]))
