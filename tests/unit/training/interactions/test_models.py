"""Factors and sequences: what a batch computes, against dense and slow oracles."""

import numpy as np
import pytest
import torch

from embeddings.arrays import Ragged
from training.interactions.config import FactorsRecipe, FitConfig, LossConfig, SequencesRecipe
from training.interactions.factors import Factors
from training.interactions.files import Interactions
from training.interactions.sasrec import PAD, Block, SequenceEncoder
from training.interactions.sequences import Sequences, padded

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("one_thread")
RANDOM = np.random.default_rng(9)
CUSTOMERS, PRODUCTS, D = 12, 9, 6
FIT = FitConfig(epochs=1, patience=1, customers_a_batch=5, learning_rate=0.01)
LOSS = LossConfig(temperature=0.2, negatives=500)  # so many that every product is drawn
NAMES = tuple(f"c{row}" for row in range(CUSTOMERS)), tuple(f"p{row}" for row in range(PRODUCTS))
INTERACTIONS = Interactions(
    "interactions",
    *NAMES,
    # The third has nothing; the last product is held out of everything.
    Ragged.of(
        np.sort(RANDOM.permutation(PRODUCTS - 1)[: RANDOM.integers(1, 6)]) if row != 2 else []
        for row in range(CUSTOMERS)
    ),
)
SEQUENCES = Interactions(
    "sequences",
    *NAMES,
    Ragged.of(RANDOM.integers(0, PRODUCTS - 1, RANDOM.integers(2, 9)) if row != 2 else [4] for row in range(CUSTOMERS)),
)


def factors(hops: int, exponent: float = 1.0) -> Factors:
    torch.manual_seed(1)
    return Factors(INTERACTIONS, FactorsRecipe(hops=hops, dimensions=D, exponent=exponent, loss=LOSS, fit=FIT), CPU)


def dense_vectors(model: Factors, hops: int) -> tuple[torch.Tensor, torch.Tensor]:
    """One hop with the matrix written out."""
    own = torch.as_tensor(INTERACTIONS.matrix().toarray())
    weights_CN = own / (own.sum(1, keepdim=True) * own.sum(0)).sqrt().clamp(min=1e-9)
    customers_CD = model.customers + hops * weights_CN @ model.products
    products_ND = model.products + hops * weights_CN.T @ model.customers
    return torch.nn.functional.normalize(customers_CD, dim=1), torch.nn.functional.normalize(products_ND, dim=1)


@pytest.mark.parametrize("hops", [0, 1])
def test_vectors_are_spread_as_with_a_dense_matrix(hops: int) -> None:
    model = factors(hops)
    for found, expected in zip(model.vectors(), dense_vectors(model, hops), strict=True):
        np.testing.assert_allclose(found[:, :-1], expected.detach(), atol=1e-6)


@pytest.mark.parametrize("popularity", [0.0, 0.7])
def test_the_scores_also_hold_what_popularity_adds_to_them_in_the_softmax(popularity: float) -> None:
    loss = LossConfig(temperature=0.2, negatives=500, popularity=popularity)
    for model, interactions in (
        (Factors(INTERACTIONS, FactorsRecipe(hops=1, dimensions=D, loss=loss, fit=FIT), CPU), INTERACTIONS),
        (Sequences(SEQUENCES, SequencesRecipe(dimensions=D, loss=loss, fit=FIT), CPU).eval(), SEQUENCES),
    ):
        counts_N = interactions.product_counts()
        occurs = counts_N > 0
        found = model.vectors()
        without_CN = found.customers_CV[:, :-1] @ found.products_NV[:, :-1].T
        added_CN = (found.customers_CV @ found.products_NV.T - without_CN) / loss.temperature
        expected_N = popularity * np.log(counts_N[occurs])
        # Adding the same to every product changes nothing.
        differences_CN = added_CN[:, occurs] - expected_N
        np.testing.assert_allclose(differences_CN - differences_CN[:, :1], 0, atol=1e-5)
        for vectors in found if isinstance(model, Factors) else ():  # whose scores are cosines
            np.testing.assert_allclose(np.linalg.norm(vectors[:, :-1], axis=1)[vectors[:, :-1].any(1)], 1, atol=1e-6)


@pytest.mark.parametrize(("hops", "exponent"), [(0, 1.0), (1, 0.84)])
def test_a_batch_of_factors_and_its_gradient_are_the_softmax_pair_by_pair(hops: int, exponent: float) -> None:
    model = factors(hops, exponent)
    occurs = sorted(set(INTERACTIONS.rows.values.tolist()))
    customers_CD, products_ND = dense_vectors(model, hops)
    scores_CN = customers_CD @ products_ND.T / LOSS.temperature
    found = sum(model.loss(0, step) * pairs for step, pairs in enumerate(_pairs_a_step(model)))
    pairs: list[torch.Tensor] = []
    for row in range(CUSTOMERS):
        bought = INTERACTIONS.rows[row].tolist()
        others = [product for product in occurs if product not in bought]
        total = scores_CN[row, others].logsumexp(0)
        pairs += [exponent * total - scores_CN[row, product] for product in bought]
    expected = torch.stack(pairs).sum()
    assert isinstance(found, torch.Tensor)
    torch.testing.assert_close(found, expected)
    for one, other in zip(
        torch.autograd.grad(found, [model.customers, model.products]),
        torch.autograd.grad(expected, [model.customers, model.products]),
        strict=True,
    ):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def _pairs_a_step(model: Factors) -> list[int]:
    """How many pairs each batch of the first epoch has; an epoch shows every customer with products once."""
    sizes_C = np.diff(INTERACTIONS.rows.offsets)
    order = np.random.default_rng([1, 1, 0]).permutation(np.flatnonzero(sizes_C))
    batches = [order[at : at + FIT.customers_a_batch] for at in range(0, len(order), FIT.customers_a_batch)]
    assert len(batches) == model.steps
    return [int(sizes_C[batch].sum()) for batch in batches]


