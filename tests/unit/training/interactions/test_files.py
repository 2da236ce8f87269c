"""Files of interactions and of sequences: what is read, what is refused, and what is held out."""

from pathlib import Path

import numpy as np
import pytest

from embeddings.errors import InvalidInput
from training.interactions.config import SplitConfig
from training.interactions.files import (
    Interactions,
    Kind,
    hold_out,
    hold_out_newest,
    hold_out_share,
    read,
    read_part,
)


def written(folder: Path, text: str, name: str = "data.txt") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def named(interactions: Interactions) -> dict[str, list[str]]:
    """Every customer's products by their ids."""
    return {
        customer: [interactions.products[row] for row in interactions.rows[place].tolist()]
        for place, customer in enumerate(interactions.customers)
    }


def test_ids_are_any_text_and_repeats_collapse_in_interactions_but_stay_in_sequences(tmp_path: Path) -> None:
    path = written(tmp_path, "anna tea café tea\r\n7 café\n")
    assert named(read(path, "interactions")) == {"anna": ["tea", "café"], "7": ["café"]}
    assert named(read(path, "sequences")) == {"anna": ["tea", "café", "tea"], "7": ["café"]}
    assert read(path, "sequences").product_counts().tolist() == [2, 2]
    assert read(path, "sequences").matrix().toarray().tolist() == [[1, 1], [0, 1]]


@pytest.mark.parametrize("kind", ["interactions", "sequences"])
@pytest.mark.parametrize(
    ("text", "line"),
    [("", 1), ("\n", 1), ("a p\n\nb p\n", 2), ("a p\nb\n", 2), ("a p\nb p\na q\n", 3)],
    ids=["nothing", "an empty line alone", "an empty line", "no products", "a customer twice"],
)
def test_a_wrong_line_is_named(tmp_path: Path, kind: Kind, text: str, line: int) -> None:
    path = written(tmp_path, text)
    with pytest.raises(InvalidInput) as refused:
        read(path, kind)
    assert refused.value.field == f"{path}:{line}"


@pytest.mark.parametrize("kind", ["interactions", "sequences"])
@pytest.mark.parametrize("bad", ["x" * 257, "x\0", "\x1b[2J", "x\x7f"], ids=["long", "NUL", "escape", "delete"])
@pytest.mark.parametrize("line", ["{} p", "b {}", "b p {}"])
def test_an_id_that_no_route_takes_is_named_by_its_line(tmp_path: Path, kind: Kind, bad: str, line: str) -> None:
    path = written(tmp_path, "a p\n" + line.format(bad) + "\n")
    with pytest.raises(InvalidInput, match="expected ids of at most 256 characters") as refused:
        read(path, kind)
    assert refused.value.field == f"{path}:2"
    assert str(refused.value).isprintable()


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="absent"):
        read(tmp_path / "absent", "interactions")
    path = tmp_path / "latin"
    path.write_bytes("anna café".encode("latin-1"))
    with pytest.raises(InvalidInput, match="UTF-8"):
        read(path, "interactions")


def test_a_given_part_is_held_out(tmp_path: Path) -> None:
    whole = read(written(tmp_path, "a p q r\nb q r\nc p\n"), "interactions")
    part = read_part(written(tmp_path, "b r\na r p\n", "part.txt"), whole)
    found = hold_out(whole, part)
    assert named(found.held_out) == {"a": ["p", "r"], "b": ["r"], "c": []}
    assert named(found.fit) == {"a": ["q"], "b": ["q"], "c": ["p"]}


@pytest.mark.parametrize("line", ["b p", "d p", "a x"], ids=["not together", "unknown customer", "unknown product"])
def test_a_part_that_is_not_in_the_whole_is_refused(tmp_path: Path, line: str) -> None:
    whole = read(written(tmp_path, "a p q r\nb q r\n"), "interactions")
    path = written(tmp_path, f"a p\n{line}\n" if line[0] != "a" else f"{line}\n", "part.txt")
    with pytest.raises(InvalidInput) as refused:
        read_part(path, whole)
    assert refused.value.field == f"{path}:{2 if line[0] != 'a' else 1}"


def test_holding_out_everything_is_refused(tmp_path: Path) -> None:
    whole = read(written(tmp_path, "a p q\n"), "interactions")
    with pytest.raises(InvalidInput, match="--validation"):
        hold_out(whole, whole)


def test_the_newest_of_each_sequence_is_held_out(tmp_path: Path) -> None:
    found = hold_out_newest(read(written(tmp_path, "a p q p\nb q\nc q r\n"), "sequences"))
    assert named(found.held_out) == {"a": ["p"], "b": [], "c": ["r"]}
    assert named(found.fit) == {"a": ["p", "q"], "b": ["q"], "c": ["q"]}


def test_a_random_share_is_held_out_of_those_with_enough_products(tmp_path: Path) -> None:
    random = np.random.default_rng(4)
    sizes = {f"c{number}": int(random.integers(1, 40)) for number in range(60)}
    text = "".join(f"{customer} {' '.join(f'p{n}' for n in range(size))}\n" for customer, size in sizes.items())
    whole = read(written(tmp_path, text), "interactions")
    config = SplitConfig(share=0.2, fewest_products=5)
    found = hold_out_share(whole, config, seed=1)
    for customer, everything in named(whole).items():
        held, kept = named(found.held_out)[customer], named(found.fit)[customer]
        assert sorted(held + kept) == sorted(everything)
        assert len(held) == (max(1, round(0.2 * len(everything))) if len(everything) >= 5 else 0)
    assert named(hold_out_share(whole, config, seed=1).held_out) == named(found.held_out)
    assert named(hold_out_share(whole, config, seed=2).held_out) != named(found.held_out)


def test_where_nothing_can_be_held_out_the_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="--data"):
        hold_out_share(read(written(tmp_path, "a p q\n"), "interactions"), SplitConfig(), seed=1)
    with pytest.raises(InvalidInput, match="--data"):
        hold_out_newest(read(written(tmp_path, "a p\n"), "sequences"))
