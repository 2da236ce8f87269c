"""One training run, from tables to a published release; it reads from top to bottom."""

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from msgspec.structs import replace

from embeddings.customer.history import REDEMPTION, Histories
from embeddings.device import DeviceChoice
from embeddings.errors import InvalidInput
from embeddings.ranking.acceptance import LATELY
from embeddings.release.bundle import Manifest
from embeddings.release.store import BundleStore
from training.batches import Baskets
from training.candidates import for_novel
from training.catalogue import master_catalogue, still_promoted
from training.config import Recipe, fit_to_span
from training.datasets import Dataset, as_of
from training.datasets.database import Marks, Source, tables_of
from training.datasets.files import reading
from training.datasets.lacking import LEAST_BUYERS, cut_off, longer, too_few
from training.datasets.report import in_lines
from training.datasets.summary import open_and_summarise
from training.evaluate import by_method, cautions, evaluate
from training.examples import Example
from training.export import Release, export
from training.gate import gate
from training.histories import read_histories
from training.loop import torch_device
from training.observed import observe
from training.progress import tell
from training.publish import publish
from training.repeats import repeats_are_rare, repeats_were_rare
from training.stages import Stages, judged_examples, windows
from training.statistics import Nearby, count
from training.ways import Way, Ways

_log = logging.getLogger("opportune.train")


def run(
    data: str,
    store: Path,
    recipe: Recipe,
    *,
    until: datetime | None,
    device: DeviceChoice,
    gated: bool,
    database: str | None = None,
) -> Manifest:
    """Train on the events before a moment and publish the release.

    Args:
        data: a known data set's name, a directory of tables, or ``postgres`` for those of a database.
        store: where to publish; created if absent.
        recipe: the settings.
        until: the data cut-off; None for just after the newest event, but never later than now.
        device: where to fit.
        gated: whether a model worse than a simple rival is refused.
        database: the URL of the PostgreSQL, where the data are its; None for the one embedded beside the store.

    Raises:
        InvalidInput, InvalidTables: the data cannot be used; nothing was written.
        DeviceUnavailable: cuda was asked for and is absent.
        RefusedByGate: the model is worse than a simple rival; nothing was published.
    """
    chosen = torch_device(device)
    tell("reading")
    with tables_of(data, recipe, database, store) as source:
        return _train(_read(source, recipe, until), store, chosen, gated=gated)


def _train(given: "_Given", store: Path, chosen: torch.device, *, gated: bool) -> Manifest:
    """Train on data that were read, and publish the release."""
    dataset, recipe, until = given.dataset, given.recipe, given.until
    since = until - timedelta(days=recipe.validation_days)
    learnt_from = since - timedelta(weeks=recipe.ranker.windows)
    with reading(dataset.given):
        master = master_catalogue(dataset, recipe, learnt_from)
        histories = read_histories(dataset, master, given.visit_pause)
    window = int(since.timestamp())
    past = histories.before(window)
    moment = int(until.timestamp())
    baskets = Baskets.of(histories)
    inside = baskets.between(window, moment)
    _check_kept(histories, baskets, window, recipe.validation_days, until)
    begins = windows(past, window, recipe.ranker.windows)
    _log.info(
        "%d events before %s, %d of them in the validation window",
        len(histories.events),
        until,
        len(histories.events) - len(past.events),
    )

    bundles = BundleStore(store)
    with bundles.training() as runs:
        novel = repeats_were_rare(baskets, 2 * window - moment, window)
        if novel:
            _log.info("customers hardly ever take anything twice: a single purchase is trusted, and towers start there")
        stages = Stages(master, recipe, chosen, runs, novel)
        # The ranker learns from windows that its towers must not have seen: it has a pair of its own.
        _, earlier = stages.towers(past.before(begins[-1]), begins[-1])
        rankers = stages.rankers(past, begins, earlier)
        als, fitted = stages.towers(past, window, inside)
        # Redemptions are few: those served are learnt from all that happened, and judged by a fit of what came before.
        offers = stages.offers(histories, window, moment, fitted, rankers)
        ways = Ways(fitted.catalogue, recipe.ways)
        asked = _questions(
            ways, judged_examples(past, inside, fitted.catalogue, recipe.seed), inside, window, recipe.seed
        )
        if not asked[Way.AT_PLACE] and offers.compared is None:
            days = recipe.validation_days
            raise InvalidInput(
                "--data",
                f"expected purchases of something recommendable in the last {days} days until {until}, to judge the "
                "model by; found none",
            )
        tell("evaluating")
        judged = evaluate(asked, fitted, rankers, als, recipe.towers.history_length)
        metrics, doubts = by_method(judged.metrics), cautions(asked, judged.metrics)
        if offers.metrics:
            metrics = {**metrics, "offers": offers.metrics}
        for method, values in metrics.items():
            _log.info("validation %-36s %s", method, "  ".join(f"{name} {value:.4f}" for name, value in values.items()))
        for doubt in doubts:
            _log.warning("%s", doubt)
        if gated:
            gate(judged.asked, ways.shares, offers.compared)

        catalogue, observed = observe(master, histories.sold(), moment, recipe.assortment, histories.sold_to_guests())
        catalogue = catalogue._replace(promotions=still_promoted(catalogue.promotions, moment))
        # A product first sold in the validation window is popular and carried, but its id taught the towers nothing.
        observed = observed._replace(trained_N=fitted.statistics.observed.trained_N)
        statistics = count(histories, catalogue, observed, moment, Nearby.of(fitted.statistics), recipe.ranker)
        statistics = statistics._replace(longest_absence=rankers.longest_absence, acceptance=offers.acceptance)
        curves = {name: curve.points for name, curve in stages.curves.items()}
        release = Release(
            fitted.towers,
            rankers,
            offers.offers,
            offers.redemption,
            catalogue,
            statistics,
            histories.without_impressions(moment - LATELY),  # of a customer the newest events count, and no more
            metrics,
            curves,
        )

        tell("publishing")
        notes = (*given.notes, *doubts)

        def write(staged: Path) -> Manifest:
            return export(staged, release, recipe, until=until, data=dataset.name, notes=notes, marks=given.marks)

        return publish(bundles, write, keep=recipe.keep_versions)


