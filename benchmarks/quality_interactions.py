"""How well files of interactions and of sequences are foretold: full ranking, products already had left out.

Protocol. For interactions, the model is trained on one file and another holds what is to be foretold of the same
customers: Recall@20 and NDCG@20. For sequences, the newest product of each is taken off the file, the model is trained
on the rest and foretells it: the hit rate and NDCG of ten. A second model, a product behind, is trained without the
newest product of that rest as well, and reads it nonetheless when it foretells: much of the literature never learns
from the last product but one, which it validates with. The number of epochs is found on what training holds out for
itself; what is tested was never seen. Ratios are means over customers; intervals are of 1,000 resamples of customers.

Letters: C customers tested, N products, V dimensions, K products of a ranking.
"""

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from implicit.als import AlternatingLeastSquares
from implicit.nearest_neighbours import CosineRecommender
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

from benchmarks import machine
from benchmarks.quality.bootstrap import Figure, Resamples
from benchmarks.report import Table, write_report
from embeddings.bundle import CATALOG, CUSTOMER_ENCODER, PRODUCT_VECTORS, open_histories, read_manifest
from embeddings.catalog import Catalog
from embeddings.encoders import CustomerEncoder
from embeddings.errors import InvalidInput
from embeddings.features import Situation, encode
from embeddings.history import Histories
from embeddings.index.planned import PlannedIndex
from embeddings.metrics import ndcg_at, recall_at
from embeddings.store import BundleStore

Kind = Literal["interactions", "sequences"]
KS: Mapping[Kind, int] = {"interactions": 20, "sequences": 10}

_ALS_FACTORS = 64
_NEIGHBOURS = 100
_AT_ONCE = 512

Rankings = list[list[int]]


class Lines(NamedTuple):
    """A file's customers and their products, as texts."""

    customers: list[str]
    products: list[list[str]]


class Question(NamedTuple):
    """A customer to be asked about.

    Attributes:
        row: in the histories of the release.
        seen: product rows that are left out.
        wanted: product rows to be foretold; -1 for one that training never saw.
    """

    row: int
    seen: set[int]
    wanted: set[int]


def run(
    data: str, test: Path | None, recipe: Path, store: Path, json_file: Path, *, validation: Path | None = None
) -> Mapping[str, Mapping[str, Figure]]:
    """Train through the command line, rank, print and write the result; returns the figures by method.

    Args:
        data: ``interactions:FILE`` or ``sequences:FILE``.
        test: for interactions, the file of what is to be foretold; None for sequences.
        recipe: what to train.
        store: a store of its own for this benchmark.
        json_file: where to write everything that was measured.
        validation: for interactions, the pairs that training holds out; None for a share of its own choice.

    Raises:
        InvalidInput: ``data`` or ``test`` is of neither kind.
    """
    kind, file = _kind(data, test)
    trained_on, asked = file, test
    if asked is None:
        trained_on, asked = _parted(file, store)
    start = time.monotonic()
    _train(f"{kind}:{trained_on}", recipe, store, validation)
    seconds = time.monotonic() - start

    releases = BundleStore(store)
    version = releases.current()
    bundle = releases.bundle(version)
    manifest = read_manifest(bundle)
    _, histories = open_histories(releases.histories(version))
    products_NV = np.load(bundle / PRODUCT_VECTORS)
    product_rows = {product: row for row, product in enumerate(Catalog.load(bundle / CATALOG).products.ids.ids())}
    questions = _questions(_read(asked), histories, product_rows)
    rows_C = [question.row for question in questions]
    had = _matrix(histories, len(products_NV))
    k = KS[kind]
    customers_CV = np.load(releases.histories(version) / "vectors.npy")[rows_C]
    rankings = {
        "most popular": _popular(had, questions, k),
        **_baseline(kind, had, rows_C, k),
        "opportune, from the history alone": _told(bundle, products_NV, histories, questions, k),
        "opportune": _ranked(products_NV, customers_CV, questions, k),
    }
    if kind == "sequences":
        behind = store / "behind"
        _train(f"{kind}:{_parted(trained_on, behind)[0]}", recipe, behind, None)
        older = BundleStore(behind)
        older_bundle = older.bundle(older.current())
        older_NV = _numbered(older_bundle, product_rows)
        rankings["opportune, a product behind"] = _told(older_bundle, older_NV, histories, questions, k)
    resamples = Resamples([str(row) for row in rows_C])
    recall = f"recall@{k}" if kind == "interactions" else f"hit rate@{k}"
    results = {
        method: {
            recall: resamples.mean(
                [recall_at(row, question.wanted, k) for row, question in zip(ranking, questions, strict=True)]
            ),
            f"ndcg@{k}": resamples.mean(
                [ndcg_at(row, question.wanted, k) for row, question in zip(ranking, questions, strict=True)]
            ),
        }
        for method, ranking in rankings.items()
    }
    report = {
        "suite": f"quality-{kind}",
        "data": file.name,
        "recipe": recipe.name,
        "customers": len(questions),
        "to_foretell": sum(len(question.wanted) for question in questions),
        "version": version,
        "validation": manifest.metrics,
        "results": results,
        "training_seconds": round(seconds),
        "machine": machine.describe(),
    }
    write_report(json_file, report)
    table = Table(f"{file.name}, {recipe.stem}", ["method", *results["opportune"]])
    for method, figures in results.items():
        table.add(method, *(f"{one.value:.4f} ({one.low:.4f} to {one.high:.4f})" for one in figures.values()))
    table.print()
    return results


def _kind(data: str, test: Path | None) -> tuple[Kind, Path]:
    for kind in KS:
        if data.startswith(f"{kind}:"):
            if (test is None) != (kind == "sequences"):
                raise InvalidInput("--test", "expected for interactions, and only for them")
            return kind, Path(data.removeprefix(f"{kind}:"))
    raise InvalidInput("--data", f"expected interactions:FILE or sequences:FILE; got {data}")


