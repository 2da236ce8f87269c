"""Pictures: the same bytes for the same numbers, and a map whose axes are the principal components."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure

from embeddings.catalogue.columns import Attributes, Products
from embeddings.release.bundle import Epochs
from embeddings.vocabulary import Vocabulary
from training.pictures import draw_curves, draw_map, hide_overlapping, principal

PNG = b"\x89PNG\r\n\x1a\n"
COUNT = 600


def curve(seconds: float) -> list[Epochs]:
    return [Epochs(count, 9 * count, seconds * count, 3.0 / count, {"ndcg@10": 0.1 * count}) for count in (1, 2, 3)]


POPULARITY_N = np.arange(COUNT, dtype=np.float32)


def products(categories: int) -> Products:
    """Products of some categories, of twelve departments one of which is unknown."""
    codes = np.arange(COUNT) % (categories + 1)
    return Products(
        ids=Vocabulary.of([f"p{row}" for row in range(COUNT)]),
        attributes=Attributes(
            ("category", "department"),
            (tuple(f"c$_{number}$" for number in range(categories)), tuple(f"$d_{number}^$" for number in range(11))),
            np.stack([codes, codes % 12], axis=1).astype(np.int32),
        ),
        price_N=np.ones(COUNT),
        recommendable_N=np.ones(COUNT, np.bool_),
    )


def chunks(picture: bytes) -> set[bytes]:
    """The kinds of a PNG's parts."""
    found, place = set[bytes](), len(PNG)
    while place < len(picture):
        length = int.from_bytes(picture[place : place + 4])
        found.add(picture[place + 4 : place + 8])
        place += length + 12
    return found


def test_curves_are_the_same_bytes_however_fast_the_fit_and_whatever_the_settings(tmp_path: Path) -> None:
    first, second = tmp_path / "first.png", tmp_path / "second.png"
    draw_curves(first, {"towers": curve(1.0), "ranker": [Epochs(1, 1, 1.0, 1.0, {})]})
    with mpl.rc_context({"font.size": 30, "lines.linewidth": 9}):
        draw_curves(second, {"towers": curve(7.5), "ranker": [Epochs(1, 1, 2.0, 1.0, {})]})
    assert first.read_bytes().startswith(PNG)
    assert first.read_bytes() == second.read_bytes()
    assert chunks(first.read_bytes()) == {b"IHDR", b"pHYs", b"IDAT", b"IEND"}  # no text, no time


def test_other_numbers_are_another_picture(tmp_path: Path) -> None:
    draw_curves(tmp_path / "one.png", {"towers": curve(1.0)})
    draw_curves(tmp_path / "other.png", {"towers": curve(1.0)[:2]})
    assert (tmp_path / "one.png").read_bytes() != (tmp_path / "other.png").read_bytes()


def test_a_map_is_the_same_bytes_too(tmp_path: Path) -> None:
    units_ND = np.random.default_rng(1).standard_normal((COUNT, 5)).astype(np.float32)
    for name in ("one.png", "other.png"):
        draw_map(tmp_path / name, units_ND, products(40), POPULARITY_N, "category", "department")
    assert (tmp_path / "one.png").read_bytes().startswith(PNG)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "other.png").read_bytes()


def test_two_categories_make_no_map(tmp_path: Path) -> None:
    draw_map(
        tmp_path / "none.png", np.ones((COUNT, 5), np.float32), products(2), POPULARITY_N, "category", "department"
    )
    assert not (tmp_path / "none.png").exists()


@pytest.mark.parametrize("flipped", [1, -1])
def test_the_map_shows_where_vectors_differ_most_and_its_sides_do_not_depend_on_a_sign(flipped: int) -> None:
    random = np.random.default_rng(2)
    spread = np.array([1.0, 9.0, 0.1, 4.0])
    vectors_PD = (random.standard_normal((500, 4)) * spread + 7).astype(np.float32)
    vectors_PD[0] += np.array([0, 90, 0, 0], np.float32)
    points_P2, share = principal(vectors_PD * flipped)
    assert 0.95 < share < 1
    for axis, column in ((0, 1), (1, 3)):
        assert abs(np.corrcoef(points_P2[:, axis], vectors_PD[:, column])[0, 1]) > 0.99
        assert points_P2[np.abs(points_P2[:, axis]).argmax(), axis] > 0
    assert np.allclose(points_P2.mean(axis=0), 0, atol=1e-4)


def test_of_names_that_overlap_the_first_is_left_to_be_read() -> None:
    figure = Figure()
    texts = [figure.text(across, 0.5, "a category") for across in (0.1, 0.11, 0.7, 0.1)]
    figure.draw_without_rendering()
    hide_overlapping(texts)
    assert [text.get_visible() for text in texts] == [True, False, True, False]
