"""The course of a fit: what an epoch came to, and the same after a kill."""

import msgspec
import pytest
import torch

from embeddings.release.bundle import Epochs
from training import curve as recording
from training.curve import Curve


class Clock:
    """Stands for the time; it moves when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(recording, "time", found)
    return found


def test_an_epoch_is_the_mean_loss_of_its_steps_and_everything_else_counts_on(clock: Clock) -> None:
    curve = Curve(50)
    for loss in (1.0, 2.0, 6.0):
        clock.now += 2
        curve.step(torch.tensor(loss))
    curve.close({"ndcg@10": 0.5})
    clock.now += 1
    curve.step(torch.tensor(0.5))
    curve.close({})
    assert curve.points == [Epochs(1, 50, 6.0, 3.0, {"ndcg@10": 0.5}), Epochs(2, 100, 7.0, 0.5, {})]


def test_what_is_no_part_of_fitting_takes_no_time(clock: Clock) -> None:
    curve = Curve(1)
    clock.now += 3
    curve.step(torch.tensor(1.0))
    with curve.aside():
        clock.now += 1_000
    curve.close({})
    assert curve.points[0].seconds == 3


@pytest.mark.parametrize("killed_after", range(1, 6))
def test_taken_up_where_it_was_told_a_curve_goes_on_to_the_same_numbers(clock: Clock, killed_after: int) -> None:
    losses = torch.rand(6, generator=torch.Generator().manual_seed(1))

    def course(curve: Curve, first: int, last: int) -> Curve:
        for place in range(first, last):
            clock.now += 0.25
            curve.step(losses[place])
            if place % 3 == 2:
                curve.close({"ndcg@10": place / 10})
        return curve

    whole = course(Curve(9), 0, 6).points
    told = course(Curve(9), 0, killed_after).tell()
    clock.now += 1_000  # while nothing ran
    assert course(Curve(9, told), killed_after, 6).points == whole


def test_a_loss_that_is_learnt_from_is_not_kept_alive() -> None:
    curve = Curve(1)
    weight = torch.ones((), requires_grad=True)
    curve.step(weight * 2)
    told = msgspec.json.decode(curve.tell())
    assert (told["lost"], told["steps"]) == (2.0, 1)
    assert not curve._lost.requires_grad  # pyright: ignore[reportPrivateUsage]
