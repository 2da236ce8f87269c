"""How well files of interactions and of sequences are predicted: full ranking, products already had left out.

Protocol. For interactions, the model is trained on one file and another holds what is to be predicted of the same
customers: Recall@20 and NDCG@20. For sequences, the newest product of each is taken off the file, the model is trained
on the rest and predicts it: the hit rate and NDCG of ten. A second model, a product behind, is trained without the
newest product of that rest as well, and reads it nonetheless when it predicts: much of the literature never learns
from the last product but one, which it validates with. The number of epochs is found on what training holds out for
itself; what is tested was never seen. Ratios are means over customers; intervals are of 1,000 resamples of customers.

Letters: C customers tested, N products, V dimensions, K products of a ranking.
"""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from implicit.als import AlternatingLeastSquares
from implicit.nearest_neighbours import CosineRecommender
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

from benchmarks.harness import machine
from benchmarks.harness.release import RECIPES, current
from benchmarks.harness.report import Table, write_report
from benchmarks.quality.bootstrap import Figure, Resamples
from embeddings.catalogue.columns import Catalogue
from embeddings.customer.history import Histories
from embeddings.customer.tower_input import Situation, encode, situation_sizes
from embeddings.errors import InvalidInput
from embeddings.index.planned import PlannedIndex
from embeddings.metrics import ndcg_at, recall_at
from embeddings.release.bundle import CATALOG, CUSTOMER_ENCODER, PRODUCT_VECTORS, open_histories, read_manifest
from embeddings.release.encoders import CustomerEncoder
from embeddings.release.store import BundleStore

Kind = Literal["interactions", "sequences"]
KS: Mapping[Kind, int] = {"interactions": 20, "sequences": 10}
"""How many products of a ranking count, as the literature has it."""
DEFAULT_RECIPES: Mapping[Kind, Path] = {
    "interactions": RECIPES / "lightgcn.toml",
    "sequences": RECIPES / "sasrec.toml",
}
"""What training takes of itself; named, so that a release of an earlier state of it is not taken for one of it."""

_ALS_FACTORS = 64
_NEIGHBOURS = 100
_AT_ONCE = 512

Rankings = list[list[int]]


class Question(NamedTuple):
    """A customer to be asked about.

    Attributes:
        row: in the histories of the release.
        seen: product rows that are left out.
        wanted: product rows to be predicted; -1 for one that training never saw.
    """

    row: int
    seen: set[int]
    wanted: set[int]


def run(
    data: str,
    test: Path | None,
    recipe: Path | None,
    store: Path,
    json_file: Path,
    *,
    validation: Path | None = None,
) -> Mapping[str, Mapping[str, Figure]]:
    """Train through the command line, rank, print and write the result; return the figures by method.

    Args:
        data: ``interactions:FILE`` or ``sequences:FILE``.
        test: for interactions, the file of what is to be predicted; None for sequences.
        recipe: what to train; None for the default of this kind of file.
        store: a folder for the stores of this suite, one for each file and recipe.
        json_file: where to write everything that was measured.
        validation: for interactions, the pairs that training holds out; None for a share of its own choice.

    Raises:
        InvalidInput: ``data``, ``test`` or ``validation`` does not fit the kind of file, or a file cannot be read.
    """
    kind, file = _kind(data, test, validation)
    trained_on, asked = file, test
    if asked is None:
        trained_on, asked = _parted(file, store)
    recipe = recipe or DEFAULT_RECIPES[kind]
    predicted = read_lines(asked)
    releases, version = _release(kind, trained_on, recipe, store, validation)
    bundle = releases.bundle(version)
    manifest = read_manifest(bundle)
    _, histories = open_histories(releases.histories(version))
    products_NV = np.load(bundle / PRODUCT_VECTORS)
    product_rows = {product: row for row, product in enumerate(Catalogue.load(bundle / CATALOG).products.ids.ids())}
    questions = _questions(predicted, histories, product_rows)
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
        older, older_version = _release(kind, _parted(trained_on, behind)[0], recipe, behind, None)
        older_bundle = older.bundle(older_version)
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
        "recipe": manifest.recipe,
        "customers": len(questions),
        "to_foretell": sum(len(question.wanted) for question in questions),
        "version": version,
        "validation": manifest.metrics,
        "results": results,
        "fitting_seconds": round(sum(curve[-1].seconds for curve in manifest.curves.values())),
        "machine": machine.describe(),
    }
    write_report(json_file, report)
    table = Table(f"{kind}: {file.name}", ["method", *results["opportune"]])
    for method, figures in results.items():
        table.add(method, *(f"{one.value:.4f} ({one.low:.4f} to {one.high:.4f})" for one in figures.values()))
    table.print()
    return results


