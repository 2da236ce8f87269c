"""The use case: products that go with one product, in its place or beside it.

Letters: T neighbours.
"""

from typing import Literal, NamedTuple

import numpy as np

from embeddings.catalogue.columns import Catalogue
from embeddings.catalogue.eligible import EligibleSet
from serving.explain import Reason, wording
from serving.view import View

Relation = Literal["substitutes", "complements"]

_MOST_NAMED = 3


class Related(NamedTuple):
    """A product that goes with another.

    Attributes:
        row: catalogue row.
        score: of substitutes the cosine of the vectors by which products are similar, -1 to 1; of complements the share
            of the other's baskets that they lay in.
        reasons: why it goes with the other.
        support: of complements in how many baskets both lay.
    """

    row: int
    score: float
    reasons: list[Reason]
    support: int | None = None


def related(view: View, row: int, relation: Relation, eligible: EligibleSet, limit: int) -> list[Related]:
    """Return at most ``limit`` products that go with one, the closest first.

    Substitutes are what it may be replaced by. Complements lay in the same baskets, oftener than by chance.

    Args:
        view: what the request has pinned.
        row: of the product.
        relation: how they go with it.
        eligible: what may be shown.
        limit: how many.
    """
    return (_substitutes if relation == "substitutes" else _complements)(view, row, eligible, limit)


def _substitutes(view: View, row: int, eligible: EligibleSet, limit: int) -> list[Related]:
    rows = view.release.newest
    among = None if eligible.size == len(view.catalogue.products.ids) else eligible
    found = rows.similar.search(rows.units.take(np.array([row])), limit + 1, [among])
    pairs = zip(found.rows_BK[0].tolist(), found.scores_BK[0].tolist(), strict=True)
    return [
        Related(other, score, [_shared(view.catalogue, row, other)]) for other, score in pairs if other not in {row, -1}
    ][:limit]


def _complements(view: View, row: int, eligible: EligibleSet, limit: int) -> list[Related]:
    statistics, one = view.release.newest.statistics, np.array([row])
    near = statistics.complements
    rows_T, shares_T, together_T = (
        table.take(one)[0] for table in (near.rows_NT, near.weights_NT, statistics.together_NT)
    )
    kept_T = (rows_T >= 0) & eligible.contains(np.maximum(rows_T, 0).astype(np.int64))
    taken = wording(view.catalogue.targets).taken.capitalize()
    columns = (column[kept_T][:limit].tolist() for column in (rows_T, shares_T, together_T))
    return [
        Related(other, share, [_together(taken, times)], times) for other, share, times in zip(*columns, strict=True)
    ]


def _shared(catalogue: Catalogue, row: int, other: int) -> Reason:
    """Return which attributes two products share, the most telling first: those with the most values."""
    names, labels, codes_NA = catalogue.products.attributes
    shared = [
        (len(labels[at]), f"{names[at]} {labels[at][code - 1]}")
        for at, (code, theirs) in enumerate(zip(codes_NA[row].tolist(), codes_NA[other].tolist(), strict=True))
        if code > 0 and code == theirs
    ]
    if not shared:
        return wording(catalogue.targets).by_alike[0]
    named = [text for _, text in sorted(shared, reverse=True)[:_MOST_NAMED]]
    return Reason("same_attributes", f"Also {', '.join(named)}.")


def _together(taken: str, times: int) -> Reason:
    return Reason("bought_together", f"{taken} together {times:,} times.")
