"""SASRec: causal self-attention over a sequence of products, with tied product vectors.

Kang and McAuley, 2018 (arXiv 1808.09781), trained with a sampled softmax in place of one negative a position. In place
of positions it learns how much attention each head pays to what lies so many products back, as T5 does: sequences are
short, and what holds at one of their positions holds at all. Sequences lie newest first, as the customer encoder of a
bundle reads them: position 0 is the newest, pads stand at the end, and a position attends to itself and to older ones.
Letters: B sequences, L positions, D dimensions, H heads.
"""

import torch
from torch import Tensor, nn

PAD = -1


class Block(nn.Module):
    """One layer: attention to the past, then a transformation of each position, each added to what came in.

    Args:
        dimensions: D, a multiple of ``heads``.
        heads: H.
        dropout: share of numbers dropped.
    """

    def __init__(self, dimensions: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.before = nn.LayerNorm(dimensions)
        self.ask = nn.Linear(dimensions, 3 * dimensions)
        self.value = nn.Linear(dimensions, dimensions)
        self.between = nn.LayerNorm(dimensions)
        self.mix = nn.Sequential(
            nn.Linear(dimensions, 2 * dimensions),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(2 * dimensions, dimensions),
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, events_BLD: Tensor, leaning_BHLL: Tensor) -> Tensor:
        """The layer's output (B, L, D).

        Args:
            events_BLD: what the layer below gave.
            leaning_BHLL: added to the attention of each position to each: a large negative number where the one must
                not see the other.
        """
        asked_BHLD, keys_BHLD, values_BHLD = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part in self.ask(self.before(events_BLD)).chunk(3, 2)
        )
        scores_BHLL = asked_BHLD @ keys_BHLD.transpose(2, 3) / asked_BHLD.shape[3] ** 0.5 + leaning_BHLL
        pooled_BLD = (self.dropout(scores_BHLL.softmax(3)) @ values_BHLD).transpose(1, 2).flatten(2)
        events_BLD = events_BLD + self.dropout(self.value(pooled_BLD))
        return events_BLD + self.dropout(self.mix(self.between(events_BLD)))


class SequenceEncoder(nn.Module):
    """What follows each position of a sequence, as a vector of length one to be compared with product vectors.

    Args:
        dimensions: D, a multiple of ``heads``.
        length: the longest sequence.
        layers, heads: of the attention.
        dropout: share of numbers dropped.
    """

    def __init__(self, dimensions: int, length: int, layers: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.nearness = nn.Parameter(torch.zeros(layers, heads, length))
        self.blocks = nn.ModuleList(Block(dimensions, heads, dropout) for _ in range(layers))
        self.last = nn.LayerNorm(dimensions)
        self.dropout = nn.Dropout(dropout)

    def forward(self, history_BLD: Tensor, there_BL: Tensor) -> Tensor:
        """Vectors of length one (B, L, D): position ``i`` knows what stands at ``i`` and after it, and nothing newer.

        Args:
            history_BLD: product vectors of length one, the newest first.
            there_BL: whether a position holds a product; pads stand at the end.
        """
        width = history_BLD.shape[1]
        places_L = torch.arange(width, device=history_BLD.device)
        back_LL = places_L - places_L.unsqueeze(1)
        # A pad sees itself, so that its weights are numbers; nobody sees it.
        seen_BLL = (back_LL >= 0) & (there_BL.unsqueeze(1) | (back_LL == 0))
        hidden_BLL = torch.where(seen_BLL, 0.0, -1e9)
        # Times the root of D, as the paper's code does: single numbers of about one, beside which dropout makes sense.
        events_BLD = self.dropout(history_BLD * history_BLD.shape[2] ** 0.5)
        for block, nearness_HL in zip(self.blocks, self.nearness, strict=True):
            events_BLD = block(events_BLD, hidden_BLL.unsqueeze(1) + nearness_HL[:, back_LL.clamp(min=0)])
        return nn.functional.normalize(self.last(events_BLD), dim=2)
