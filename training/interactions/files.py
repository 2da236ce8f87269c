"""Files of interactions: a line is a customer and their products, separated by spaces.

``customer product product ...``: ids are any text without spaces, as long as the service takes it (see
``embeddings.catalogue.context.Identifier``). A file of interactions says what a customer had to do
with, in any order, once or more often; a file of sequences says it oldest first, and every mention counts. Letters: C
customers, N products.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from embeddings.arrays import Ragged
from embeddings.catalogue.context import EXPECTED_ID, Identifier
from embeddings.errors import InvalidInput
from training.interactions.config import SplitConfig

Kind = Literal["interactions", "sequences"]
_HELD_OUT = 0


@dataclass(frozen=True, slots=True)
class Interactions:
    """The products that each customer had to do with.

    Attributes:
        kind: in interactions each customer's products are distinct and ascending; in sequences they are as they came,
            oldest first, and may repeat.
        customers: the customers' ids, in the order of the file.
        products: the products' ids, in the order in which the file first names them.
        rows: each customer's products.
        repeated: the share of all mentions whose product the same customer had to do with before.
    """

    kind: Kind
    customers: tuple[str, ...]
    products: tuple[str, ...]
    rows: Ragged
    repeated: float = 0.0

    def with_rows(self, rows: Ragged) -> "Interactions":
        """Return the same customers and products, with other rows."""
        return replace(self, rows=rows)

    def product_counts(self) -> NDArray[np.int64]:
        """Return how often each product occurs (N)."""
        return np.bincount(self.rows.values, minlength=len(self.products))

    def matrix(self) -> csr_matrix:
        """Return a matrix (C, N) of ones where a customer had to do with a product."""
        ones = np.ones(len(self.rows.values), np.float32)
        shape = (len(self.customers), len(self.products))
        found = csr_matrix((ones, self.rows.values, self.rows.offsets), shape=shape)
        found.sum_duplicates()
        found.data[:] = 1
        return found


@dataclass(frozen=True, slots=True)
class Split:
    """One file in two parts.

    Attributes:
        fit: what is learnt from.
        held_out: what is predicted to choose the number of epochs.
    """

    fit: Interactions
    held_out: Interactions


def read(path: Path, kind: Kind) -> Interactions:
    """Read a file of interactions or of sequences.

    Raises:
        InvalidInput: naming file and line.
    """
    customers: dict[str, int] = {}
    products: dict[str, int] = {}
    rows: list[NDArray[np.int32]] = []
    mentions = repeated = 0
    for number, customer, named in _lines(path):
        mentions, repeated = mentions + len(named), repeated + len(named) - len(set(named))
        _refuse_twice(path, number, customer, customers)
        for new in {customer}.union(named) - products.keys():
            _check_id(path, number, new)
        row = np.array([products.setdefault(product, len(products)) for product in named], np.int32)
        rows.append(np.unique(row) if kind == "interactions" else row)
    return Interactions(kind, tuple(customers), tuple(products), Ragged.of(rows), repeated / max(mentions, 1))


def read_part(path: Path, whole: Interactions) -> Interactions:
    """Read a file of interactions that are all in another one, such as those held out for validation.

    Raises:
        InvalidInput: naming file and line, also of a customer or product that the other file does not name together.
    """
    customers = {customer: row for row, customer in enumerate(whole.customers)}
    products = {product: row for row, product in enumerate(whole.products)}
    rows: list[NDArray[np.int32]] = [np.zeros(0, np.int32)] * len(customers)
    seen: dict[str, int] = {}
    for number, customer, named in _lines(path):
        _refuse_twice(path, number, customer, seen)
        known = set(whole.rows[customers[customer]].tolist()) if customer in customers else set[int]()
        part = [products.get(product, -1) for product in named]
        for product, row in zip(named, part, strict=True):
            if row not in known:
                raise InvalidInput(
                    f"{path}:{number}", f"expected pairs that --data names too; {customer} and {product} are not there"
                )
        rows[customers[customer]] = np.unique(part).astype(np.int32)
    return whole.with_rows(Ragged.of(rows))


def hold_out_newest(whole: Interactions) -> Split:
    """Hold out the newest product of each sequence; leave a sequence of a single product whole.

    Raises:
        InvalidInput: nothing can be held out.
    """
    offsets = whole.rows.offsets
    held = np.zeros(len(whole.rows.values), np.bool_)
    held[offsets[1:][np.diff(offsets) >= 2] - 1] = True
    return _parted(whole, held)


def hold_out_share(whole: Interactions, config: SplitConfig, seed: int) -> Split:
    """Hold out a random share of each customer's products, at least one, of those who have enough of them.

    Raises:
        InvalidInput: nothing can be held out.
    """
    offsets, values = whole.rows.offsets, whole.rows.values
    sizes_C = np.diff(offsets)
    held_C = np.where(sizes_C >= config.fewest_products, np.maximum(1, np.round(config.share * sizes_C)), 0)
    # Each customer's products in random order; the first ones are held out.
    owners = np.repeat(np.arange(len(sizes_C)), sizes_C)
    order = np.lexsort((np.random.default_rng([seed, _HELD_OUT]).random(len(values)), owners))
    held = np.zeros(len(values), np.bool_)
    held[order] = (np.arange(len(values)) - offsets[owners]) < held_C[owners]
    return _parted(whole, held)


def hold_out(whole: Interactions, part: Interactions) -> Split:
    """Hold out a given part of interactions.

    Raises:
        InvalidInput: nothing would be left to learn from.
    """
    width = len(whole.products)
    pairs, held_pairs = (
        np.repeat(np.arange(len(one.customers)), np.diff(one.rows.offsets)) * width + one.rows.values
        for one in (whole, part)
    )
    held = np.isin(pairs, held_pairs)
    if held.all():
        raise InvalidInput("--validation", "expected a part of --data; it names all of it")
    return _parted(whole, held)


def _parted(whole: Interactions, held: NDArray[np.bool_]) -> Split:
    if not held.any():
        raise InvalidInput("--data", "expected customers with enough products to hold one out; found none")
    owners = np.repeat(np.arange(len(whole.customers)), np.diff(whole.rows.offsets))
    fit, held_out = (
        whole.with_rows(Ragged.grouped(owners[kept], whole.rows.values[kept], len(whole.customers)))
        for kept in (~held, held)
    )
    return Split(fit, held_out)


def _lines(path: Path) -> Iterator[tuple[int, str, list[str]]]:
    """Yield number, customer and products of every line."""
    try:
        text = path.read_text(encoding="utf-8").removesuffix("\n")
    except OSError as error:
        raise InvalidInput(str(path), f"expected a readable file; {error}") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(str(path), f"expected text in UTF-8; {error}") from error
    for number, line in enumerate(text.split("\n"), start=1):
        customer, *products = line.split() or [""]
        if not products:
            raise InvalidInput(f"{path}:{number}", f"expected: customer product product ...; got {line!r}")
        yield number, customer, products


def _check_id(path: Path, number: int, text: str) -> None:
    try:
        msgspec.convert(text, Identifier)
    except msgspec.ValidationError:
        raise InvalidInput(f"{path}:{number}", f"expected ids of {EXPECTED_ID}; got {text[:80]!r}") from None


def _refuse_twice(path: Path, number: int, customer: str, seen: dict[str, int]) -> None:
    first = seen.setdefault(customer, number)
    if first != number:
        raise InvalidInput(f"{path}:{number}", f"expected one line a customer; {customer} has line {first} already")
