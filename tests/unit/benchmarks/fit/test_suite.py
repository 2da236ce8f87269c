"""The fit suite: what it makes of curves, how it parts files, and how ALS is timed and measured."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import msgspec
import numpy as np
import pytest
from scipy.sparse import csr_matrix

from benchmarks.fit import als, run
from benchmarks.fit.files import hold_out
from benchmarks.fit.outcome import ALS, Fit, Reached, described, print_table, reached, summary
from benchmarks.quality.interactions import DEFAULT_RECIPES
from embeddings.errors import InvalidInput
from embeddings.release.bundle import Epochs
from training.interactions.config import read_recipe
from training.interactions.files import hold_out_newest, read

GROUPS, IN_A_GROUP = 4, 8


def fit(model: str, course: Sequence[tuple[int, float, float | None]], metric: str | None = "ndcg@10") -> Fit:
    return Fit("data", "cpu", model, metric, 600, [Reached(*one) for one in course])


OURS = fit("towers", [(1, 6.0, 0.2), (2, 12.0, 0.4), (3, 18.0, 0.41)])
THEIRS = fit(ALS, [(1, 1.0, 0.1), (2, 2.0, 0.3), (3, 3.0, 0.25)])
SLOWER = fit("slower", [(1, 60.0, 0.15), (2, 120.0, 0.2)])
OTHER = fit("ranker", [(1, 9.0, None), (2, 18.0, None)], metric=None)


def test_time_and_quality_follow_from_the_course() -> None:
    assert (OURS.seconds_an_epoch, OURS.examples_a_second) == (6, 100)
    assert (OURS.best, OURS.seconds_to(0.3), OURS.seconds_to(0.5)) == (0.41, 12, None)
    assert OURS.seconds_to_most == 12
    assert (OTHER.best, OTHER.seconds_to(0), OTHER.seconds_to_most) == (None, None, None)


def test_every_model_is_held_against_als_on_the_same_data() -> None:
    elsewhere = msgspec.structs.replace(THEIRS, data="elsewhere")
    assert summary([OURS, THEIRS, SLOWER, OTHER, elsewhere]) == {
        "data, cpu, towers over implicit ALS: seconds an epoch": 6.0,
        "data, cpu, towers over implicit ALS: best ndcg@10": pytest.approx(0.41 / 0.3, abs=1e-3),
        "data, cpu, towers over implicit ALS: seconds to its best": 6.0,
        "data, cpu, slower over implicit ALS: seconds an epoch": 60.0,
        "data, cpu, slower over implicit ALS: best ndcg@10": pytest.approx(0.2 / 0.3, abs=1e-3),
        "data, cpu, slower over implicit ALS: seconds to its best": None,
        "data, cpu, ranker over implicit ALS: seconds an epoch": 9.0,
    }


def test_a_table_and_json_tell_it(capsys: pytest.CaptureFixture[str]) -> None:
    print_table([OURS, THEIRS, SLOWER, OTHER])
    assert "never" in capsys.readouterr().out
    told = msgspec.json.decode(msgspec.json.encode(described(OURS)))
    assert (told["examples_a_second"], told["best"], len(told["course"])) == (100, 0.41, 3)


def test_of_a_curve_the_metric_asked_for_is_taken_where_it_was_measured() -> None:
    curve = [Epochs(1, 10, 1.5, 3.0, {}), Epochs(2, 20, 3.0, 2.0, {"recall@20": 0.9, "ndcg@20": 0.4})]
    assert reached(curve, "ndcg@20") == [Reached(1, 1.5, None), Reached(2, 3.0, 0.4)]
    assert reached(curve, None) == [Reached(1, 1.5, None), Reached(2, 3.0, None)]


# Files


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Customers of four groups who have to do with most of their group's eight products, and one with a single one."""
    random = np.random.default_rng(1)
    lines = [
        " ".join([f"c{number}", *(f"g{number % GROUPS}-{one}" for one in random.permutation(IN_A_GROUP)[:6])])
        for number in range(80)
    ]
    path = tmp_path / "file.txt"
    path.write_text("\n".join([*lines, "lonely g0-0"]) + "\n")
    return path


def test_of_interactions_a_share_is_held_out_and_all_else_is_left(file: Path, tmp_path: Path) -> None:
    held = hold_out(file, "interactions", tmp_path / "validation.txt")
    assert set(held.held_out) == set(range(80))
    assert all(len(rows) == 1 for rows in held.held_out.values())
    assert held.fitted_CN.nnz == 80 * 5 + 1
    for row, columns in held.held_out.items():
        assert not columns & set(held.fitted_CN[row].indices.tolist())
    written = [line.split() for line in (tmp_path / "validation.txt").read_text().splitlines()]
    whole = {customer: products for customer, *products in map(str.split, file.read_text().splitlines())}
    assert all(set(products) <= set(whole[customer]) for customer, *products in written)


