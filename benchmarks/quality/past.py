"""What a baseline may learn from: baskets before a cut-off, as rows and columns.

Shapes: H households, P products.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import csr_matrix


class Past(NamedTuple):
    """Purchases before a cut-off.

    Attributes:
        household_rows: by id.
        products: ids, by number; a product's place is its column.
        product_columns: by id.
        lines_HP: on how many lines of receipts.
        baskets: by household, in the order of time, the columns in each.
    """

    household_rows: Mapping[str, int]
    products: list[str]
    product_columns: Mapping[str, int]
    lines_HP: csr_matrix
    baskets: Sequence[Sequence[NDArray[np.int64]]]

    @classmethod
    def of(cls, lines: pl.DataFrame) -> "Past":
        """Return the past that these lines make up; columns as in `purchase_lines`."""
        households = lines["household_id"].unique().sort().to_list()
        products = sorted(lines["product_id"].unique().to_list(), key=int)
        household_rows = {household: row for row, household in enumerate(households)}
        product_columns = {product: column for column, product in enumerate(products)}
        located = lines.select(
            "basket_id",
            "at",
            row=pl.col("household_id").replace_strict(household_rows, return_dtype=pl.Int64),
            column=pl.col("product_id").replace_strict(product_columns, return_dtype=pl.Int64),
        )
        counts = located.group_by("row", "column").len()
        lines_HP = csr_matrix(
            (counts["len"].to_numpy().astype(np.float64), (counts["row"].to_numpy(), counts["column"].to_numpy())),
            shape=(len(households), len(products)),
        )
        baskets: list[list[NDArray[np.int64]]] = [[] for _ in households]
        grouped = located.group_by("row", "basket_id").agg(pl.min("at"), pl.col("column").unique().sort())
        for row, columns in grouped.sort("row", "at", "basket_id").select("row", "column").iter_rows():
            baskets[row].append(np.array(columns, np.int64))
        return cls(household_rows, products, product_columns, lines_HP, baskets)
