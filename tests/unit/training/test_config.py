"""The recipe: what is accepted, what is refused and how the refusal names it."""

from pathlib import Path

import msgspec
import pytest

from embeddings.catalogue.columns import ChannelRule
from embeddings.errors import InvalidInput
from training.config import (
    RECIPES,
    AlsConfig,
    AssortmentConfig,
    FitConfig,
    RankerConfig,
    Recipe,
    TablesConfig,
    TowersConfig,
    epochs_of,
    read_recipe,
)

DEFAULT = RECIPES / "default.toml"
SECTIONS = (Recipe, AssortmentConfig, TowersConfig, AlsConfig, FitConfig, RankerConfig, TablesConfig)


def read(folder: Path, text: str) -> Recipe:
    path = folder / "recipe.toml"
    path.write_text(text)
    return read_recipe(path)


def test_the_default_recipe_says_what_the_defaults_are() -> None:
    recipe = read_recipe(DEFAULT)
    assert recipe == Recipe()
    assert recipe.channels["store"] is ChannelRule.ASSORTMENT


@pytest.mark.parametrize("section", SECTIONS)
def test_the_default_recipe_shows_every_key(section: type[msgspec.Struct]) -> None:
    text = DEFAULT.read_text()
    for key in section.__struct_fields__:
        assert f"\n{key} = " in text or f"[{key}]" in text


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("epochs = 3", "epochs"),
        ("[towers]\ndimension = 64", "dimension"),
        ("[fit]\nepochs = 0", "recipe.toml, fit.epochs"),
        ("[fit]\nepochs = 1.5", "recipe.toml, fit.epochs"),
        ("[fit]\nlearning_rate = 0", "recipe.toml, fit.learning_rate"),
        ("[towers]\nid_dropout = 1.1", "recipe.toml, towers.id_dropout"),
        ("[towers]\ndimensions = 64\nheads = 3", "multiple of heads, 3; got 64"),
        ("seed = -1", "recipe.toml, seed"),
        ("[score]\ntowers = 0.1", "score"),
        ("[ranker]\nwindow = 3", "window"),
        ("[ranker]\nwindows = 0", "recipe.toml, ranker.windows"),
        ("[ranker]\nwidths = []", "recipe.toml, ranker.widths"),
        ("[ranker]\nsession_share = 1.1", "recipe.toml, ranker.session_share"),
        ("[fit", ""),
    ],
)
def test_an_unknown_or_wrong_key_is_refused_by_name(tmp_path: Path, text: str, named: str) -> None:
    assert read(tmp_path, '[channels]\nweb = "everything"') is not None
    with pytest.raises(InvalidInput) as raised:
        read(tmp_path, text + '\n[channels]\nweb = "everything"')
    assert "recipe.toml" in raised.value.field
    assert named in str(raised.value)


@pytest.mark.parametrize("channels", ["[channels]", '[channels]\nweb = "all"'])
def test_channels_have_known_rules_and_there_is_one(tmp_path: Path, channels: str) -> None:
    with pytest.raises(InvalidInput, match="channels"):
        read(tmp_path, channels)


def test_a_file_that_is_absent_or_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="--recipe"):
        read_recipe(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidInput, match=r"binary\.toml"):
        read_recipe(tmp_path / "binary.toml")


@pytest.mark.parametrize(
    ("epochs", "least", "steps", "expected"),
    [
        (1, 400, 550, 1),
        (1, 400, 100, 4),
        (6, 600, 100, 6),
        (1, 400, 399, 2),
        (1, 400, 3, 20),
        (30, 400, 3, 30),
        (2, 0, 1, 2),
    ],
)
def test_few_data_have_more_epochs_but_not_without_end(epochs: int, least: int, steps: int, expected: int):
    assert epochs_of(epochs, least, steps) == expected