def sequences(length: int = 6) -> Sequences:
    torch.manual_seed(1)
    recipe = SequencesRecipe(dimensions=D, history_length=length, layers=2, heads=2, loss=LOSS, fit=FIT)
    return Sequences(SEQUENCES, recipe, CPU).eval()


def test_an_epoch_shows_every_sequence_that_has_a_next_product_once() -> None:
    model = sequences()
    for epoch in range(3):
        shown = np.concatenate(model.batches(epoch))
        assert sorted(shown.tolist()) == [row for row in range(CUSTOMERS) if row != 2]
        assert len(model.batches(epoch)) == model.steps
    assert [batch.tolist() for batch in model.batches(0)] != [batch.tolist() for batch in model.batches(1)]


def test_a_batch_of_sequences_is_the_softmax_over_every_next_product() -> None:
    model = sequences()
    occurs = sorted(set(SEQUENCES.rows.values.tolist()))
    products_ND = model.products
    for step, batch in enumerate(model.batches(0)):
        losses: list[torch.Tensor] = []
        for row in batch.tolist():
            products = SEQUENCES.rows[row].tolist()
            for place in range(max(1, len(products) - 6), len(products)):
                # The positions are counted from the newest that is known, as they are when the batch is computed.
                past = products[max(0, len(products) - 7) : len(products) - 1][::-1]
                known = torch.tensor([past])
                vectors_LD = model.encoder(products_ND[known], torch.ones_like(known, dtype=torch.bool))[0]
                scores_N = vectors_LD[len(products) - 1 - place] @ products_ND[occurs].T / LOSS.temperature
                losses.append(torch.nn.functional.cross_entropy(scores_N, torch.tensor(occurs.index(products[place]))))
        torch.testing.assert_close(model.loss(0, step), torch.stack(losses).mean(), atol=1e-4, rtol=1e-4)


def test_a_newer_product_changes_nothing_that_older_positions_say() -> None:
    encoder = SequenceEncoder(D, length=8, layers=2, heads=2, dropout=0.0, smoothing=0.7).eval()
    history_BLD = torch.randn(3, 5, D, generator=torch.Generator().manual_seed(3))
    there_BL = torch.ones(3, 5, dtype=torch.bool)
    before = encoder(history_BLD, there_BL)
    changed_BLD = history_BLD.clone()
    changed_BLD[:, 1] *= -1
    after = encoder(changed_BLD, there_BL)
    assert torch.equal(before[:, 2:], after[:, 2:])
    assert not torch.isclose(before[:, :2], after[:, :2]).all(2).any()


def test_at_full_smoothing_a_layer_reads_the_past_by_its_average_alone() -> None:
    block = Block(D, heads=2, dropout=0.0, smoothing=1.0).eval()
    events_BLD = torch.randn(2, 4, D, generator=torch.Generator().manual_seed(3))
    shares_BLL = torch.full((4, 4), 1.0).triu()
    shares_BLL = (shares_BLL / shares_BLL.sum(1, keepdim=True)).expand(2, 4, 4)
    found = block(events_BLD, torch.zeros(2, 2, 4, 4), shares_BLL)
    for place in range(4):
        event_BD, average_BD = events_BLD[:, place], events_BLD[:, place:].mean(1)
        smooth_BD = average_BD + block.detail**2 * (event_BD - average_BD)
        averaged_BD = block.averaged(event_BD + smooth_BD)
        torch.testing.assert_close(found[:, place], block.mixed(averaged_BD + block.mix(averaged_BD)))


def test_pads_change_nothing() -> None:
    encoder = SequenceEncoder(D, length=8, layers=2, heads=2, dropout=0.0, smoothing=0.7).eval()
    history_BLD = torch.randn(2, 3, D, generator=torch.Generator().manual_seed(3))
    wider_BLD = torch.nn.functional.pad(history_BLD, (0, 0, 0, 4), value=9.0)
    there_BL = torch.tensor([[True] * 3 + [False] * 4] * 2)
    torch.testing.assert_close(encoder(wider_BLD, there_BL)[:, :3], encoder(history_BLD, there_BL[:, :3]))


def test_sequences_are_padded_newest_first() -> None:
    rows = [np.array([1, 2, 3, 4], np.int32), np.array([], np.int32), np.array([5], np.int32)]
    assert padded(rows, 3).tolist() == [[4, 3, 2], [PAD] * 3, [5, PAD, PAD]]
    assert padded(rows[1:2], 3).tolist() == [[PAD]]


def test_the_vectors_of_sequences_are_what_follows_their_newest_product() -> None:
    model = sequences()
    found = model.vectors()
    for row in range(CUSTOMERS):
        past = torch.as_tensor(SEQUENCES.rows[row][::-1][:6].astype(np.int64))[None]
        alone = model.encoder(torch.as_tensor(found.products_NV[:, :-1])[past], torch.ones_like(past, dtype=torch.bool))
        np.testing.assert_allclose(found.customers_CV[row, :-1], alone[0, 0].detach(), atol=1e-5)
