"""Pictures of a release: how its fits went, and where its products lie.

They are files of the bundle, so the same run draws the same bytes: nothing in them depends on when or how fast it ran,
nor on the settings of whoever draws. Letters: N products, P products drawn, D dimensions.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from embeddings.bundle import Epochs
from embeddings.catalog import Products

_DRAWN = 4_000
"""So many products are drawn, those bought most: what is hardly ever bought lies where its attributes say."""

_COLOURED = 9
"""So many departments get a colour of their own, those with most of the products drawn; the others are grey."""

_DPI = 100


def draw_curves(path: Path, curves: Mapping[str, Sequence[Epochs]]) -> None:
    """Loss and quality of each fit, epoch by epoch, as a PNG.

    Args:
        path: where it goes.
        curves: by what was fitted, a row of panels each.
    """
    with mpl.rc_context(mpl.rcParamsDefault):
        figure = Figure(figsize=(9, 3 * len(curves)), layout="constrained")
        for (losses, quality), (name, curve) in zip(
            figure.subplots(len(curves), 2, squeeze=False), curves.items(), strict=True
        ):
            losses.plot([one.epochs for one in curve], [one.loss for one in curve], marker="o", markersize=3)
            losses.set(title=f"{name}: loss", xlabel="epochs")
            measured = [one for one in curve if one.metrics]
            for metric in measured[0].metrics if measured else ():
                values = [one.metrics[metric] for one in measured]
                quality.plot([one.epochs for one in measured], values, marker="o", markersize=3, label=metric)
            quality.set(title=f"{name}: on what is held out", xlabel="epochs")
            for panel in (losses, quality):
                panel.xaxis.get_major_locator().set_params(integer=True)
                panel.grid(alpha=0.3)
            if measured:
                quality.legend()
        _save(figure, path)


def draw_map(path: Path, units_ND: NDArray[np.float32], products: Products, attribute: str) -> None:
    """The products bought most on the plane on which they lie furthest apart, coloured by an attribute, as a PNG.

    The plane is that of the vectors' two principal components: it is chosen without a look at the attribute.

    Args:
        path: where it goes.
        units_ND: product vectors of length one.
        products: whose vectors they are.
        attribute: one that the products have.
    """
    drawn_P = np.sort(np.argsort(-products.popularity_N, kind="stable")[:_DRAWN])
    points_P2 = principal(units_ND[drawn_P])
    column = products.attributes.names.index(attribute)
    codes_P = products.attributes.codes_NA[drawn_P, column]
    common = np.argsort(-np.bincount(codes_P)[1:], kind="stable")[:_COLOURED] + 1
    with mpl.rc_context(mpl.rcParamsDefault):
        figure = Figure(figsize=(9, 6), layout="constrained")
        panel = figure.subplots()
        others_P = ~np.isin(codes_P, common)
        style: dict[str, Any] = {"s": 6, "linewidths": 0}
        panel.scatter(*points_P2[others_P].T, color="lightgrey", label="others", **style)
        for place, code in enumerate(common.tolist()):
            label = products.attributes.labels[column][code - 1]
            panel.scatter(*points_P2[codes_P == code].T, color=f"C{place}", label=label, **style)
        panel.set(title=f"{len(drawn_P):,} products by {attribute}", xticks=[], yticks=[], aspect="equal")
        figure.legend(loc="outside right upper", markerscale=3, fontsize="small")
        _save(figure, path)


def principal(vectors_PD: NDArray[np.float32]) -> NDArray[np.float64]:
    """The first two principal components (P, 2), each signed so that its largest entry is positive."""
    centred_PD = vectors_PD.astype(np.float64) - vectors_PD.mean(axis=0)
    _, axes_DD = np.linalg.eigh(centred_PD.T @ centred_PD)
    points_P2 = centred_PD @ axes_DD[:, :-3:-1]
    return points_P2 * np.sign(points_P2[np.abs(points_P2).argmax(axis=0), [0, 1]])


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=_DPI, metadata={"Software": None})
