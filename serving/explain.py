"""Reasons for showing an item: stable codes with sentences, each of which the data bear out.

Letters: K items, R products.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from embeddings import kernel
from embeddings.arrays import among
from embeddings.catalogue.eligibility import Place
from embeddings.catalogue.tables import TargetType
from embeddings.customer.history import History
from embeddings.customer.session import Session, session_of
from embeddings.ranking.profile import DAY
from embeddings.ranking.statistics import PRODUCT_STATISTICS, Statistics
from serving.ranked import Ranked
from serving.view import View


class Reason(Struct, frozen=True):
    """Why an item is shown.

    Attributes:
        code: stable, for programs: bought_before, due_now, goes_with_basket, goes_with_viewed, viewed, bought_by_alike,
            near_taste, fits_context, named, covers_bought, covers_popular_here, covers_popular, popular_here, popular,
            eligible, valid_until; of similar products same_attributes, bought_by_alike, bought_together.
        text: one English sentence, for people.
    """

    code: str
    text: str


_WORDS = {
    "purchase": ("bought", "buy"),
    "check_in": ("visited", "visit"),
    "play": ("played", "play"),
    "rating": ("rated", "rate"),
    "add_to_cart": ("put into the basket", "put into the basket"),
    "click": ("clicked", "click"),
    "view": ("viewed", "view"),
}
"""What customers did and do with a product, by the type of event that is predicted."""


class Wording(NamedTuple):
    """Reasons in the words of what is predicted.

    Attributes:
        taken: what customers did, such as bought.
    """

    taken: str
    near_taste: list[Reason]
    goes_with_basket: list[Reason]
    goes_with_viewed: list[Reason]
    by_alike: list[Reason]


@lru_cache(16)
def wording(targets: tuple[TargetType, ...]) -> Wording:
    """Return the reasons in the words of a catalogue's targets, the weightiest first."""
    taken, take = _WORDS[targets[0]]
    near = "bought, viewed or put into the basket" if targets[0] == "purchase" else taken
    named = taken.capitalize()
    return Wording(
        taken,
        [Reason("near_taste", f"Close to what this customer has {near}.")],
        [Reason("goes_with_basket", f"{named} together with what is in the basket now.")],
        [Reason("goes_with_viewed", f"{named} together with what was viewed just now.")],
        [Reason("bought_by_alike", f"{named} by customers who {take} much the same.")],
    )


_FITS_PLACE = [Reason("fits_context", "Likely at such a place and time.")]
_FITS_TIME = [Reason("fits_context", "Likely at such a time.")]
_VIEWED = [Reason("viewed", "Viewed just now.")]
_NAMED = [Reason("named", "One of those asked about.")]
_ELIGIBLE = [Reason("eligible", "Allowed here and now.")]

_EVERYBODY = ("trending", "popular")
"""The sources that know nothing of the customer."""

_DUE = 2.0
"""So many times the usual gap, or one in so many of it, may have passed where it is about time again."""

_MONTH, _GAP = (PRODUCT_STATISTICS.index(name) for name in ("month", "gap"))
_KEPT = 4_096


def reasons(ranked: Sequence[Ranked], view: View, history: History, place: Place, moment: int) -> list[list[Reason]]:
    """Return the reasons for each ranked item, the weightiest first.

    Args:
        ranked: what is shown.
        view: that ranked it.
        history: of the customer.
        place: asked about.
        moment: asked about, in seconds since 1970 UTC.
    """
    times = history.purchases.times([one.row for one in ranked])
    due = iter(_due([one.row for one in ranked if one.source == "due_now"], view, history, moment))
    popular = iter(
        _popular([one.row for one in ranked if one.source in _EVERYBODY and one.kind == "product"], view, place)
    )
    session: Session | None = None
    said = wording(view.catalogue.targets)
    given: list[list[Reason]] = []
    for one, bought in zip(ranked, times, strict=True):
        if one.kind == "offer":
            why = _of_offer(one.row, view, history, place)
        elif one.source == "due_now":
            why = next(due) + _bought(said.taken, bought)
        elif one.source == "buy_again":
            why = _bought(said.taken, bought)
        elif one.source == "bought_together":
            session = session or session_of(history, moment)
            why = _together(one.row, view.release.newest.statistics, session, said)
        elif one.source == "also_bought":
            why = said.by_alike
        elif one.source == "towers":
            why = said.near_taste if history.has_interactions else _FITS_PLACE if place.rows else _FITS_TIME
        elif one.source == "named":
            why = _NAMED
        else:
            why = next(popular)
        given.append(why)
    return given


@lru_cache(_KEPT)
def _bought(taken: str, times: int) -> list[Reason]:
    return [Reason("bought_before", f"{taken.capitalize()} {_often(times)} before.")]