def test_of_sequences_the_same_is_held_out_as_training_holds_out(file: Path, tmp_path: Path) -> None:
    held = hold_out(file, "sequences", tmp_path / "validation.txt")
    parts = hold_out_newest(read(file, "sequences"))
    assert held.fitted_CN.nnz == len(parts.fit.rows.values)
    assert len(held.held_out) == len(parts.held_out.rows.values)
    newest = [line.split()[-1] for line in file.read_text().splitlines()[:-1]]
    written = [line.split()[1] for line in (tmp_path / "validation.txt").read_text().splitlines()]
    assert written == newest


def test_a_file_of_which_nothing_can_be_held_out_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("c1 p1\nc2 p2\n")
    for kind in ("interactions", "sequences"):
        with pytest.raises(InvalidInput, match="--data: expected customers with enough products"):
            hold_out(tmp_path / "file.txt", kind, tmp_path / "validation.txt")


def test_data_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="--data: expected complete-journey"):
        run.run(["trees:file.txt"], tmp_path / "fit.json", quick=True)


# ALS


def test_als_is_measured_after_every_iteration_on_what_it_was_not_fitted_on(file: Path, tmp_path: Path) -> None:
    held = hold_out(file, "interactions", tmp_path / "validation.txt")
    course = als.course(held.fitted_CN, "cpu", 1, als.ndcg_of_held_out(held.fitted_CN, held.held_out, 3))
    assert [one.epochs for one in course] == list(range(1, als.ITERATIONS + 1))
    assert all(one.seconds < other.seconds for one, other in pairwise(course))
    # Three products of the group are left: one of them is right, wherever it stands.
    assert course[-1].figure is not None
    assert course[-1].figure > 0.6


def test_ndcg_of_held_out_is_the_mean_over_customers() -> None:
    class Known:
        def recommend(self, rows: Any, *_rest: Any, **_more: Any) -> tuple[Any, None]:
            return np.array([[5, 6], [7, 8], [9, 4]])[: len(rows)], None

    measure = als.ndcg_of_held_out(csr_matrix((3, 10)), {0: {5}, 1: {8}, 2: {1}}, 2)
    assert measure(Known()) == pytest.approx((1 + 1 / np.log2(3) + 0) / 3)


# The whole


def test_a_quick_recipe_is_the_same_but_for_its_numbers(tmp_path: Path) -> None:
    recipe = DEFAULT_RECIPES["interactions"]
    copy = run.shortened(recipe, {"epochs": 2}, tmp_path)
    whole, short = read_recipe(recipe), read_recipe(copy)
    assert msgspec.structs.replace(whole, fit=msgspec.structs.replace(whole.fit, epochs=2)) == short


def test_a_file_is_trained_and_held_against_als(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    curve = [Epochs(1, 100, 2.0, 5.0, {"recall@20": 0.4, "ndcg@20": 0.3})]
    asked: list[list[str]] = []

    def trained(arguments: list[str], kind: str, *_rest: object, quick: bool) -> tuple[Any, None]:
        asked.append([kind, *arguments])
        assert quick
        return SimpleNamespace(curves={"lightgcn": curve}), None

    monkeypatch.setattr(run, "_train", trained)
    monkeypatch.setattr(run.torch.cuda, "is_available", Mock(return_value=False))
    run.run([f"interactions:{file}"], tmp_path / "fit.json", quick=True)
    ((kind, *arguments),) = asked
    assert (kind, arguments[:3]) == ("interactions", ["--data", f"interactions:{file}", "--validation"])
    report = msgspec.json.decode((tmp_path / "fit.json").read_bytes())
    ours, theirs = report["fits"]
    assert (ours["model"], ours["best"], ours["examples_a_second"]) == ("lightgcn", 0.3, 50)
    assert (theirs["model"], theirs["metric"], theirs["examples"]) == (ALS, "ndcg@20", 80 * 5 + 1)
    assert set(report["summary"]) == {
        f"interactions:file.txt, cpu, lightgcn over {ALS}: {what}"
        for what in ("seconds an epoch", "best ndcg@20", "seconds to its best")
    }
    assert (tmp_path / "fit.png").read_bytes().startswith(b"\x89PNG")
