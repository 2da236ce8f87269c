"""Fit the towers: warm start, optimise, checkpoint."""

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import torch
from implicit.als import AlternatingLeastSquares
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from embeddings.catalogue.columns import Catalogue, Products
from embeddings.customer.history import Histories
from embeddings.customer.tower_input import TowerInput
from embeddings.release.bundle import FORMAT_VERSION
from training.batches import DROPOUT, Batch, Batches, Situated
from training.config import Recipe, epochs_of
from training.curve import Curve
from training.loop import loss_progress, resume, save, schedule
from training.losses import sampled_softmax
from training.progress import tell
from training.towers import CustomerTower, ProductTower
from training.warm_start import CONFIDENCE, start_at_histories, start_products, whitened


@dataclass(frozen=True, slots=True)
class ProductInput:
    """The inputs of the product tower, by catalogue row.

    Attributes:
        rows_N: int64, the row itself, or -1 for a product that training never saw.
        attributes_NA: int64 codes.
        price_N: float32, NaN for unknown.
    """

    rows_N: Tensor
    attributes_NA: Tensor
    price_N: Tensor

    @classmethod
    def of(cls, products: Products, trained_N: NDArray[np.bool_], device: torch.device) -> "ProductInput":
        """Return the inputs of all products, on a device; those that were not seen in training get no row."""
        rows_N = np.where(trained_N, np.arange(len(products.ids)), -1)
        return cls(
            rows_N=torch.as_tensor(rows_N, dtype=torch.int64, device=device),
            attributes_NA=torch.as_tensor(products.attributes.codes_NA, dtype=torch.int64, device=device),
            price_N=torch.tensor(products.price_N, dtype=torch.float32, device=device),
        )


class Towers(nn.Module):
    """Both towers of one model."""

    def __init__(self, catalogue: Catalogue, histories: Histories, recipe: Recipe) -> None:
        super().__init__()
        shape = recipe.towers
        self.product = ProductTower(len(catalogue.products.ids), catalogue.products.attributes.sizes, shape.dimensions)
        self.customer = CustomerTower(
            histories.attribute_sizes,
            len(catalogue.channels),
            len(catalogue.locations.ids),
            catalogue.context.sizes,
            shape.dimensions,
            shape.heads,
        )

    def loss(self, batch: Batch, product_input: ProductInput, id_dropout: float, random: np.random.Generator) -> Tensor:
        """Return the sampled softmax loss of one batch."""
        device = product_input.rows_N.device
        past_BL = batch.tower_input.products_BL
        # Every product of the batch goes through its tower once, wherever it occurs.
        rows_K, places = np.unique(np.concatenate([batch.candidates_C, past_BL.ravel()]), return_inverse=True)
        known = torch.as_tensor(np.maximum(rows_K, 0), device=device)
        rows = product_input.rows_N[known]
        dropped = torch.as_tensor(random.random(len(rows_K)) < id_dropout, device=device)
        vectors_KD = self.product(
            rows.masked_fill(dropped, -1), product_input.attributes_NA[known], product_input.price_N[known]
        )
        places = torch.as_tensor(places, device=device)
        count = len(batch.candidates_C)
        history_BLD = vectors_KD[places[count:]].unflatten(0, past_BL.shape)
        history_BLD = history_BLD * torch.as_tensor(past_BL >= 0, device=device).unsqueeze(2)
        customers_BD = self.customer(history_BLD, *customer_tensors(batch.tower_input, device))
        return sampled_softmax(
            customers_BD @ vectors_KD[places[:count]].T,
            torch.as_tensor(batch.owners_T, device=device),
            torch.as_tensor(batch.targets_T, device=device),
            torch.as_tensor(batch.bought_BC, device=device),
            torch.as_tensor(batch.log_inclusion_C, device=device),
        )


