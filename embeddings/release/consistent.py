"""Checks that the arrays of a bundle fit each other: a bad one is refused when it is opened, and not in a request.

Letters: N products, M locations, R regions, O offers, G promotion groups, L products carried, S products sold, A
attributes, P figures a product, Q groups of a product, T neighbours, D dimensions.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from embeddings.arrays import Ragged
from embeddings.catalogue.columns import Catalogue
from embeddings.errors import CorruptBundle
from embeddings.ranking.acceptance import Acceptance
from embeddings.ranking.statistics import GROUPINGS, HAZARD_DAYS, PRODUCT_STATISTICS, Statistics
from embeddings.vocabulary import Vocabulary

_LAST_MOMENT = 2**40
"""Seconds since 1970 UTC, beyond the year 9999."""


class _Folder(NamedTuple):
    """A folder of arrays, by which problems are named."""

    path: Path

    def expect(
        self,
        name: str,
        array: NDArray[Any],
        shape: Sequence[int],
        dtype: type,
        least: float | None = None,
        below: float | None = None,
    ) -> None:
        """Raise CorruptBundle unless an array has a shape and dtype, and holds finite numbers within bounds."""
        problem = None
        if array.shape != tuple(shape) or array.dtype != dtype:
            problem = f"expected {np.dtype(dtype)} {tuple(shape)}, found {array.dtype} {array.shape}"
        elif least is not None and array.size and not array.min() >= least:  # not so of no number, either
            problem = f"expected no number below {least}"
        elif below is not None and array.size and not array.max() < below:
            problem = f"expected numbers below {below}"
        if problem is not None:
            raise CorruptBundle(self.path / f"{name}.npy", problem)

    def expect_lists(self, name: str, lists: Ragged, count: int, below: int) -> None:
        """Raise CorruptBundle unless there are so many lists, of rows below a number."""
        values = lists.values
        self.expect_offsets(f"{name}-offsets", lists.offsets, count, len(values))
        self.expect(f"{name}-values", values, (len(values),), np.int32, least=0, below=below)

    def expect_ids(self, ids: Vocabulary) -> None:
        """Raise CorruptBundle unless the arrays of some ids fit each other."""
        count, text = len(ids), ids.base["text"]
        self.expect("ids-text", text, (len(text),), np.uint8)
        self.expect_offsets("ids-offsets", ids.base["offsets"], count, len(text))
        self.expect("ids-hashes", ids.base["hashes"], (count,), np.uint64)
        self.expect("ids-rows", ids.base["rows"], (count,), np.int32, least=0, below=max(count, 1))

    def expect_offsets(self, name: str, offsets: NDArray[Any], count: int, end: int) -> None:
        """Raise CorruptBundle unless offsets part so many entries into so many lists."""
        self.expect(name, offsets, (count + 1,), np.int64, least=0)
        if offsets[0] != 0 or offsets[-1] != end or (np.diff(offsets) < 0).any():
            raise CorruptBundle(self.path / f"{name}.npy", f"expected offsets from 0 to {end}")


def check_catalogue(folder: Path, catalogue: Catalogue) -> None:
    """Check that the columns of a catalogue fit each other.

    Raises:
        CorruptBundle: naming the first file that does not fit.
    """
    products, locations, offers, promotions = (_Folder(folder / name) for name in Catalogue._fields[2:6])
    size, count, offered = (len(part.ids) for part in (catalogue.products, catalogue.locations, catalogue.offers))
    for files, one in zip((products, locations, offers, promotions), catalogue[2:6], strict=True):
        files.expect_ids(one.ids)
    part = catalogue.products
    products.expect("codes", part.attributes.codes_NA, (size, len(part.attributes.names)), np.int32, least=0)
    products.expect("price", part.price_N, (size,), np.float64)
    products.expect("recommendable", part.recommendable_N, (size,), np.bool_)
    places = catalogue.locations
    locations.expect("coordinates", places.coordinates_M2, (count, 2), np.float64)
    locations.expect("regions", places.regions_M, (count,), np.int32, least=0, below=len(places.regions) + 1)
    locations.expect_lists("assortment", places.assortment, count, size)
    locations.expect("why", places.why_L, (len(places.assortment.values),), np.uint8)
    locations.expect_lists("assumed", places.assumed, len(places.regions) + 1, size)
    locations.expect("withdrawn", places.withdrawn_M, (count,), np.bool_)
    locations.expect_lists("unavailable", places.unavailable, count, size)
    some = catalogue.offers
    offers.expect("kinds", some.kinds_O, (offered,), np.uint8)
    offers.expect("starts", some.starts_O, (offered,), np.int64)
    offers.expect("ends", some.ends_O, (offered,), np.int64)
    offers.expect("audiences", some.audiences_O, (offered,), np.int32, least=-1, below=max(len(catalogue.audiences), 1))
    offers.expect("uses", some.uses_O, (offered,), np.int32)
    offers.expect("withdrawn", some.withdrawn_O, (offered,), np.bool_)
    offers.expect_lists("products", some.products, offered, size)
    offers.expect_lists("channels", some.channels, offered, len(catalogue.channels))
    offers.expect_lists("locations", some.locations, offered, count)
    plan, groups = catalogue.promotions, (len(catalogue.promotions.ids),)
    promotions.expect("channels", plan.channels_G, groups, np.int32, least=-1, below=len(catalogue.channels))
    promotions.expect("locations", plan.locations_G, groups, np.int32, least=0, below=max(count, 1))
    promotions.expect("starts", plan.starts_G, groups, np.int64)
    promotions.expect("ends", plan.ends_G, groups, np.int64)
    promotions.expect_lists("products", plan.products, *groups, size)


def check_statistics(folder: Path, statistics: Statistics, catalogue: Catalogue) -> None:
    """Check that statistics are of the products, locations and offers of a catalogue.

    Raises:
        CorruptBundle: naming the first file that does not fit.
    """
    files, seen = _Folder(folder), statistics.observed
    size, count = len(catalogue.products.ids), len(catalogue.locations.ids)
    lists = count + 1 + len(catalogue.locations.regions)
    files.expect("popularity", seen.popularity_N, (size,), np.float32, least=0)
    files.expect("trained", seen.trained_N, (size,), np.bool_)
    files.expect_lists("sold", seen.sold, lists, size)
    sold = (len(seen.sold.values),)
    files.expect("sold-popularity", seen.popularity_L, sold, np.float32, least=0)
    files.expect("sold-lists", seen.lists_M, (count,), np.int64, least=-1, below=lists)
    files.expect("month", statistics.month_L, sold, np.float32, least=0)
    files.expect("products", statistics.products_NP.base, (size, len(PRODUCT_STATISTICS)), np.float32, least=0)
    files.expect("unsold", statistics.unsold_P, (len(PRODUCT_STATISTICS),), np.float32, least=0)
    files.expect("groups", statistics.groups_NQ.base, (size, len(GROUPINGS)), np.int32, least=0)
    spans, types = len(HAZARD_DAYS) + 1, int(statistics.groups_NQ.base[:, 0].max(initial=0)) + 1
    files.expect("hazards", statistics.hazards_NH.base, (size, spans), np.float32, least=0)
    files.expect("hazards-types", statistics.hazards_GH, (types, spans), np.float32, least=0)
    if len(statistics.attributes) != len(GROUPINGS):
        raise CorruptBundle(folder / "attributes.json", f"expected {len(GROUPINGS)} names of attributes")
    for name, near in (
        ("also-bought", statistics.also_bought),
        ("bought-together", statistics.bought_together),
        ("complements", statistics.complements),
    ):
        shape = (size, near.rows_NT.columns)
        files.expect(f"{name}-rows", near.rows_NT.base, shape, np.int32, least=-1, below=size)
        files.expect(f"{name}-weights", near.weights_NT.base, shape, np.float32, least=-np.inf)
    together = statistics.complements.rows_NT.base.shape
    files.expect("complements-baskets", statistics.together_NT.base, together, np.int32, least=0)
    width = statistics.als.products_ND.columns
    files.expect("als-products", statistics.als.products_ND.base, (size, width), np.float32, least=-np.inf)
    files.expect("als-gram", statistics.als.gram_DD, (width, width), np.float32, least=-np.inf)
    groups = len(statistics.lifts_GG)
    files.expect("lifts", statistics.lifts_GG, (max(groups, 1), groups), np.float32, least=-np.inf)
    _check_acceptance(files, statistics.acceptance, len(catalogue.offers.ids))
    files.expect("redeemed", statistics.redeemed_O, (len(catalogue.offers.ids),), np.float32, least=0)


def _check_acceptance(files: _Folder, acceptance: Acceptance, offers: int) -> None:
    """Check what is known of how offers are accepted; nothing may be."""
    count, values = len(acceptance.log_odds_O) and offers, acceptance.evidence_OV.shape[-1]
    fields = len(acceptance.offsets_F) - 1
    files.expect("acceptance-offers", acceptance.log_odds_O, (count,), np.float32, least=-np.inf)
    files.expect("acceptance-unseen", acceptance.unseen, (1,), np.float32, least=-np.inf)
    files.expect("acceptance-evidence", acceptance.evidence_OV, (count, values), np.float32, least=-np.inf)
    files.expect_offsets("acceptance-fields", acceptance.offsets_F, max(fields, 0), values)
    files.expect("acceptance-until", acceptance.until, (1,), np.int64, least=0, below=_LAST_MOMENT)
    files.expect("acceptance-of-customer", acceptance.of_customer, (1,), np.int64, least=0, below=fields + 1)
