"""What the ranker of offers learns from: each redemption with what went before it, by whomever, and nothing later."""

from datetime import datetime, timedelta

import numpy as np
import polars as pl
import torch

from embeddings.offers import OFFER_FACTS
from tests.unit.test_examples import RECIPE, read
from tests.world import UNTIL, tables
from training.catalogue import observe
from training.evaluate import Fitted
from training.fit import Towers, fit_als, product_vectors
from training.offers import offer_examples
from training.ranker import Ranker
from training.statistics import count, find_nearby

BEGIN = UNTIL - timedelta(days=8)
FIRST, SECOND, THIRD = (BEGIN + timedelta(days=days) for days in (1, 2, 3))


def redemption(customer: str, offer: str, at: datetime) -> dict[str, object]:
    return {"customer_id": customer, "type": "redemption", "at": at, "channel": "store", "offer_id": offer}


def test_every_redemption_knows_those_before_it_and_none_of_its_moment_or_later():
    redeemed = pl.DataFrame(
        [
            redemption("c000", "everyone", BEGIN - timedelta(hours=1)),
            redemption("c001", "everyone", FIRST),
            redemption("c002", "everyone", SECOND),
            redemption("c003", "everyone", THIRD),
            redemption("c003", "at-north", THIRD),
            redemption("c004", "coming", FIRST),  # not valid yet
        ]
    ).with_columns(pl.col("at").dt.cast_time_unit("us"))
    master, histories = read(pl.concat([tables()["events"], redeemed], how="diagonal"))
    begin = int(BEGIN.timestamp())
    past = histories.before(begin)
    catalog = observe(master, past.events, begin, RECIPE.assortment)
    als = fit_als(past, len(catalog.products.ids), RECIPE)
    nearby = find_nearby(past, catalog, als.products_ND, RECIPE.als.regularisation, RECIPE.ranker)
    towers = Towers(catalog, histories, RECIPE).eval()
    vectors_ND = product_vectors(towers, catalog, torch.device("cpu"))
    fitted = Fitted(catalog, count(past, catalog, begin, nearby, RECIPE.ranker), towers, vectors_ND)

    end = int(UNTIL.timestamp())
    found = offer_examples(histories, begin, end, fitted, Ranker((4,)), RECIPE.towers.history_length)

    # Rows of ``everyone``, ``expired``, which then was valid still, and ``at-north``.
    by_others = [one.facts_OF[:, OFFER_FACTS.index("redeemed_by_others")].tolist() for one in found]
    assert by_others == [[1, 0, 0], [2, 0, 0], [3, 0, 0]]
    assert [one.taken_O.tolist() for one in found] == [[1, 0, 0], [1, 0, 0], [1, 0, 1]]
    assert all(np.isfinite(one.facts_OF).all() for one in found)
