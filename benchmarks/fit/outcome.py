"""Results of fits, and the ratios that are compared."""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from benchmarks.fit.generated import Size
from benchmarks.harness.report import Table
from embeddings.release.bundle import Epochs

ALS = "implicit ALS"
_MOST = 0.95
"""The share of its own best figure that a model is as good as done at."""


class Reached(Struct, frozen=True):
    """Progress of a fit after some epochs.

    Attributes:
        epochs: of ALS, iterations.
        seconds: of fitting, since it began.
        figure: the quality, None where it was not measured.
    """

    epochs: int
    seconds: float
    figure: float | None


class Fit(Struct, frozen=True):
    """One model, fitted.

    Attributes:
        data: what it was fitted on.
        model: what was fitted.
        metric: what the figures are; None where ALS' are not comparable.
        examples: an epoch's.
        course: epoch by epoch.
    """

    data: str
    device: str
    model: str
    metric: str | None
    examples: int
    course: list[Reached]

    @property
    def seconds_an_epoch(self) -> float:
        """Return the mean seconds of an epoch."""
        return self.course[-1].seconds / self.course[-1].epochs

    @property
    def examples_a_second(self) -> float:
        """Return the mean number of examples in a second."""
        return self.examples / self.seconds_an_epoch

    @property
    def best(self) -> float | None:
        """Return the best figure; None if nothing was measured."""
        return max((one.figure for one in self.course if one.figure is not None), default=None)

    def seconds_to(self, figure: float) -> float | None:
        """Return the seconds until a figure was reached; None if it never was."""
        return next((one.seconds for one in self.course if one.figure is not None and one.figure >= figure), None)

    @property
    def seconds_to_most(self) -> float | None:
        """Return the seconds until ``_MOST`` of the best figure was reached; None if nothing was measured."""
        return None if self.best is None else self.seconds_to(_MOST * self.best)


class Growth(Struct, frozen=True):
    """What a shop of one size took.

    Attributes:
        training_seconds: from the command to its end.
        processor_seconds: of all threads, meanwhile.
        training_mib: the most that training held in memory.
        store_mib: of the release on disk.
        ready_seconds: from the start of the service to its first answer.
        resident_mib: what the service holds once it was asked.
        rate: requests a second that it answers at most, on one core.
        p50_ms, p99_ms: of answers at half that rate.
        served, popular, personal: NDCG@10 on the validation window.
    """

    size: Size
    training_seconds: float
    processor_seconds: float
    training_mib: float
    store_mib: float
    ready_seconds: float
    resident_mib: float
    rate: float
    p50_ms: float
    p99_ms: float
    served: float
    popular: float
    personal: float


def reached(curve: Sequence[Epochs], metric: str | None) -> list[Reached]:
    """Return the course of a fit from a curve of a release's manifest."""
    return [Reached(one.epochs, one.seconds, one.metrics.get(metric) if metric else None) for one in curve]


def summary(fits: Sequence[Fit]) -> dict[str, float | None]:
    """Return each model's ratios to ALS on the same data and device; None where a figure was never reached."""
    found: dict[str, float | None] = {}
    for one in fits:
        als = next((fit for fit in fits if (fit.data, fit.device, fit.model) == (one.data, one.device, ALS)), None)
        if als is None or one.model == ALS:
            continue
        name = f"{one.data}, {one.device}, {one.model} over {ALS}"
        found[f"{name}: seconds an epoch"] = _ratio(one.seconds_an_epoch, als.seconds_an_epoch)
        if one.metric is not None and als.best is not None:
            found[f"{name}: best {one.metric}"] = _ratio(one.best, als.best)
            found[f"{name}: seconds to its best"] = _ratio(one.seconds_to(als.best), als.seconds_to(als.best))
    return found


def described(one: Fit) -> Mapping[str, object]:
    """Return a fit with the figures that follow from its course."""
    return {
        "data": one.data,
        "device": one.device,
        "model": one.model,
        "metric": one.metric,
        "examples": one.examples,
        "seconds_an_epoch": round(one.seconds_an_epoch, 4),
        "examples_a_second": round(one.examples_a_second),
        "best": one.best,
        "seconds_to_most": one.seconds_to_most,
        "course": one.course,
    }


def print_table(fits: Sequence[Fit]) -> None:
    """Print every fit."""
    table = Table("fits", ["", "epochs", "s/epoch", "examples/s", "best", f"s to {_MOST:.0%} of it", "s to ALS' best"])
    for one in fits:
        als = next((fit for fit in fits if (fit.data, fit.device, fit.model) == (one.data, one.device, ALS)), None)
        floor = als.best if als is not None and one.metric is not None else None
        table.add(
            f"{one.data}, {one.device}: {one.model}",
            str(one.course[-1].epochs),
            f"{one.seconds_an_epoch:.2f}",
            f"{one.examples_a_second:,.0f}",
            "" if one.best is None else f"{one.metric} {one.best:.4f}",
            _shown(one.seconds_to_most),
            "" if floor is None else _shown(one.seconds_to(floor), "never"),
        )
    table.print()


def _ratio(ours: float | None, theirs: float | None) -> float | None:
    return None if ours is None or not theirs else round(ours / theirs, 3)


def _shown(seconds: float | None, otherwise: str = "") -> str:
    return otherwise if seconds is None else f"{seconds:.1f}"
