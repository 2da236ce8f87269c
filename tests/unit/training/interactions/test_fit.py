"""The loop: ends at the right epoch, and goes on after a kill as if there had been none."""

import itertools
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor

from embeddings.arrays import Ragged
from embeddings.release.bundle import Epochs
from training.interactions.config import FactorsRecipe, FitConfig, LossConfig, Recipe, SequencesRecipe
from training.interactions.factors import Factors
from training.interactions.files import Interactions, Kind
from training.interactions.fit import Metrics, best, fit
from training.interactions.model import Model
from training.interactions.sequences import Sequences

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("one_thread")
CUSTOMERS, PRODUCTS = 20, 30
LOSS = LossConfig(temperature=0.2, negatives=10)
FIT = FitConfig(epochs=3, patience=3, customers_a_batch=6, learning_rate=0.05, checkpoint_seconds=0)
RECIPES: dict[Kind, Recipe] = {
    "interactions": FactorsRecipe(hops=1, dimensions=6, loss=LOSS, fit=FIT),
    "sequences": SequencesRecipe(dimensions=6, history_length=4, dropout=0.5, loss=LOSS, fit=FIT),
}


class Killed(BaseException):
    """Stands for the end of the process."""


def model(kind: Kind) -> Model:
    random = np.random.default_rng(2)
    rows = Ragged.of(np.sort(random.permutation(PRODUCTS)[: random.integers(2, 9)]) for _ in range(CUSTOMERS))
    names = tuple(map(str, range(CUSTOMERS))), tuple(map(str, range(PRODUCTS)))
    interactions, recipe = Interactions(kind, *names, rows), RECIPES[kind]
    torch.manual_seed(recipe.seed)
    return (
        Factors(interactions, recipe, CPU)
        if isinstance(recipe, FactorsRecipe)
        else Sequences(interactions, recipe, CPU)
    )


class Measure:
    """Gives figures one after another, as many as are asked for, and counts how many were."""

    def __init__(self, values: list[float]) -> None:
        self.values = values
        self.asked = 0

    def __call__(self) -> Metrics:
        self.asked += 1
        return {"recall@20": 0.0, "ndcg@20": self.values[self.asked - 1]}


def state(one: Model) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in one.state_dict().items()}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def timeless(curve: list[Epochs]) -> list[Epochs]:
    """A curve without what no two runs share."""
    return [msgspec.structs.replace(one, seconds=0) for one in curve]


def fitted(kind: Kind, folder: Path, values: list[float], kill_at: int | None = None) -> tuple[Model, list[Epochs]]:
    """Fit; the step numbered ``kill_at`` is not survived."""
    one = model(kind)
    if kill_at is not None:
        loss, steps = one.loss, itertools.count(1)

        def counted(epoch: int, step: int) -> Tensor:
            if next(steps) == kill_at:
                raise Killed
            return loss(epoch, step)

        one.loss = counted  # pyright: ignore[reportAttributeAccessIssue]
    recipe = RECIPES[kind]
    return one, fit(one, recipe.fit, recipe.seed, folder, epochs=3, measure=Measure(values))


@pytest.mark.parametrize("kind", RECIPES)
@pytest.mark.parametrize("kill_at", [2, 5, 9, 12])
def test_killed_at_a_step_and_continued_is_uninterrupted_bit_by_bit(tmp_path: Path, kind: Kind, kill_at: int) -> None:
    values = [0.1, 0.2, 0.3]
    torch.manual_seed(99)  # whatever was drawn before
    whole, curve = fitted(kind, tmp_path / "whole", values)
    with pytest.raises(Killed):
        fitted(kind, tmp_path / "killed", values, kill_at)
    torch.manual_seed(7)
    # Validations are not repeated: those before the kill are in the checkpoint.
    behind = (kill_at - 2) // whole.steps
    continued, continued_curve = fitted(kind, tmp_path / "killed", values[behind:])
    assert equal(state(continued), state(whole))
    assert timeless(continued_curve) == timeless(curve)
    assert [(one.epochs, one.examples) for one in curve] == [(count, count * whole.examples) for count in (1, 2, 3)]
    assert [one.metrics["ndcg@20"] for one in curve] == values


@pytest.mark.parametrize("kind", RECIPES)
def test_fitting_changes_something_and_a_finished_fit_is_not_computed_again(tmp_path: Path, kind: Kind) -> None:
    first, curve = fitted(kind, tmp_path, [0.1, 0.2, 0.3])
    assert not equal(state(first), state(model(kind)))
    again, again_curve = fitted(kind, tmp_path, [], kill_at=1)
    assert equal(state(again), state(first))
    assert again_curve == curve


def stopped(tmp_path: Path, values: list[float], **changes: int) -> tuple[list[int], int]:
    """After which epochs was validated, and which was best, with these figures."""
    config = msgspec.structs.replace(FIT, **changes)
    curve = fit(model("interactions"), config, 1, tmp_path, epochs=config.epochs, measure=Measure(values))
    return [one.epochs for one in curve if one.metrics], best(curve).epochs


def test_fitting_ends_when_nothing_has_got_better_for_a_while(tmp_path: Path) -> None:
    found = stopped(tmp_path, [0.1, 0.4, 0.3, 0.2, 0.9, 1.0], epochs=6, patience=2)
    assert found == ([1, 2, 3, 4], 2)


def test_the_last_epoch_is_validated_whatever_the_pace_and_of_equals_the_first_is_best(tmp_path: Path) -> None:
    assert stopped(tmp_path, [0.5, 0.5, 0.5], epochs=5, patience=9, validate_every=2) == ([2, 4, 5], 2)


def test_the_figure_that_counts_is_ndcg() -> None:
    found = [{"recall@20": 0.9, "ndcg@20": 0.1}, {"recall@20": 0.1, "ndcg@20": 0.2}, {}]
    curve = [Epochs(epochs, 0, 0.0, 0.0, metrics) for epochs, metrics in enumerate(found, start=1)]
    assert best(curve).epochs == 2


def test_without_a_measure_it_fits_for_the_epochs_asked_for_as_the_longer_fit_would(tmp_path: Path) -> None:
    config, short, long = RECIPES["interactions"].fit, model("interactions"), model("interactions")
    curve = fit(short, config, 1, tmp_path / "short", epochs=2)
    assert [(one.epochs, one.metrics) for one in curve] == [(1, {}), (2, {})]
    seen: list[dict[str, Tensor]] = []

    def remember() -> Metrics:
        seen.append(state(long))
        return {"ndcg@20": float(len(seen))}

    fit(long, config, 1, tmp_path / "long", epochs=3, measure=remember)
    assert equal(seen[1], state(short))


def test_dropout_is_off_while_measuring_and_on_while_fitting(tmp_path: Path) -> None:
    one, modes = model("sequences"), list[bool]()
    loss = one.loss

    def fitting(epoch: int, step: int) -> Tensor:
        modes.append(one.training)
        return loss(epoch, step)

    def measuring() -> Metrics:
        modes.append(not one.training)
        return {"ndcg@10": 0.0}

    one.loss = fitting  # pyright: ignore[reportAttributeAccessIssue]
    fit(one, FIT, 1, tmp_path, epochs=2, measure=measuring)
    assert len(modes) == 2 * one.steps + 2
    assert all(modes)
    assert not one.training
