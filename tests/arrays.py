"""Every array of something made of arrays."""

import numpy as np

from embeddings.arrays import Ragged, Table


def arrays_of(part: object) -> list[np.ndarray]:
    """The arrays of a tuple, a table or a ragged array, in order, those of its parts included."""
    if isinstance(part, np.ndarray):
        return [part]
    if isinstance(part, Table):
        return arrays_of((part.base, part.tail))
    if isinstance(part, Ragged):
        return [part.offsets, part.values]
    return [array for one in part for array in arrays_of(one)] if isinstance(part, tuple) else []
