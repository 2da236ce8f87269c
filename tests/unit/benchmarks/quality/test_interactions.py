"""The benchmark of interactions and sequences, on a file small enough to be counted by hand."""

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from benchmarks.__main__ import main
from benchmarks.quality import interactions
from benchmarks.quality.interactions import DEFAULT_RECIPES, run
from embeddings.errors import InvalidInput
from training.interactions import job
from training.interactions.config import read_recipe

RECIPE = """
model = "{model}"
dimensions = 8
{hops}
[loss]
temperature = 0.2
negatives = 32
[fit]
epochs = 6
patience = 6
customers_a_batch = 16
learning_rate = 0.05
"""


@pytest.fixture(autouse=True)
def trained(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Train without a process of its own, on one thread; gives what was trained on."""
    data_trained_on: list[str] = []

    def train(data: str, recipe: Path, store: Path, validation: Path | None) -> None:
        until = datetime(2026, 1, 1, tzinfo=UTC)
        data_trained_on.append(data)
        job.run(data, store, read_recipe(recipe), validation=validation, until=until, device="cpu", gated=False)

    monkeypatch.setattr(interactions, "_train", train)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield data_trained_on
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(mode=False)


def written(path: Path, lines: list[list[str]]) -> Path:
    path.write_text("".join(f"{' '.join(line)}\n" for line in lines))
    return path


def groups(length: int) -> list[list[str]]:
    """Sixty customers, each with so many products of one of three groups; everybody has the first one too."""
    random = np.random.default_rng(5)
    return [
        [f"c{row}", "first", *(f"g{row % 3}-{product}" for product in random.permutation(8)[:length])]
        for row in range(60)
    ]


def test_interactions_are_ranked_beside_their_baselines(tmp_path: Path) -> None:
    lines = groups(7)
    trained_on = written(tmp_path / "train.txt", [line[:-2] for line in lines])
    # What training never saw cannot be predicted, and counts as missed.
    asked = [[line[0], *line[-2:], "never-seen"] if line[0] == "c0" else [line[0], *line[-2:]] for line in lines]
    test = written(tmp_path / "test.txt", asked)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE.format(model="factors", hops="hops = 1"))
    found = run(f"interactions:{trained_on}", test, recipe, tmp_path / "store", tmp_path / "out.json")
    assert set(found) == {"most popular", "implicit ALS", "opportune, from the history alone", "opportune"}
    # Twenty of twenty-five products leave hardly anything out but what was never seen.
    assert found["opportune"]["recall@20"].value == pytest.approx((59 + 2 / 3) / 60, abs=1e-5)
    assert found["opportune"]["ndcg@20"].value > found["most popular"]["ndcg@20"].value
    for figures in found.values():
        assert all(one.low <= one.value <= one.high for one in figures.values())
    report = msgspec.json.decode((tmp_path / "out.json").read_bytes())
    assert report["customers"] == 60
    assert report["to_foretell"] == 121
    assert report["results"]["opportune"]["recall@20"]["value"] == found["opportune"]["recall@20"].value


def test_of_sequences_the_newest_is_predicted_and_never_trained_on(tmp_path: Path) -> None:
    file = written(tmp_path / "all.txt", [*groups(6), ["single", "g0-1"]])
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE.format(model="sasrec", hops="layers = 1"))
    found = run(f"sequences:{file}", None, recipe, tmp_path / "store", tmp_path / "out.json")
    assert set(found) == {
        "most popular",
        "item-kNN",
        "opportune, from the history alone",
        "opportune",
        "opportune, a product behind",
    }
    assert found["opportune"] == found["opportune, from the history alone"]
    assert found["opportune, a product behind"]["ndcg@10"].value > found["most popular"]["ndcg@10"].value
    assert found["opportune"]["ndcg@10"].value > found["most popular"]["ndcg@10"].value
    past = [line.split() for line in (tmp_path / "store" / "past.txt").read_text().splitlines()]
    assert past == [line[:-1] for line in groups(6)]
    older = [line.split() for line in (tmp_path / "store" / "behind" / "past.txt").read_text().splitlines()]
    assert older == [line[:-2] for line in groups(6)]


def suite(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    """The exit status of the command line."""
    monkeypatch.setattr(sys, "argv", ["opportune-bench", "quality", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        main()
    assert isinstance(left.value.code, int)
    return left.value.code


def test_by_the_command_a_release_is_trained_once_for_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: list[str]
) -> None:
    lines = groups(7)
    file = written(tmp_path / "train.txt", [line[:-2] for line in lines])
    test = written(tmp_path / "test.txt", [[line[0], *line[-2:]] for line in lines])
    recipe, out = tmp_path / "recipe.toml", tmp_path / "out.json"
    recipe.write_text(RECIPE.format(model="factors", hops="hops = 0"))
    arguments = ["--data", f"interactions:{file}", "--test", test, "--recipe", recipe, "--store", tmp_path / "store"]

    for _ in range(2):
        out.unlink(missing_ok=True)
        assert suite(monkeypatch, *arguments, "--json", out) == 0
        assert msgspec.json.decode(out.read_bytes())["recipe"]["fit"]["learning_rate"] == 0.05
        assert len(trained) == 1
    recipe.write_text(recipe.read_text().replace("0.05", "0.04"))
    assert suite(monkeypatch, *arguments, "--json", out) == 0
    assert msgspec.json.decode(out.read_bytes())["recipe"]["fit"]["learning_rate"] == 0.04
    assert len(trained) == 2


def test_without_a_recipe_the_suite_trains_what_training_would() -> None:
    assert {kind: path.name for kind, path in DEFAULT_RECIPES.items()} == job.DEFAULT_RECIPES


def test_options_of_the_other_kind_of_data_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path / "train.txt", groups(4))
    for arguments, named in (
        (["--test", file], "--test"),
        (["--validation", file], "--validation"),
        (["--recipe", file], "--recipe"),
        (["--data", f"sequences:{file}", "--task", "novel"], "--task"),
        (["--data", f"sequences:{file}", "--test", file], "--test"),
        (["--data", f"sequences:{file}", "--validation", file], "--validation"),
        (["--data", f"interactions:{file}"], "--test"),
        (["--data", file], "--data"),
    ):
        assert suite(monkeypatch, *arguments, "--store", tmp_path / "store") == 2
        assert named in capsys.readouterr().err
    assert not (tmp_path / "store").exists()


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    gap, latin = tmp_path / "gap.txt", tmp_path / "latin.txt"
    gap.write_text("c1 p1 p2\n\nc2 p1 p2\n")
    latin.write_bytes("c1 caf\xe9 p2\n".encode("latin-1"))
    for file, said in (
        (gap, "gap.txt:2"),
        (latin, "latin.txt: expected text"),
        (tmp_path / "absent.txt", "absent.txt"),
    ):
        with pytest.raises(InvalidInput, match=said):
            run(f"sequences:{file}", None, None, tmp_path / "store", tmp_path / "out.json")