def _kind(data: str, test: Path | None, validation: Path | None) -> tuple[Kind, Path]:
    for kind in KS:
        if data.startswith(f"{kind}:"):
            if (test is None) != (kind == "sequences"):
                raise InvalidInput("--test", "expected for interactions, and only for them")
            if validation is not None and kind == "sequences":
                raise InvalidInput("--validation", "expected only for interactions")
            return kind, Path(data.removeprefix(f"{kind}:"))
    raise InvalidInput("--data", f"expected complete-journey, interactions:FILE or sequences:FILE; got {data}")


def read_lines(file: Path) -> list[list[str]]:
    """Return the lines of a file, each a customer and their products.

    Raises:
        InvalidInput: a line is not of this form (the error names it), or the file is no readable text in UTF-8.
    """
    try:
        text = _bytes(file).decode().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise InvalidInput(str(file), f"expected text in UTF-8; {error}") from error
    lines = [line.split() for line in text.split("\n")]
    for number, line in enumerate(lines, start=1):
        if len(line) < 2:
            raise InvalidInput(f"{file}:{number}", f"expected: customer product product ...; got {' '.join(line)!r}")
    return lines


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise InvalidInput(str(file), f"expected a readable file; {error}") from error


def _parted(file: Path, store: Path) -> tuple[Path, Path]:
    """Write a file of sequences without its newest products, and one of these alone; leave out sequences of one."""
    lines = [line for line in read_lines(file) if len(line) > 2]
    store.mkdir(parents=True, exist_ok=True)
    past, newest = store / "past.txt", store / "newest.txt"
    past.write_text("".join(f"{' '.join(line[:-1])}\n" for line in lines), encoding="utf-8")
    newest.write_text("".join(f"{line[0]} {line[-1]}\n" for line in lines), encoding="utf-8")
    return past, newest


def _release(kind: Kind, file: Path, recipe: Path, folder: Path, validation: Path | None) -> tuple[BundleStore, str]:
    """Return a store and its current version, of these very files; train it if there is none yet."""
    digest = sha256(kind.encode())
    for one in (file, recipe, validation):
        digest.update(sha256(b"" if one is None else _bytes(one)).digest())
    store = folder / digest.hexdigest()[:16]
    releases = BundleStore(store)
    version = current(store, lambda _: True)
    if version is None:
        _train(f"{kind}:{file}", recipe, store, validation)
        version = releases.current()
    return releases, version


def _train(data: str, recipe: Path, store: Path, validation: Path | None) -> None:
    command = [sys.executable, "-m", "training", "--data", data, "--recipe", str(recipe), "--store", str(store)]
    if validation is not None:
        command += ["--validation", str(validation)]
    if failed := subprocess.run(command, check=False).returncode:  # noqa: S603 - our own command
        sys.exit(failed)  # it has said why


def _questions(
    predicted: Sequence[Sequence[str]], histories: Histories, product_rows: Mapping[str, int]
) -> list[Question]:
    """Return the customers of whom something is to be predicted that they have not had already."""
    questions: list[Question] = []
    for customer, *products in predicted:
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
    """Return a matrix with ones where a customer had a product."""
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
    """Return implicit's answers: ALS for interactions, nearest neighbours of products for sequences."""
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
    """Return the product vectors of a release by rows of another (N, V).

    Products that the release does not know get zeros, which are near to nobody.
    """
    vectors = np.load(bundle / PRODUCT_VECTORS)
    products_NV = np.zeros((len(product_rows), vectors.shape[1]), np.float32)
    products_NV[[product_rows[product] for product in Catalogue.load(bundle / CATALOG).products.ids.ids()]] = vectors
    return products_NV


def _told(
    bundle: Path, products_NV: NDArray[np.float32], histories: Histories, questions: Sequence[Question], k: int
) -> Rankings:
    """Return the best products for customers as the service sees them, by their histories."""
    sizes = situation_sizes(Catalogue.load(bundle / CATALOG))
    encoder, length = CustomerEncoder(bundle / CUSTOMER_ENCODER, "cpu", sizes), read_manifest(bundle).history_length
    parts: list[NDArray[np.float32]] = []
    for start in range(0, len(questions), _AT_ONCE):
        some = [histories[question.row] for question in questions[start : start + _AT_ONCE]]
        parts.append(encoder.encode(encode(some, [Situation(0, -1, 0)] * len(some), length), products_NV))
    return _ranked(products_NV, np.concatenate(parts), questions, k)


def _ranked(
    products_NV: NDArray[np.float32], customers_CV: NDArray[np.float32], questions: Sequence[Question], k: int
) -> Rankings:
    """Return the best products that a customer has not had."""
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