def customer_tensors(tower_input: TowerInput, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return types, ages, attributes and context, in the order in which the customer tower takes them.

    The tower takes the history's vectors before them.
    """
    return (
        torch.as_tensor(tower_input.types_BL, device=device),
        torch.as_tensor(tower_input.ages_BL, device=device),
        torch.as_tensor(tower_input.attributes_BA, device=device),
        torch.as_tensor(tower_input.context_BC, device=device),
    )


class Factors(NamedTuple):
    """A matrix factorisation: customer and product vectors whose inner product says how well they match."""

    customers_CD: NDArray[np.float32]
    products_ND: NDArray[np.float32]


def fit_als(histories: Histories, products: int, recipe: Recipe, *, novel: bool = False) -> Factors:
    """Fit implicit's ALS to purchase counts.

    Args:
        histories: hold the purchases.
        products: how many the catalogue has.
        recipe: the settings.
        novel: whether repeats are rare, so that a single purchase is to be trusted.
    """
    owners = np.repeat(np.arange(len(histories.customers)), np.diff(histories.offsets))
    bought, _ = histories.bought()
    counts = csr_matrix(
        (np.ones(len(bought), np.float32), (owners[bought], histories.events["product"][bought])),
        shape=(len(histories.customers), products),
    )
    counts.sum_duplicates()
    if novel:
        counts.data *= CONFIDENCE
    with threadpool_limits(1, "blas"):  # implicit brings threads of its own; BLAS' would only get in their way
        model = AlternatingLeastSquares(
            factors=recipe.towers.dimensions,
            regularization=als_regularisation(recipe, novel=novel),
            iterations=recipe.als.iterations,
            use_gpu=False,
            random_state=recipe.seed,
        )
        model.fit(counts, show_progress=False)
    return Factors(np.asarray(model.user_factors), np.asarray(model.item_factors))


def als_regularisation(recipe: Recipe, *, novel: bool) -> float:
    """Return what ALS is fitted with: the recipe's, as many times as a purchase counts."""
    return recipe.als.regularisation * (CONFIDENCE if novel else 1)


def fit(
    catalogue: Catalogue,
    trained_N: NDArray[np.bool_],
    histories: Histories,
    als_ND: NDArray[np.float32],
    recipe: Recipe,
    device: torch.device,
    checkpoints: Path,
    situated: Situated,
    measure: Callable[[Towers], Mapping[str, float]] | None = None,
    *,
    novel: bool = False,
) -> tuple[Towers, Curve]:
    """Fit both towers on every basket of some histories; return them with the course of the fit.

    On the CPU the result depends on the arguments alone, also when the run was killed and continued from its
    checkpoint.

    Args:
        catalogue: as observed at the end of the histories.
        trained_N: which of its products the histories hold.
        histories: what the towers may see.
        als_ND: product factors to start from.
        recipe: the settings.
        device: where to compute.
        checkpoints: a folder for this very run's checkpoint; a checkpoint in it is continued.
        situated: what requests know of the situations of visits.
        measure: measures the towers on what is held out, after every epoch; what it finds changes nothing.
        novel: whether repeats are rare: the towers then start as a step of ALS, and what a customer took before does
            not count as passed over.
    """
    torch.manual_seed(recipe.seed)
    torch.use_deterministic_algorithms(device.type == "cpu")
    config = recipe.fit
    towers = Towers(catalogue, histories, recipe)
    if novel:
        als_ND = whitened(als_ND, als_regularisation(recipe, novel=True))
        start_at_histories(towers.product, towers.customer)
    start_products(towers.product, als_ND, trained_N)
    towers.to(device)
    product_input = ProductInput.of(catalogue.products, trained_N, device)
    batches = Batches(
        histories, len(catalogue.products.ids), recipe.towers.history_length, config, recipe.seed, situated, novel=novel
    )
    optimiser = torch.optim.AdamW(
        towers.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    epochs = epochs_of(config.epochs, config.least_steps, batches.steps)
    total = epochs * batches.steps
    about = resume(checkpoints, towers, optimiser)
    done = 0 if about is None else int(about["done"])
    curve = Curve(batches.targets, None if about is None else about["curve"])
    saved = time.monotonic()
    with loss_progress() as progress:
        task = progress.add_task("towers", total=total, completed=done, loss="")
        for epoch in range(len(curve.points), epochs):
            for batch in batches.epoch(epoch, first=done - epoch * batches.steps):
                for group in optimiser.param_groups:
                    group["lr"] = config.learning_rate * schedule(done / total)
                loss = towers.loss(
                    batch, product_input, recipe.towers.id_dropout, np.random.default_rng([recipe.seed, DROPOUT, done])
                )
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
                curve.step(loss)
                done += 1
                if done % 10 == 0:
                    progress.update(task, completed=done, loss=f"loss {loss.item():.3f}")
                    tell("towers", done, total)
                if time.monotonic() - saved >= config.checkpoint_seconds:
                    with curve.aside():
                        save(checkpoints, towers, optimiser, {"done": str(done), "curve": curve.tell()})
                    saved = time.monotonic()
            with curve.aside():
                metrics = {} if measure is None else measure(towers)
            curve.close(metrics)
        progress.update(task, completed=done)
    return towers.eval(), curve


def fingerprint(
    recipe: Recipe,
    past: Histories,
    catalogue: Catalogue,
    trained_N: NDArray[np.bool_],
    device: torch.device,
    *,
    novel: bool = False,
) -> str:
    """Return a digest that is equal for towers that would come out the same.

    No other towers go on from their checkpoint. A run that differs in the ranker alone goes on from the towers of one
    that the gate refused.
    """
    products = catalogue.products
    sizes = (
        past.attribute_sizes,
        products.attributes.sizes,
        catalogue.context.sizes,
        len(products.ids),
        len(catalogue.locations.ids),
    )
    told = (
        recipe.seed,
        tuple(recipe.channels),
        recipe.towers,
        recipe.als,
        recipe.fit,
        recipe.ways,
        past.visit_pause,
        novel,
    )
    digest = hashlib.sha256(msgspec.json.encode((FORMAT_VERSION, told, sizes, device.type)))
    for array in (
        past.events,
        past.offsets,
        past.attributes_CA,
        past.context_EX,
        products.attributes.codes_NA,
        products.price_N,
        trained_N,
    ):
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]


def product_vectors(
    towers: Towers, products: Products, trained_N: NDArray[np.bool_], device: torch.device
) -> NDArray[np.float32]:
    """Return every product's vector (N, D), as torch computes it."""
    product_input = ProductInput.of(products, trained_N, device)
    with torch.inference_mode():
        return towers.product(product_input.rows_N, product_input.attributes_NA, product_input.price_N).cpu().numpy()
