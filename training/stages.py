"""The two fits of a run: towers on everything before a moment, and a ranker on the weeks that lead up to it."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from embeddings.catalogue.columns import Catalogue
from embeddings.customer.history import Histories
from embeddings.errors import InvalidInput
from embeddings.ranking.acceptance import ACCEPTED_WITHIN, Acceptance, Exposures
from training.acceptance import count_acceptance, covers_redemptions, exposures_of, is_enough
from training.batches import Baskets
from training.candidates import ExampleCandidates, as_newcomers, for_new, for_novel, gather_candidates, with_sessions
from training.compare_offers import compare_accepted, compare_redeemed
from training.comparison import Comparison
from training.config import Recipe
from training.curve import Curve
from training.evaluate import Fitted, measure_towers
from training.examples import Example, first_baskets
from training.fit import Factors, Towers, als_regularisation, fingerprint, fit, fit_als, product_vectors
from training.fit_ranker import fit_rankers
from training.observed import observe
from training.offer_ranker import (
    FEWEST_VISITS,
    OfferRanker,
    fit_accepted,
    fit_offers,
    is_enough_to_fit,
    measure_accepted,
)
from training.ranker import Rankers
from training.redemption import Redemption, fit_redemption, measure_offers
from training.statistics import Nearby, count, find_nearby
from training.visits import Visit, VisitExample, find_visits, find_visits_with_exposures, visit_examples
from training.ways import Ways

_DAY = 86_400
_WEEK = 7 * _DAY
_SPAN = 2 * _WEEK
"""How old the figures may be with which offers are learnt: a release is as old on average, and counting takes time."""

_VISITS = 2_000
"""So many visits before the validation window in which nothing was redeemed teach how likely anything is, and as many
in it; each stands for several."""

_JUDGED = 5_000
"""So many customers tell NDCG to about four thousandths; more take time and change nothing."""

_EXPOSED = 20_000
"""So many visits in which offers were shown teach how likely each is accepted."""

_log = logging.getLogger("opportune.train")


class FittedOffers(NamedTuple):
    """Both levels of offers.

    Attributes:
        offers: which of the eligible ones is redeemed.
        redemption: whether any is.
        acceptance: how often each is accepted when shown, as of the data cut-off; unknown where too few were shown.
        metrics: of both, fitted before the validation window and measured on it.
        compared: the order of offers, fitted and measured so, beside a simple rival; None if it cannot be measured.
    """

    offers: OfferRanker
    redemption: Redemption
    acceptance: Acceptance
    metrics: Mapping[str, float]
    compared: Comparison | None


@dataclass(frozen=True, slots=True)
class Stages:
    """Fits with the same catalogue, recipe and device.

    Attributes:
        master: the catalogue without anything observed.
        runs: where checkpoints lie.
        novel: whether repeats are rare.
        curves: the course of the latest fit of each kind.
    """

    master: Catalogue
    recipe: Recipe
    device: torch.device
    runs: Path
    novel: bool
    curves: dict[str, Curve] = field(default_factory=dict[str, Curve])

    def towers(self, past: Histories, moment: int, later: Baskets | None = None) -> tuple[Factors, Fitted]:
        """Fit ALS and the towers, which start from it; count the statistics used with them, as of the moment.

        Args:
            past: what they may see; it ends before the moment.
            moment: seconds since 1970 UTC.
            later: baskets that came later, where the towers are to be measured on them after every epoch.
        """
        recipe, length = self.recipe, self.recipe.towers.history_length
        catalogue, observed = observe(self.master, past.sold(), moment, recipe.assortment, past.sold_to_guests())
        trained_N = observed.trained_N
        asked = [] if later is None else judged_examples(past, later, catalogue, recipe.seed)

        def measure(towers: Towers) -> Mapping[str, float]:
            vectors_ND = product_vectors(towers, catalogue.products, trained_N, self.device)
            return measure_towers(asked, towers, vectors_ND, length)

        als = fit_als(past, len(catalogue.products.ids), recipe, novel=self.novel)
        regularisation = als_regularisation(recipe, novel=self.novel)
        nearby = find_nearby(past, catalogue, als.products_ND, regularisation, recipe.ranker)
        checkpoints = self.runs / fingerprint(recipe, past, catalogue, trained_N, self.device, novel=self.novel)
        towers, self.curves["towers"] = fit(
            catalogue,
            trained_N,
            past,
            als.products_ND,
            recipe,
            self.device,
            checkpoints,
            Ways(catalogue, recipe.ways).situation,
            measure if asked else None,
            novel=self.novel,
        )
        vectors_ND = product_vectors(towers, catalogue.products, trained_N, self.device)
        statistics = count(past, catalogue, observed, moment, nearby, recipe.ranker)
        return als, Fitted(catalogue, statistics, towers, vectors_ND)

    def rankers(self, past: Histories, begins: Sequence[int], fitted: Fitted) -> Rankers:
        """Fit the rankers on windows, with towers that have seen none of them.

        Every window begins as a release would: with towers of the past, figures counted up to its first moment, and
        each customer's first basket in it to be predicted.

        Args:
            past: what they may see.
            begins: from `windows`.
            fitted: towers of what lies before all of them.
        """
        config = self.recipe.ranker
        nearby = Nearby.of(fitted.statistics)
        baskets = Baskets.of(past)
        found = [self._window(past, baskets, begin, fitted, nearby) for begin in begins]
        if not any(window.taken_M.any() for window in found):
            begun = datetime.fromtimestamp(begins[-1], UTC).date()
            ended = begins[0] + _WEEK
            weeks = -(-(ended - int(baskets.moments_S.max(initial=0))) // _WEEK)
            advice = "more customers, or more purchases of each, are needed"
            if len(windows(past, ended, weeks)) == weeks > len(begins):  # in none of these did anybody buy
                advice = f"let ranker.windows be at least {weeks} in the recipe"
            raise InvalidInput(
                "--data",
                f"expected purchases after {begun} of something that could be predicted; found none: {advice}",
            )
        rankers, curves = fit_rankers(found, config, self.recipe.seed, self.device)
        self.curves.update(curves)
        return rankers

    def offers(self, past: Histories, window: int, moment: int, fitted: Fitted, rankers: Rankers) -> FittedOffers:
        """Fit both levels of offers on visits before the moment, with figures two weeks old at most.

        The metrics are measured on the visits in the validation window, with both levels fitted before it.

        Args:
            past: it ends before the moment.
            window: where the validation window begins, in seconds since 1970 UTC.
            moment: seconds since 1970 UTC.
            fitted: towers; their figures are counted anew.
            rankers: of products.
        """
        exposures = exposures_of(past, "offer")
        if is_enough(exposures.before(window)) and covers_redemptions(past, exposures):
            accepted = self._accepted(past, exposures, window, moment, fitted, rankers)
            if accepted is not None:
                return accepted
        visits = find_visits(past, self.master.offers, window, _VISITS, self.recipe.seed)
        found = list(self._visits(visits, past, moment, fitted, rankers, None))
        redeeming = sum(bool(one.taken_O.any()) for one in found)
        if len(self.master.offers.ids):
            _log.info("offers are learnt from %d visits, %d of them with redemptions", len(found), redeeming)
        if len(self.master.offers.ids) and redeeming < FEWEST_VISITS:
            _log.warning("at least %d visits with redemptions are needed to rank offers by", FEWEST_VISITS)
        earlier, later = ([one for one in found if (one.visit.at < window) == before] for before in (True, False))
        offers = fit_offers(earlier)
        metrics = measure_offers(later, offers, fit_redemption(earlier, offers))
        # With fewer it is no fit, and so not what will be served once there are more.
        fitted_before = sum(bool(one.taken_O.any()) for one in earlier) >= FEWEST_VISITS
        compared = compare_redeemed(later, offers) if fitted_before else None
        if compared is not None:
            metrics = {**metrics, compared.metric: compared.served, f"{compared.metric}_of_popularity": compared.rival}
        offers = fit_offers(found)
        return FittedOffers(offers, fit_redemption(found, offers), Acceptance.none(), metrics, compared)

    def _accepted(
        self, past: Histories, exposures: Exposures, window: int, moment: int, fitted: Fitted, rankers: Rankers
    ) -> FittedOffers | None:
        """Fit the ranker of offers on what was shown, as `offers` does on what was redeemed; None if it is too little.

        What was shown lately is left out, as it may be accepted still.
        """
        visits = find_visits_with_exposures(past, exposures, _EXPOSED, self.recipe.seed)
        visits = [visit for visit in visits if visit.at < moment - ACCEPTED_WITHIN]
        found = list(self._visits(visits, past, moment, fitted, rankers, exposures))
        earlier = [one for one in found if one.visit.at < window - ACCEPTED_WITHIN]
        if not is_enough_to_fit(earlier):
            _log.info(
                "of what was shown too little lies between the first days and the validation window to learn from"
            )
            return None
        _log.info("offers are learnt from %d visits in which some were shown", len(found))
        later, before = [one for one in found if one.visit.at >= window], fit_accepted(earlier)
        metrics, compared = measure_accepted(later, before), compare_accepted(later, before)
        offers, acceptance = fit_accepted(found), count_acceptance(past, exposures, self.master, moment)
        # Nothing is left for the upper level: the lower one says how likely each offer is accepted.
        return FittedOffers(offers, fit_redemption([], offers), acceptance, metrics, compared)

    def _visits(
        self,
        visits: Sequence[Visit],
        past: Histories,
        moment: int,
        fitted: Fitted,
        rankers: Rankers,
        exposures: Exposures | None,
    ) -> Iterator[VisitExample]:
        """Yield the examples of some visits, with figures two weeks old at most; those of exposures too, if given."""
        recipe = self.recipe
        for span, some in groupby(visits, lambda visit: (moment - 1 - visit.at) // _SPAN):
            begin = moment - (span + 1) * _SPAN
            before = past.before(begin)
            if not len(before.events):
                continue
            catalogue, observed = observe(self.master, before.sold(), begin, recipe.assortment, before.sold_to_guests())
            statistics = count(before, catalogue, observed, begin, Nearby.of(fitted.statistics), recipe.ranker)
            if exposures is not None:
                acceptance = count_acceptance(past, exposures.before(begin), catalogue, begin)
                statistics = statistics._replace(acceptance=acceptance)
            seen = fitted._replace(catalogue=catalogue, statistics=statistics)
            yield from visit_examples(list(some), past, seen, rankers, recipe.towers.history_length)

    def _window(
        self, past: Histories, baskets: Baskets, begin: int, fitted: Fitted, nearby: Nearby
    ) -> ExampleCandidates:
        recipe, config = self.recipe, self.recipe.ranker
        random = np.random.default_rng([recipe.seed, begin])
        before = past.before(begin)
        catalogue, observed = observe(self.master, before.sold(), begin, recipe.assortment, before.sold_to_guests())
        inside = baskets.between(begin, begin + config.window_days * _DAY)
        asked = first_baskets(before, inside, catalogue, config.examples_a_window, random)
        asked = Ways(catalogue, recipe.ways).drawn(asked, begin, random)
        bought = inside.by_customer()
        novel = for_novel(_some(asked, config.novel_share, random), catalogue, bought)
        new = for_new(
            _some(asked, config.new_share, random),
            catalogue.products.recommendable_N & ~observed.trained_N,
            bought,
            config.candidates_of_new,
            random,
        )
        visits = with_sessions(asked, config.session_share, random)
        newcomers = as_newcomers(_some(asked, config.newcomer_share, random), random)
        asked = [*visits, *novel, *new, *newcomers]
        statistics = count(before, catalogue, observed, begin, nearby, config)
        seen = fitted._replace(catalogue=catalogue, statistics=statistics)
        day = datetime.fromtimestamp(begin, UTC).date()
        _log.info("the ranker learns from %d baskets in the window that begins %s", len(asked), day)
        return gather_candidates(asked, *seen, recipe.towers.history_length)


def judged_examples(past: Histories, inside: Baskets, catalogue: Catalogue, seed: int) -> list[Example]:
    """Return what a release is judged by: the first baskets in the validation window of at most ``_JUDGED`` customers.

    Args:
        past: what happened before the window.
        inside: the baskets in it.
        catalogue: as observed when it began.
        seed: of the draw.
    """
    return first_baskets(past, inside, catalogue, _JUDGED, np.random.default_rng(seed))


def windows(past: Histories, moment: int, most: int) -> list[int]:
    """Return the moments at which the windows begin that a ranker learns from, the latest first, at most ``most``.

    One begins every week, or every day where there would be none otherwise.

    Raises:
        InvalidInput: the histories begin too late for even one window before the moment.
    """
    bought = past.events["at"][past.events["product"] >= 0]
    # Half of the time before the moment is the least that the towers may learn from.
    earliest = (int(bought.min()) + moment) // 2
    for step in (_WEEK, _DAY):
        begins = [begin for place in range(most) if (begin := moment - (place + 1) * step) >= earliest]
        if begins:
            return begins
    raise InvalidInput("--data", "expected purchases on at least two days before the validation window")


def _some(examples: Sequence[Example], share: float, random: np.random.Generator) -> list[Example]:
    return [one for one in examples if random.random() < share]