@lru_cache(_KEPT)
def _valid_until(ends: int) -> Reason:
    return Reason("valid_until", f"Valid until {datetime.fromtimestamp(ends, UTC):%Y-%m-%d %H:%M} UTC.")


def _due(rows: Sequence[int], view: View, history: History, moment: int) -> list[list[Reason]]:
    """Return the reason for each product that is due: about its usual gap has passed since it was bought last.

    The list of a product that is not due is empty.
    """
    if not rows:
        return []
    profile, products_NP = view.release.profile(history.purchases), view.release.newest.statistics.products_NP
    away = max(moment - profile.newest, 0) / DAY
    taken = wording(view.catalogue.targets).taken
    found: list[list[Reason]] = []
    for gap, since in kernel.usual_gaps(profile.customer, products_NP, _GAP, rows):
        is_due = gap > 0 and gap / _DUE <= since + away <= gap * _DUE
        found.append(_bought_every(taken, round(gap), round(since + away)) if is_due else [])
    return found


@lru_cache(_KEPT)
def _bought_every(taken: str, gap: int, since: int) -> list[Reason]:
    text = f"{taken.capitalize()} every {_days(gap, 'day')} or so, last {_days(since, 'a day')} ago."
    return [Reason("due_now", text)]


def _together(row: int, statistics: Statistics, session: Session | None, said: Wording) -> list[Reason]:
    if session is not None and row in statistics.bought_together.rows_NT.take(session.cart):
        return said.goes_with_basket
    return _VIEWED if session is not None and row in session.looked else said.goes_with_viewed


def _popular(rows: Sequence[int], view: View, place: Place) -> list[list[Reason]]:
    """Return the reasons for popular products: how often each was bought, here if it was bought here at all."""
    if not rows:
        return []
    statistics, day = view.release.newest.statistics, _day(view)
    taken = wording(view.catalogue.targets).taken.capitalize()
    here = _sold_here(rows, statistics, place)
    month = statistics.products_NP.take(np.array(rows))[:, _MONTH].tolist()
    return [
        _sold("popular_here", f"{taken} {{}} here", round(sold), day)
        or _sold("popular", f"{taken} {{}}", round(anywhere), day)
        or _ELIGIBLE
        for sold, anywhere in zip(here, month, strict=True)
    ]


def _of_offer(row: int, view: View, history: History, place: Place) -> list[Reason]:
    """Return the reasons for an offer: what it covers, if the customer or anybody lately has bought it, and its end."""
    catalogue, statistics = view.catalogue, view.release.newest.statistics
    covered_R, until = catalogue.offers.products[row], _valid_until(int(catalogue.offers.ends_O[row]))
    count, taken = _among(covered_R, history.purchases.rows_R), wording(view.catalogue.targets).taken
    if count:
        what = "product" if count == 1 else "products"
        return [Reason("covers_bought", f"Covers {count} {what} {taken} before."), until]
    day = _day(view)
    here = sum(_sold_here(covered_R.tolist(), statistics, place))
    month = float(statistics.products_NP.take(covered_R)[:, _MONTH].sum())
    covers = _sold("covers_popular_here", f"Covers products {taken} {{}} here", round(here), day)
    return [*(covers or _sold("covers_popular", f"Covers products {taken} {{}}", round(month), day)), until]


def _sold_here(rows: Sequence[int], statistics: Statistics, place: Place) -> list[float]:
    """Return how often some products were bought at the locations of a place in the four weeks before the cut-off."""
    observed = statistics.observed
    sold, lists = observed.sold, observed.lists_of(place.rows)
    return kernel.sold_at(sold.offsets, sold.values, statistics.month_L, lists, rows)


def _day(view: View) -> str:
    """Return the day of the data cut-off."""
    return _iso_day(view.release.bundle.manifest.data_cut_off)


@lru_cache(_KEPT)
def _iso_day(moment: datetime) -> str:
    return moment.date().isoformat()


@lru_cache(_KEPT)
def _sold(code: str, what: str, times: int, day: str) -> list[Reason]:
    if not times:
        return []
    return [Reason(code, f"{what.format(_often(times))} in the four weeks before {day}.")]


def _among(some: NDArray[np.integer], rows_R: NDArray[np.int64]) -> int:
    """Return how many of some rows are among others; both ascending and distinct."""
    few, many = (some, rows_R) if len(some) < len(rows_R) else (rows_R, some)
    return int(np.count_nonzero(among(many, few)))


def _often(times: int) -> str:
    return "once" if times == 1 else f"{times:,} times"


def _days(days: int, one: str) -> str:
    return one if days <= 1 else f"{days} days"