def _read(file: Path) -> Lines:
    lines = [line.split() for line in file.read_text(encoding="utf-8").splitlines()]
    return Lines([customer for customer, *_ in lines], [products for _, *products in lines])


def _parted(file: Path, store: Path) -> tuple[Path, Path]:
    """Write a file of sequences without its newest products, and one of these alone; sequences of one are left out."""
    store.mkdir(parents=True, exist_ok=True)
    lines = [line.split() for line in file.read_text(encoding="utf-8").splitlines()]
    lines = [line for line in lines if len(line) > 2]
    past, newest = store / "past.txt", store / "newest.txt"
    past.write_text("".join(f"{' '.join(line[:-1])}\n" for line in lines), encoding="utf-8")
    newest.write_text("".join(f"{line[0]} {line[-1]}\n" for line in lines), encoding="utf-8")
    return past, newest


def _train(data: str, recipe: Path, store: Path, validation: Path | None) -> None:
    command = [sys.executable, "-m", "training", "--data", data, "--recipe", str(recipe), "--store", str(store)]
    if validation is not None:
        command += ["--validation", str(validation)]
    subprocess.run(command, check=True)  # noqa: S603 - the arguments are ours


def _questions(asked: Lines, histories: Histories, product_rows: Mapping[str, int]) -> list[Question]:
    """Customers of whom something is to be foretold that they have not had already."""
    questions: list[Question] = []
    for customer, products in zip(asked.customers, asked.products, strict=True):
        row = histories.customers.row(customer)
        if row is None:
            raise InvalidInput("--test", f"expected customers that --data names; {customer} is not there")
        seen = set(histories[row].events_E["product"].tolist())
        # Several products that training never saw are several misses: each gets a number of its own.
        wanted = {product_rows.get(product, -1 - place) for place, product in enumerate(products)} - seen
        if wanted:
            questions.append(Question(row, seen, wanted))
    return questions


def _matrix(histories: Histories, products: int) -> csr_matrix:
    """Ones where a customer had a product."""
    columns = np.array(histories.events["product"])  # copies: implicit writes where the histories are read-only
    matrix = csr_matrix(
        (np.ones(len(columns), np.float32), columns, histories.offsets.copy()),
        shape=(len(histories.customers), products),
    )
    matrix.sum_duplicates()
    matrix.data[:] = 1
    return matrix


def _popular(had: csr_matrix, questions: Sequence[Question], k: int) -> Rankings:
    order = np.argsort(-np.bincount(had.indices), kind="stable").tolist()
    rankings: Rankings = []
    for question in questions:
        new = (row for row in order if row not in question.seen)
        rankings.append([row for row, _ in zip(new, range(k), strict=False)])
    return rankings


def _baseline(kind: Kind, had: csr_matrix, rows_C: Sequence[int], k: int) -> dict[str, Rankings]:
    """What implicit answers: ALS for interactions, nearest neighbours of products for sequences."""
    model: Any
    if kind == "interactions":
        name, model = "implicit ALS", AlternatingLeastSquares(factors=_ALS_FACTORS, use_gpu=False, random_state=1)
    else:
        name, model = "item-kNN", CosineRecommender(K=_NEIGHBOURS)
    with threadpool_limits(1, "blas"):  # implicit brings threads of its own
        model.fit(had, show_progress=False)
        rows, _ = model.recommend(np.asarray(rows_C), had[rows_C], N=k, filter_already_liked_items=True)
    return {name: rows.tolist()}


def _numbered(bundle: Path, product_rows: Mapping[str, int]) -> NDArray[np.float32]:
    """Product vectors of a release by rows of another (N, V); zeros, near to nobody, for products it does not know."""
    vectors = np.load(bundle / PRODUCT_VECTORS)
    products_NV = np.zeros((len(product_rows), vectors.shape[1]), np.float32)
    products_NV[[product_rows[product] for product in Catalog.load(bundle / CATALOG).products.ids.ids()]] = vectors
    return products_NV


def _told(
    bundle: Path, products_NV: NDArray[np.float32], histories: Histories, questions: Sequence[Question], k: int
) -> Rankings:
    """The best products for customers as the service sees them, by their histories."""
    encoder, length = CustomerEncoder(bundle / CUSTOMER_ENCODER, "cpu"), read_manifest(bundle).history_length
    parts: list[NDArray[np.float32]] = []
    for start in range(0, len(questions), _AT_ONCE):
        some = [histories[question.row] for question in questions[start : start + _AT_ONCE]]
        parts.append(encoder.encode(encode(some, [Situation(0, -1, 0)] * len(some), length), products_NV))
    return _ranked(products_NV, np.concatenate(parts), questions, k)


def _ranked(
    products_NV: NDArray[np.float32], customers_CV: NDArray[np.float32], questions: Sequence[Question], k: int
) -> Rankings:
    """The best products that a customer has not had."""
    index = PlannedIndex(products_NV, "cpu")
    rankings: Rankings = [[] for _ in questions]
    # Together go customers who had about as many products, as that many more have to be found.
    order = sorted(range(len(questions)), key=lambda place: len(questions[place].seen))
    for start in range(0, len(order), _AT_ONCE):
        some = order[start : start + _AT_ONCE]
        deep = k + len(questions[some[-1]].seen)
        found = index.search(np.ascontiguousarray(customers_CV[some]), deep, [None] * len(some)).rows_BK
        for place, rows in zip(some, found.tolist(), strict=True):
            rankings[place] = [row for row in rows if row not in questions[place].seen][:k]
    return rankings
