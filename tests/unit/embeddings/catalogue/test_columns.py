from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from embeddings.arrays import Ragged
from embeddings.catalogue.columns import Catalogue, ChannelRule
from embeddings.vocabulary import Vocabulary
from tests.world import UNTIL, tables
from training.catalogue import master_catalogue
from training.config import Recipe
from training.datasets import as_of, open_dataset
from training.histories import read_histories
from training.observed import observe


def observed(folder: Path, recipe: Recipe) -> Catalogue:
    dataset = as_of(open_dataset(str(folder), channels=recipe.channels, now=UNTIL), UNTIL)
    master = master_catalogue(dataset, recipe, UNTIL)
    events = read_histories(dataset, master, 0).events
    return observe(master, events, int(UNTIL.timestamp()), recipe.assortment).catalogue


@pytest.fixture(scope="module")
def catalogue(world: Path, recipe: Recipe) -> Catalogue:
    return observed(world, recipe)


@pytest.fixture(scope="module")
def bare(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    """The world as events alone tell it: no offers, no promotions, no attributes."""
    folder = tmp_path_factory.mktemp("bare")
    tables()["events"].write_parquet(folder / "events.parquet")
    return observed(folder, recipe)


def leaves(value: object, name: str = "catalogue") -> Iterator[tuple[str, Any]]:
    """Every part of a catalogue that is not made of parts, by its path."""
    if isinstance(value, Ragged):
        yield f"{name}.offsets", value.offsets
        yield f"{name}.values", value.values
    elif isinstance(value, Vocabulary):
        yield name, value.ids()
        for part, array in value.arrays().items():
            yield f"{name}.{part}", array
    elif hasattr(value, "_asdict"):
        for part, inner in value._asdict().items():  # pyright: ignore[reportAttributeAccessIssue]
            yield from leaves(inner, f"{name}.{part}")
    else:
        yield name, value


def arrays(catalogue: Catalogue) -> dict[str, NDArray[Any]]:
    return {name: value for name, value in leaves(catalogue) if isinstance(value, np.ndarray)}


@pytest.mark.parametrize("which", ["catalogue", "bare"])
def test_a_catalogue_comes_back_as_it_was_saved(which: str, tmp_path: Path, request: pytest.FixtureRequest):
    catalogue: Catalogue = request.getfixturevalue(which)
    catalogue.save(tmp_path)
    again = Catalogue.load(tmp_path)
    found = dict(leaves(again))
    assert len(arrays(again)) == len(list(tmp_path.rglob("*.npy")))  # none escapes the comparison
    for name, value in leaves(catalogue):
        if isinstance(value, np.ndarray):
            assert found[name].dtype == value.dtype, name
            np.testing.assert_array_equal(found[name], value, err_msg=name)
        else:
            assert found[name] == value, name


def test_a_loaded_catalogue_is_mapped_and_read_only(catalogue: Catalogue, tmp_path: Path):
    catalogue.save(tmp_path)
    for name, array in arrays(Catalogue.load(tmp_path)).items():
        assert isinstance(array.base, np.memmap), name
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


def test_channels_keep_their_order_their_rules_and_so_their_codes(catalogue: Catalogue, tmp_path: Path):
    reordered = catalogue._replace(
        channels={"web": ChannelRule.EVERYTHING, "app": ChannelRule.PROMOTED, "kiosk": ChannelRule.ASSORTMENT}
    )
    reordered.save(tmp_path)
    again = Catalogue.load(tmp_path)
    assert list(again.channels.items()) == list(reordered.channels.items())
    assert all(isinstance(rule, ChannelRule) for rule in again.channels.values())
    assert [again.channel_code(one) for one in ("web", "app", "kiosk", "fax")] == [0, 1, 2, None]


def test_attribute_sizes_count_the_unknown_code(catalogue: Catalogue):
    attributes = catalogue.products.attributes
    assert dict(zip(attributes.names, attributes.sizes, strict=True)) == {"department": 5, "brand": 6}
    late = catalogue.products.ids.row("late")
    assert late is not None
    codes = dict(zip(attributes.names, attributes.codes_NA[late].tolist(), strict=True))
    assert codes == {"department": 1, "brand": 0}