def _questions(
    ways: Ways, examples: Sequence[Example], inside: Baskets, window: int, seed: int
) -> Mapping[Way, Sequence[Example]]:
    """Return what the model is judged by: examples in each way that requests have.

    Where repeats are rare, they are asked once more for what their customers never bought.
    """
    asked = ways.each(examples, window, seed)
    if not repeats_are_rare(asked[Way.AT_PLACE]):
        return asked
    novel = for_novel(asked[Way.AT_PLACE], ways.catalogue, inside.by_customer())
    return {**asked, Way.NOVEL: [one for one in novel if one.bought]}


class _Given(NamedTuple):
    """The data and the settings that a run learns from.

    Attributes:
        dataset: without what came at or after the cut-off.
        recipe: fitted to the data: its windows to their span, what is not declared to what was found.
        until: the data cut-off, in whole seconds, as every moment in a bundle.
        visit_pause: a purchase at most so many seconds after the customer's one before is of its visit.
        notes: a sentence for each thing about the data that their owner should know.
        marks: how far a database was read, if the data are its.
    """

    dataset: Dataset
    recipe: Recipe
    until: datetime
    visit_pause: int
    notes: tuple[str, ...]
    marks: Marks | None


def _read(source: Source, recipe: Recipe, until: datetime | None) -> _Given:
    """Open and check the data, log notes about them, and return them with the settings fitted to them.

    Raises:
        InvalidInput, InvalidTables: they cannot be used.
    """
    dataset, summary, recipe = open_and_summarise(source, recipe, until)
    if summary.lacking or summary.first is None or summary.last is None:
        raise InvalidInput("--data", summary.lacking)
    until = cut_off(until, summary.last)
    recipe = fit_to_span(recipe, max((until - summary.first).days, 0))
    recipe = replace(recipe, visit_pause_minutes=summary.visit_pause / 60)
    notes = (*dataset.notes, *in_lines(summary))
    for note in notes:
        _log.info("%s", note)
    dataset = as_of(dataset, until)._replace(name=source.name)
    return _Given(dataset, recipe, until, summary.visit_pause, notes, source.marks)


def _check_kept(histories: Histories, baskets: Baskets, window: int, days: int, until: datetime) -> None:
    """Refuse data whose returns leave too few purchases to learn from, or nothing to judge by.

    Args:
        histories: all that happened.
        baskets: what was not taken back.
        window: where the validation window begins, in seconds since 1970 UTC.
        days: how long it is.
        until: where it ends.

    Raises:
        InvalidInput: saying what is left.
    """
    earlier = baskets.moments_S < window
    redeemed = bool(((histories.events["type"] == REDEMPTION) & (histories.events["at"] >= window)).any())
    for enough, when in ((earlier.any(), "before"), (redeemed or not earlier.all(), "in")):
        if not enough:
            window_said = f"the last {days} days until {until}"
            raise InvalidInput(
                "--data",
                f"expected purchases {when} {window_said} that were not taken back; found none"
                + (_longer(histories, baskets, until) if when == "in" else ""),
            )
    buyers = len(np.unique(baskets.customers_S[earlier]))
    if buyers < LEAST_BUYERS:
        raise InvalidInput("--data", too_few(buyers, days, until))


def _longer(histories: Histories, baskets: Baskets, until: datetime) -> str:
    """Return how long a window would hold enough; baskets lie in the order of customers, then of time."""
    _, first_C = np.unique(baskets.customers_S, return_index=True)
    last_C = np.append(first_C[1:], len(baskets)) - 1
    span = (int(until.timestamp()) - int(histories.events["at"].min())) // 86_400
    return longer(baskets.moments_S[first_C], baskets.moments_S[last_C], until, span)
