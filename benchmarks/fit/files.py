"""Files of interactions and of sequences, and what is held out of them.

A line is a customer and their products. Letters: C customers, N products.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from scipy.sparse import csr_matrix

from benchmarks.harness.release import UNTIL
from benchmarks.quality.interactions import Kind, read_lines
from benchmarks.quality.journey import journey
from embeddings.errors import InvalidInput

_SHARE, _FEWEST = 0.1, 5
"""Of interactions a random tenth of the products of customers with at least five is held out."""


class Held(NamedTuple):
    """A file split into a fitted and a held-out part.

    Attributes:
        fitted_CN: ones where a customer had to do with a product.
        held_out: by the customer's row, the rows of the products that are held out.
    """

    fitted_CN: csr_matrix
    held_out: dict[int, set[int]]


def write_first_purchases(path: Path) -> None:
    """Write the products each household of Complete Journey bought, each once and in order.

    Only purchases before the suites' cut-off count.
    """
    lines = journey(UNTIL).past.sort("at", "basket_id", "product_id")
    first = lines.group_by("household_id", maintain_order=True).agg(pl.col("product_id").unique(maintain_order=True))
    path.write_text("".join(f"{household} {' '.join(products)}\n" for household, products in first.iter_rows()))


def hold_out(file: Path, kind: Kind, validation: Path) -> Held:
    """Split a file into a fitted and a held-out part, and write the held-out part.

    Training splits sequences the same way by itself. For interactions it is told to hold out what is written here.

    Args:
        file: the file to split.
        kind: of sequences the newest product of each is held out.
        validation: where to write what is held out, in lines as in the file.

    Raises:
        InvalidInput: the file cannot be read, or nothing can be held out.
    """
    random = np.random.default_rng(0)
    products: dict[str, int] = {}
    owners: list[int] = []
    columns: list[int] = []
    held_out: dict[int, set[int]] = {}
    text: list[str] = []
    lines = read_lines(file)
    for row, (customer, *named) in enumerate(lines):
        if kind == "sequences":
            held = named[-1:] if len(named) > 1 else []
            kept = named[: len(named) - len(held)]
        else:
            distinct = list(dict.fromkeys(named))
            count = max(1, round(_SHARE * len(distinct))) if len(distinct) >= _FEWEST else 0
            held = [distinct[place] for place in random.permutation(len(distinct))[:count].tolist()]
            kept = [one for one in distinct if one not in held]
        columns += [products.setdefault(one, len(products)) for one in kept]
        owners += [row] * len(kept)
        if held:
            held_out[row] = {products.setdefault(one, len(products)) for one in held}
            text.append(f"{customer} {' '.join(held)}\n")
    if not held_out:
        raise InvalidInput("--data", f"expected customers with enough products to hold one out; {file} has none")
    validation.write_text("".join(text), encoding="utf-8")
    shape = (len(lines), len(products))
    fitted = csr_matrix((np.ones(len(owners), np.float32), (owners, columns)), shape=shape)
    fitted.sum_duplicates()
    fitted.data[:] = 1
    return Held(fitted, held_out)
