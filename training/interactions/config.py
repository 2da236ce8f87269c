"""The recipes for files of interactions and of sequences, frozen, with unknown keys refused."""

from pathlib import Path
from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from training.config import decode_recipe

Positive = Annotated[float, Meta(gt=0)]
Count = Annotated[int, Meta(ge=1)]
Seed = Annotated[int, Meta(ge=0, lt=2**31)]
Dropout = Annotated[float, Meta(ge=0, lt=1)]


class SplitConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is held out of interactions for validation where no file says it; of sequences it is the newest product."""

    share: Annotated[float, Meta(gt=0, lt=1)] = 0.1
    fewest_products: Annotated[int, Meta(ge=2)] = 5


class LossConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The softmax: what scores are divided by, and what stands for all other products in its sum.

    Attributes:
        temperature: scores are divided by it: cosines in a file of interactions, inner products in one of sequences.
        negatives: how many products are drawn a batch, half of them uniformly and half as often as they occur, as
            other customers' products in the batch would be; the same one drawn twice counts once.
        popularity: how much being popular says of a product: the log of how often it occurs, times this and the
            temperature, is added to its scores. In the sum it weighs as often as it occurs to this power, however
            often it is drawn: at 1 as in-batch negatives do without correction, so that vectors need only say in what
            a customer's choice differs from everybody's.
    """

    temperature: Positive
    negatives: Count
    popularity: Annotated[float, Meta(ge=0, le=1)] = 0.0


class FitConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The optimisation.

    Attributes:
        epochs: at most; the learning rate falls along a cosine to nothing at their end.
        patience: epochs without a better validation after which fitting ends.
        validate_every: epochs between two validations.
        customers_a_batch: whole customers; an epoch shows each of them once.
        checkpoint_seconds: how much work a kill may cost at most.
    """

    epochs: Count
    patience: Count
    validate_every: Count = 1
    customers_a_batch: Count
    learning_rate: Positive
    checkpoint_seconds: Annotated[float, Meta(ge=0)] = 30


class FactorsRecipe(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="model", tag="factors"
):
    """Customers and products as vectors, for a file of interactions.

    Attributes:
        hops: 0 is matrix factorisation; 1 is LightGCN with one hop.
        history_length: how many of the latest events a customer is told by in service.
        exponent: what the softmax's sum is raised to, tau2 / tau1 in the bilateral softmax loss; 1 is the softmax.
        evenness: of customers in the loss: at 0 each of their products counts alike, so that a few busy customers
            decide; at 1 each customer does; in between a product weighs its customer's number of them to the power of
            minus this.
    """

    seed: Seed = 1
    keep_versions: Count = 3
    dimensions: Count = 64
    hops: Annotated[int, Meta(ge=0, le=1)]
    history_length: Count = 200
    exponent: Positive = 1.0
    evenness: Annotated[float, Meta(ge=0, le=1)] = 0.0
    split: SplitConfig = SplitConfig()
    loss: LossConfig
    fit: FitConfig

    @property
    def name(self) -> str:
        """Return the model's name in metrics."""
        return "lightgcn" if self.hops else "matrix-factorisation"


class SequencesRecipe(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="model", tag="sasrec"
):
    """Causal self-attention, for a file of sequences.

    Attributes:
        history_length: how many of the latest products are read.
        layers, heads: of the attention.
        dropout: share of numbers dropped while fitting.
        smoothing: share of the average over the past beside the attention in each layer; at 0 there is attention
            alone.
    """

    seed: Seed = 1
    keep_versions: Count = 3
    dimensions: Count = 64
    history_length: Count = 50
    layers: Count = 2
    heads: Count = 2
    dropout: Dropout = 0.0
    smoothing: Annotated[float, Meta(ge=0, le=1)] = 0.7
    loss: LossConfig
    fit: FitConfig

    @property
    def name(self) -> str:
        """Return the model's name in metrics."""
        return "sasrec"

    def __post_init__(self) -> None:
        """Refuse heads of unequal width."""
        if self.dimensions % self.heads:
            raise ValueError(f"expected dimensions that are a multiple of heads, {self.heads}; got {self.dimensions}")


Recipe: TypeAlias = FactorsRecipe | SequencesRecipe


def read_recipe(path: Path) -> Recipe:
    """Read a TOML recipe; InvalidInput names the key that is unknown or wrong."""
    return decode_recipe(path, Recipe)
