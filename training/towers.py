"""The two towers: customers and products as vectors whose inner product says what is bought next.

Letters: B customers, L events, D dimensions, A attributes, K products, H heads.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from embeddings.features import HOURS, WEEKDAYS
from embeddings.tables import EVENT_TYPES

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
        """Product vectors (K, D).

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
        dimensions: D, a multiple of ``heads``.
        heads: H.
    """

    def __init__(self, attributes: Sequence[int], channels: int, locations: int, dimensions: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.types = nn.Embedding(len(EVENT_TYPES) + 1, dimensions)
        self.age = nn.Sequential(nn.Linear(1, _AGE), nn.GELU(), nn.Linear(_AGE, dimensions))
        self.attributes = nn.ModuleList(nn.Embedding(codes, dimensions) for codes in attributes)
        self.context = nn.ModuleList(
            nn.Embedding(codes + 1, dimensions) for codes in (channels, locations, WEEKDAYS, HOURS)
        )
        self.nothing = nn.Parameter(torch.zeros(1, 1, dimensions))  # what is attended to without any event
        self.query = nn.Linear(dimensions, dimensions)
        self.key = nn.Linear(dimensions, dimensions, bias=False)
        self.value = nn.Linear(dimensions, dimensions)
        self.mix = nn.Sequential(
            nn.Linear(2 * dimensions, 2 * dimensions), nn.GELU(), nn.Linear(2 * dimensions, dimensions)
        )
        # At zero, so that a code that training never meets, such as a new channel, stays without effect.
        for embedding in (*self.attributes, *self.context, self.types):
            nn.init.zeros_(embedding.weight)  # pyright: ignore[reportArgumentType]

    def forward(self, history: Tensor, types: Tensor, ages: Tensor, attributes: Tensor, context: Tensor) -> Tensor:
        """Customer vectors (B, D).

        Args:
            history: float32 (B, L, D), vectors of the products of the latest events.
            types: int64 (B, L), 0 where padded.
            ages: float32 (B, L), log2 of one plus days.
            attributes: int64 (B, A).
            context: int64 (B, 4), channel, location, weekday, hour.
        """
        situation_BD = torch.stack([code(context[:, number]) for number, code in enumerate(self.context)]).sum(0)
        for number, embedding in enumerate(self.attributes):
            situation_BD = situation_BD + embedding(attributes[:, number])
        events_BLD = history + self.types(types) + self.age(ages.unsqueeze(2))
        events_BLD = torch.cat([self.nothing.expand(events_BLD.shape[0], 1, -1), events_BLD], dim=1)
        padded_BL = torch.cat([torch.zeros_like(types[:, :1]), (types == 0).long()], dim=1)
        # Keys and values are linear in the events, so both projections are applied to the few queries and pooled
        # vectors instead of to every event: the same result for a fraction of the work. A key's bias would shift
        # all of a head's weights alike, which the softmax does not see, so keys have none.
        queries_BHd = self.query(situation_BD).unflatten(1, (self.heads, -1))
        keys_HdD = self.key.weight.unflatten(0, (self.heads, -1))
        asked_BHD = torch.einsum("bhd,hdD->bhD", queries_BHd, keys_HdD)
        weights_BLH = events_BLD @ asked_BHD.transpose(1, 2) / queries_BHd.shape[2] ** 0.5
        weights_BLH = (weights_BLH - 1e9 * padded_BL.unsqueeze(2)).softmax(1)
        pooled_BHD = weights_BLH.transpose(1, 2) @ events_BLD
        values_HdD = self.value.weight.unflatten(0, (self.heads, -1))
        pooled_BD = torch.einsum("bhD,hdD->bhd", pooled_BHD, values_HdD).flatten(1) + self.value.bias
        return pooled_BD + self.mix(torch.cat([pooled_BD, situation_BD], dim=1))
