"""Pictures of a release: how its fits went, and where its products lie.

They are files of the bundle, so the same run draws the same bytes: nothing in them depends on when or how fast it ran,
nor on the settings of whoever draws. Letters: N products, P of them, G categories, D dimensions.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.typing import NDArray

from embeddings.catalogue.columns import Products
from embeddings.release.bundle import Epochs

_FEWEST = 5
"""A category is drawn if so many of its products are bought."""

_COLOURED = 9
"""So many departments get a colour of their own, those with most of the categories; the others are grey."""

_NAMED = 60
"""So many categories are named in the map, those bought most, as far as there is room."""

_DPI = 100


def draw_curves(path: Path, curves: Mapping[str, Sequence[Epochs]]) -> None:
    """Draw loss and quality of each fit, epoch by epoch, as a PNG.

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
                panel.set_xlim(0.5, len(curve) + 0.5)  # of a single epoch there is no span to choose from
                panel.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
                panel.grid(alpha=0.3)
            if measured:
                quality.legend()
        _save(figure, path)


def draw_map(
    path: Path,
    units_ND: NDArray[np.float32],
    products: Products,
    popularity_N: NDArray[np.float32],
    category: str,
    department: str,
) -> None:
    """Draw the mean vector of each category on a plane, coloured by department, as a PNG.

    A product counts in its category's mean as much as it is bought. The plane is the one on which the means lie
    furthest apart, that of their two principal components: it is chosen without a look at the departments. For fewer
    than three categories no map is drawn.

    Args:
        path: where it goes.
        units_ND: product vectors of length one.
        products: whose vectors they are.
        popularity_N: how much each is bought.
        category: an attribute of theirs; a product of an unknown one is left out.
        department: another one.
    """
    found = _categories(units_ND, products, popularity_N, category, department)
    if len(found.names) < 3:
        return
    points_G2, share = principal(found.means_GD)
    counts = Counter(one for one in found.departments if one is not None)
    common = [name for name, _ in sorted(counts.items(), key=lambda one: (-one[1], one[0]))[:_COLOURED]]
    sizes_G = 12 + 150 * np.sqrt(found.bought_G / found.bought_G.max())
    with mpl.rc_context(mpl.rcParamsDefault):
        figure = Figure(figsize=(10, 7), layout="constrained")
        panel = figure.subplots()
        for place, name in enumerate([*common, None]):
            of_it = [row for row, one in enumerate(found.departments) if (one if one in common else None) == name]
            panel.scatter(
                *points_G2[of_it].T,
                s=sizes_G[of_it],
                color="lightgrey" if name is None else f"C{place}",
                label="others" if name is None else name,
                alpha=0.8,
                linewidths=0,
            )
        named: list[Text] = []
        for row in np.argsort(-found.bought_G, kind="stable")[:_NAMED].tolist():
            written: dict[str, Any] = {"xytext": (4, 3), "textcoords": "offset points", "fontsize": 7}
            across, up = points_G2[row].tolist()
            named.append(panel.annotate(found.names[row].lower(), (across, up), parse_math=False, **written))
        panel.set(xticks=[], yticks=[], aspect="equal")
        panel.set_title(f"categories by department: two principal components, {share:.0%} of the variance")
        legend: Any = figure.legend(loc="outside right upper", fontsize="small")
        for handle, text in zip(legend.legend_handles, legend.get_texts(), strict=True):
            handle.set_sizes([40])
            text.set_parse_math(False)
        figure.draw_without_rendering()  # only what is laid out has a place
        hide_overlapping(named)
        _save(figure, path)


def hide_overlapping(texts: Sequence[Text]) -> None:
    """Hide every text that overlaps an earlier one that is shown."""
    shown: list[Any] = []
    for text in texts:
        box: Any = text.get_window_extent()
        if box.count_overlaps(shown):
            text.set_visible(False)
        else:
            shown.append(box)


class _Categories(NamedTuple):
    """The categories that a map shows.

    Attributes:
        means_GD: mean vectors.
        bought_G: how much is bought of it.
        departments: where most of its products are; None if that is unknown.
    """

    names: list[str]
    means_GD: NDArray[np.float64]
    bought_G: NDArray[np.float64]
    departments: list[str | None]


def _categories(
    units_ND: NDArray[np.float32], products: Products, popularity_N: NDArray[np.float32], category: str, department: str
) -> _Categories:
    """Return the categories with enough products that are bought."""
    names, labels, codes_NA = products.attributes
    of_category, of_department = names.index(category), names.index(department)
    codes_N = codes_NA[:, of_category] * (popularity_N > 0)
    counts = np.bincount(codes_N)
    means: list[NDArray[np.float64]] = []
    bought: list[float] = []
    departments: list[str | None] = []
    codes = [code for code in range(1, len(counts)) if counts[code] >= _FEWEST]
    for code in codes:
        rows = np.flatnonzero(codes_N == code)
        weights_P = popularity_N[rows].astype(np.float64)
        bought.append(weights_P.sum())
        means.append(weights_P @ units_ND[rows] / bought[-1])
        most = int(np.bincount(codes_NA[rows, of_department]).argmax())
        departments.append(labels[of_department][most - 1] if most else None)
    return _Categories(
        [labels[of_category][code - 1] for code in codes], np.array(means), np.array(bought), departments
    )


def principal(vectors_GD: NDArray[np.floating]) -> tuple[NDArray[np.float64], float]:
    """Return the first two principal components (G, 2), and their share of the variance.

    Each component is signed so that its entry of the largest absolute value is positive.
    """
    centred_GD = vectors_GD.astype(np.float64) - vectors_GD.mean(axis=0)
    variances_D, axes_DD = np.linalg.eigh(centred_GD.T @ centred_GD)
    points_G2 = centred_GD @ axes_DD[:, :-3:-1]
    points_G2 *= np.sign(points_G2[np.abs(points_G2).argmax(axis=0), [0, 1]])
    return points_G2, float(variances_D[-2:].sum() / variances_D.sum())


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=_DPI, metadata={"Software": None})
