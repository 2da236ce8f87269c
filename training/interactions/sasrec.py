"""SASRec: causal self-attention over a sequence of products, with tied product vectors.

Kang and McAuley, 2018 (arXiv 1808.09781), trained with a sampled softmax in place of one negative a position. Beside
positions it learns how much attention each head pays to what lies so many products back, as T5 does. Beside the
attention each layer averages over the past, as BSARec does (Shin et al., 2024, arXiv 2312.10325): where most products
are seldom seen, attention alone learns the sequences by heart. BSARec's average is the lowest frequencies of the whole
sequence; here it is the mean of what a position may see, so that all positions can be predicted at once. Sequences lie
newest first, as the customer encoder of a bundle reads them: position 0 is the newest, pads stand at the end, and a
position attends to itself and to older ones. Letters: B sequences, L positions, D dimensions, H heads.
"""

import torch
from torch import Tensor, nn

PAD = -1
SPREAD = 0.02
"""Standard deviation of first weights, as in BERT. Products start near zero: one that is seldom seen stays there."""


class Block(nn.Module):
    """One layer: attention to the past and its average, then a transformation of each position.

    Args:
        dimensions: D, a multiple of ``heads``.
        heads: H.
        dropout: share of numbers dropped.
        smoothing: share of the average beside the attention.
    """

    def __init__(self, dimensions: int, heads: int, dropout: float, smoothing: float) -> None:
        super().__init__()
        self.heads = heads
        self.smoothing = smoothing
        self.ask = nn.Linear(dimensions, 3 * dimensions)
        self.value = nn.Linear(dimensions, dimensions)
        self.attended = nn.LayerNorm(dimensions)
        # Its square is how much of what differs from the average is kept.
        self.detail = nn.Parameter(torch.randn(dimensions))
        self.averaged = nn.LayerNorm(dimensions)
        self.mix = nn.Sequential(
            nn.Linear(dimensions, 4 * dimensions), nn.GELU(), nn.Linear(4 * dimensions, dimensions)
        )
        self.mixed = nn.LayerNorm(dimensions)
        self.dropout = nn.Dropout(dropout)

    def forward(self, events_BLD: Tensor, leaning_BHLL: Tensor, shares_BLL: Tensor) -> Tensor:
        """Return the layer's output (B, L, D).

        Args:
            events_BLD: what the layer below gave.
            leaning_BHLL: added to the attention of each position to each: a large negative number where the one must
                not see the other.
            shares_BLL: of each position in the average of what a position may see.
        """
        asked_BHLD, keys_BHLD, values_BHLD = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in self.ask(events_BLD).chunk(3, 2)
        )
        scores_BHLL = asked_BHLD @ keys_BHLD.transpose(2, 3) / asked_BHLD.shape[3] ** 0.5 + leaning_BHLL
        pooled_BLD = (self.dropout(scores_BHLL.softmax(3)) @ values_BHLD).transpose(1, 2).flatten(2)
        attended_BLD = self.attended(events_BLD + self.dropout(self.value(pooled_BLD)))
        average_BLD = shares_BLL @ events_BLD
        smooth_BLD = average_BLD + self.detail**2 * (events_BLD - average_BLD)
        averaged_BLD = self.averaged(events_BLD + self.dropout(smooth_BLD))
        events_BLD = torch.lerp(attended_BLD, averaged_BLD, self.smoothing)
        return self.mixed(events_BLD + self.dropout(self.mix(events_BLD)))


class SequenceEncoder(nn.Module):
    """Encodes a sequence: each position's vector predicts the next product, by inner product with product vectors.

    Args:
        dimensions: D, a multiple of ``heads``.
        length: the longest sequence.
        layers, heads: of the attention.
        dropout: share of numbers dropped.
        smoothing: share of the average beside the attention.
    """

    def __init__(self, dimensions: int, length: int, layers: int, heads: int, dropout: float, smoothing: float) -> None:
        super().__init__()
        self.nearness = nn.Parameter(torch.zeros(layers, heads, length))
        self.positions = nn.Parameter(torch.empty(length, dimensions))
        nn.init.normal_(self.positions, std=SPREAD)
        self.first = nn.LayerNorm(dimensions)
        self.blocks = nn.ModuleList(Block(dimensions, heads, dropout, smoothing) for _ in range(layers))
        self.dropout = nn.Dropout(dropout)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=SPREAD)
                nn.init.zeros_(module.bias)

    def forward(self, history_BLD: Tensor, there_BL: Tensor) -> Tensor:
        """Return vectors (B, L, D); position ``i`` reads the products at ``i`` and after it, and nothing newer.

        Args:
            history_BLD: product vectors, the newest first.
            there_BL: whether a position holds a product; pads stand at the end.
        """
        width = history_BLD.shape[1]
        places_L = torch.arange(width, device=history_BLD.device)
        back_LL = places_L - places_L.unsqueeze(1)
        # A pad sees itself, so that its weights are numbers; nobody sees it.
        seen_BLL = (back_LL >= 0) & (there_BL.unsqueeze(1) | (back_LL == 0))
        hidden_BLL = torch.where(seen_BLL, 0.0, -1e9)
        shares_BLL = seen_BLL / seen_BLL.sum(2, keepdim=True)
        # Counted from the oldest, so that a position stays what it was when newer products come.
        positions_BL = (there_BL.sum(1, keepdim=True) - 1 - places_L).clamp(min=0)
        events_BLD = self.dropout(self.first(history_BLD + self.positions[positions_BL]))
        for block, nearness_HL in zip(self.blocks, self.nearness, strict=True):
            leaning_BHLL = hidden_BLL.unsqueeze(1) + nearness_HL[:, back_LL.clamp(min=0)]
            events_BLD = block(events_BLD, leaning_BHLL, shares_BLL)
        return events_BLD
