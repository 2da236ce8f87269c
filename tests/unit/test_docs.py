"""What the documentation promises is there, and what is there is documented."""

import argparse
import ast
import re
from pathlib import Path

import msgspec
import pytest

import embeddings.release.__main__
import serving.command_line
import training.__main__
import training.retrain.__main__
from embeddings.catalogue.columns import ChannelRule
from serving.api.problems import STATUSES
from serving.management import catalogue, offers, releases, runs
from serving.management.database import CatalogueDatabase
from serving.management.editor import Editor
from serving.management.releases import Releases
from training.config import RECIPES, Recipe, read_recipe

ROOT = Path(__file__).parents[2]
DOCS = {
    name: (ROOT / "docs" / f"{name}.md").read_text()
    for name in ("operations", "http-api", "management-api", "architecture")
}
README = (ROOT / "README.md").read_text()

PARSERS = {
    "opportune-train": training.__main__._parser,  # pyright: ignore[reportPrivateUsage]
    "opportune-retrain": training.retrain.__main__._parser,  # pyright: ignore[reportPrivateUsage]
    "opportune-serve": serving.command_line.parser,
    "opportune-store": embeddings.release.__main__._parser,  # pyright: ignore[reportPrivateUsage]
}


def options(parser: argparse.ArgumentParser) -> set[str]:
    """Every long option of a command and of its subcommands."""
    found: set[str] = set()
    for action in parser._actions:  # pyright: ignore[reportPrivateUsage]
        if isinstance(action, argparse._SubParsersAction):  # pyright: ignore[reportPrivateUsage]
            for child in action.choices.values():
                found |= options(child)
        found |= {option for option in action.option_strings if option.startswith("--")}
    return found - {"--help"}


@pytest.mark.parametrize("command", PARSERS)
def test_every_option_is_documented(command: str):
    undocumented = {option for option in options(PARSERS[command]()) if option not in DOCS["operations"]}
    assert undocumented == set()


@pytest.mark.parametrize("document", [README, DOCS["operations"]])
def test_every_option_in_an_example_exists(document: str):
    for command, arguments in re.findall(
        r"^    (opportune-(?:train|retrain|serve|store)) (.*)$", document, re.MULTILINE
    ):
        for option in re.findall(r"--[a-z-]+", arguments):
            assert option in options(PARSERS[command]()), (command, option)


def test_every_make_target_of_the_readme_exists():
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^    make ([a-z]+)", README, re.MULTILINE)
    assert {"demo", "test"} <= set(targets)
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def imported(module: str) -> set[str]:
    """Every module of our own that a module imports, as a path."""
    found: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / module).read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{name.name}" for name in node.names)]
            found |= {path for name in names if (ROOT / (path := name.replace(".", "/") + ".py")).exists()}
    return found


@pytest.mark.parametrize(
    ("road", "steps", "beside"),
    [
        # What is beside the road: settings, and what a step hands on.
        ("One training run", ["training/job.py"], {"training/config.py", "training/loop.py", "training/progress.py"}),
        ("One request", ["serving/engine.py", "serving/pipeline.py"], {"serving/clock.py", "serving/ranked.py"}),
    ],
)
def test_the_roads_of_the_architecture_name_every_module(road: str, steps: list[str], beside: set[str]):
    text = DOCS["architecture"].split(f"## {road}")[1].split("\n## ")[0]
    named = re.findall(r"`([a-z_/]+\.py)`", text)
    assert [one for one in named if not (ROOT / one).exists()] == []
    package = steps[0].split("/")[0]
    on_it = {one for step in steps for one in imported(step) if one.startswith(f"{package}/")}
    # Findings and files of tables are the summary's affair.
    assert {one for one in on_it - beside - set(named) if "/datasets/" not in one} == set()


def test_every_link_between_documents_leads_somewhere():
    for page in [ROOT / "README.md", *ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), (page.name, target)


def test_every_status_of_an_error_is_documented():
    listed = "".join(DOCS[name].split("## Errors")[1] for name in ("http-api", "management-api"))
    documented = {int(status) for status in re.findall(r"\b([45]\d\d)\b", listed)}
    assert {int(status) for status in STATUSES.values()} <= documented


def test_every_call_of_the_management_api_is_documented():
    editor = Editor(CatalogueDatabase(""), Releases(Path()))
    found = [*offers.calls(editor), *catalogue.calls(editor), *releases.calls(Releases(Path()))]
    found += runs.calls(CatalogueDatabase(""))
    documented = set(re.findall(r"`(?:[A-Z]+ )?(/v1/[^`?]*|:[a-z]+)[`?]", DOCS["management-api"]))
    for call in found:
        path = re.sub(r"^/v1/(?:[a-z]+)(?=$|/\{id\}|:batch)", "/v1/{kind}", call.path)
        action = f":{path.rpartition(':')[2]}"
        assert {path, call.path, call.path.replace("{id}", "{version}"), action} & documented, call.path


def test_every_reason_code_is_documented():
    codes = set(re.findall(r'Reason\(\s*"([a-z_]+)"', (ROOT / "serving" / "explain.py").read_text()))
    assert codes
    assert {code for code in codes if f"`{code}`" not in DOCS["http-api"]} == set()


def test_every_metric_in_the_documents_is_registered_under_that_name():
    text = (ROOT / "serving" / "metrics.py").read_text()
    registered = set(re.findall(r'"(opportune_[a-z_]+)"', text))
    documented = set(re.findall(r"`(opportune_[a-z_]+?)(?:_total)?`", DOCS["operations"]))
    assert documented <= registered


def test_the_recipe_file_spells_out_every_default():
    """One place may not say something else than the other."""
    recipe = read_recipe(RECIPES / "default.toml")
    assert recipe == Recipe(channels=recipe.channels)
    spelled = (RECIPES / "default.toml").read_text()
    for section in msgspec.structs.fields(Recipe):
        value = getattr(recipe, section.name)
        keys = msgspec.structs.fields(value) if isinstance(value, msgspec.Struct) else [section]
        for key in keys:
            assert re.search(rf"^\[?{key.name}\b", spelled, re.MULTILINE), key.name


def test_every_channel_rule_is_explained_in_the_recipe():
    spelled = (RECIPES / "default.toml").read_text()
    assert all(f"{rule.value} (" in spelled for rule in ChannelRule)
