"""The two towers: customers and products as vectors whose inner product says what is bought next.

Letters: B customers, L events, D dimensions, A attributes, K products, H heads.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from embeddings.customer.history import TOLD_APART
from embeddings.customer.tower_input import HOURS, WEEKDAYS

_AGE = 16
"""Width of the layer between an event's age and what it adds to the event: the age is one number."""


class ProductTower(nn.Module):
    """A product's own vector plus what its attributes add.

    Args:
        products: how many rows the catalogue has.
        attributes: how many codes each attribute has, the unknown one included.
        dimensions: D.
    """

    def __init__(self, products: int, attributes: Sequence[int], dimensions: int) -> None:
        super().__init__()
        self.ids = nn.Embedding(products, dimensions)
        self.unknown = nn.Parameter(torch.zeros(dimensions))
        self.attributes = nn.ModuleList(nn.Embedding(codes, dimensions) for codes in attributes)
        self.price = nn.Linear(2, dimensions)
        self.mix = nn.Sequential(
            nn.Linear(2 * dimensions, 2 * dimensions), nn.GELU(), nn.Linear(2 * dimensions, dimensions)
        )
        nn.init.normal_(self.ids.weight, std=0.01)
        for embedding in self.attributes:
            nn.init.normal_(embedding.weight, std=0.1)  # pyright: ignore[reportArgumentType]

    def forward(self, rows: Tensor, attributes: Tensor, price: Tensor) -> Tensor:
        """Return product vectors (K, D).

        Args:
            rows: int64 (K), -1 for a product to be placed by its attributes alone.
            attributes: int64 (K, A).
            price: float32 (K), NaN for unknown.
        """
        own_KD = torch.where((rows < 0).unsqueeze(1), self.unknown, self.ids(rows.clamp(min=0)))
        priced = torch.isfinite(price)
        shown_KD = self.price(torch.stack([torch.where(priced, price, 0).log1p(), priced.float()], dim=1))
        for number, embedding in enumerate(self.attributes):
            shown_KD = shown_KD + embedding(attributes[:, number])
        return own_KD + self.mix(torch.cat([own_KD, shown_KD], dim=1))


class CustomerTower(nn.Module):
    """Attention of a customer's situation over their latest events.

    Args:
        attributes: how many codes each customer attribute has, the unknown one included.
        channels, locations: how many the catalogue has.
        context: how many codes each further attribute of a situation has, the unknown one included.
        dimensions: D, a multiple of ``heads``.
        heads: H.
    """

    starts: Tensor
    unseen: Tensor

    def __init__(
        self,
        attributes: Sequence[int],
        channels: int,
        locations: int,
        context: Sequence[int],
        dimensions: int,
        heads: int,
    ) -> None:
        super().__init__()
        self.heads = heads
        # One table for all codes of a situation: a look-up a table would cost more than all else for one customer.
        sizes = torch.tensor([channels + 1, locations + 1, WEEKDAYS + 1, HOURS + 1, *context, *attributes])
        self.situation = nn.Embedding(int(sizes.sum()), dimensions)
        self.register_buffer("starts", sizes.cumsum(0) - sizes, persistent=False)
        self.types = nn.Embedding(TOLD_APART, dimensions)
        self.age = nn.Sequential(nn.Linear(1, _AGE), nn.GELU(), nn.Linear(_AGE, dimensions, bias=False))
        # What keeps a pad, type 0, from being attended to.
        self.register_buffer("unseen", torch.tensor([-1e9] + [0.0] * (TOLD_APART - 1)).unsqueeze(1), persistent=False)
        self.ask = nn.Linear(dimensions, heads * dimensions)
        self.value = nn.Linear(heads * dimensions, dimensions)
        self.mix = nn.Sequential(
            nn.Linear(2 * dimensions, 2 * dimensions), nn.GELU(), nn.Linear(2 * dimensions, dimensions)
        )
        # At zero, so that a code that training never meets, such as a new channel, stays without effect.
        nn.init.zeros_(self.situation.weight)
        nn.init.zeros_(self.types.weight)

    def forward(self, history: Tensor, types: Tensor, ages: Tensor, attributes: Tensor, context: Tensor) -> Tensor:
        """Return customer vectors (B, D).

        Args:
            history: float32 (B, L, D), vectors of the products of the latest events.
            types: int64 (B, L), 0 where padded.
            ages: float32 (B, L), log2 of one plus days.
            attributes: int64 (B, A).
            context: int64 (B, C), channel, location, weekday, hour, then what else is said of the situation.
        """
        situation_BD = self.situation(torch.cat([context, attributes], dim=1) + self.starts).sum(1)
        events_BLD = history + self.types(types) + self.age(ages.unsqueeze(2))
        asked_BHD = self.ask(situation_BD).unflatten(1, (self.heads, -1))
        weights_BLH = events_BLD @ asked_BHD.transpose(1, 2) / events_BLD.shape[2] ** 0.5 + self.unseen[types]
        # Beside the events stands nothing, at weight exp(0): heads may look away, and a history may be empty.
        weights_BLH = nn.functional.pad(weights_BLH, (0, 0, 1, 0)).softmax(1)[:, 1:]
        pooled_BD = self.value((weights_BLH.transpose(1, 2) @ events_BLD).flatten(1))
        return pooled_BD + self.mix(torch.cat([pooled_BD, situation_BD], dim=1))
