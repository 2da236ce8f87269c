"""What the packaging files promise each other: pins, targets, images, and no trace of one machine."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REQUIREMENTS: dict[str, list[str]] = {"base": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}

REGISTRY_HOST = re.compile(
    r"\b(?:pypi|npmjs|pythonhosted|debian|ubuntu|download\.pytorch|anaconda)\.(?:org|com)\b"
    r"|--(?:extra-)?index-url[ =]\S*://"
    r"|--find-links[ =]\S*[/:]"
)
MACHINE_PATH = re.compile(r"(?<![\w.}>/-])/(?:root|home|Users|work|workspace|builds|mnt)/")


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins() -> dict[str, str]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
    found = [re.fullmatch(r"([a-z0-9-]+)==([0-9][0-9a-z.]*)", line) for line in lines]
    assert all(found), [line for line, match in zip(lines, found, strict=True) if not match]
    names = [match[1] for match in found if match]
    assert len(names) == len(set(names)), "a package is pinned twice"
    return {match[1]: match[2] for match in found if match}


def stages() -> dict[str, tuple[set[str], str]]:
    """Dockerfile stage -> the stages it is made from, and its instructions without comments."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    bodies = re.split(r"^FROM ", "\n".join(lines), flags=re.MULTILINE)[1:]
    found: dict[str, tuple[set[str], str]] = {}
    for body in bodies:
        head = re.match(r"(\S+) AS (\S+)", body)
        assert head, f"a stage without a name: {body!r}"
        found[head[2]] = ({head[1], *re.findall(r"--from=(\S+)", body)}, body)
    return found


def tracked_files() -> list[Path]:
    """Every file of the next commit, new ones included."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout
    return [path for name in names.split("\0") if name and (path := ROOT / name).is_file()]


@pytest.mark.parametrize("group", REQUIREMENTS)
def test_every_named_dependency_is_pinned(group: str) -> None:
    names = {canonical(re.split(r"[\s<>=!~;\[]", requirement)[0]) for requirement in REQUIREMENTS[group]}
    assert names <= pins().keys()


def test_torch_is_pinned_by_its_public_version() -> None:
    assert pins()["torch"] == "2.13.0"


def test_make_help_shows_every_target() -> None:
    text = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z][a-z-]*):", text, flags=re.MULTILINE))
    assert targets >= {"help", "install", "demo", "test", "check", "bench", "clean"}
    shown = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, check=True, text=True
    )
    assert set(re.findall(r"^make ([a-z-]+) +\S", shown.stdout, flags=re.MULTILINE)) == targets


def test_make_help_shows_every_setting_with_its_default() -> None:
    text = (ROOT / "Makefile").read_text()
    settings = re.findall(r"^([A-Z_]+) \?= (\S+)$", text, flags=re.MULTILINE)
    assert settings
    for name, default in settings:
        assert f'@echo "{name}={default} ' in text


def test_the_serving_image_is_built_without_the_training_extra() -> None:
    known = stages()
    todo, seen = ["serve"], set[str]()
    while todo:
        stage = todo.pop()
        if stage in seen or stage not in known:
            continue
        seen.add(stage)
        parents, body = known[stage]
        assert not re.search(r"\btrain\b", body), f"stage {stage}"
        todo += ["base-cpu", "base-gpu"] if "base-${DEVICE}" in parents else parents
    assert {"serve", "build", "base", "base-cpu", "base-gpu"} == seen


@pytest.mark.parametrize("target", ["train", "serve"])
def test_an_image_never_runs_as_root(target: str) -> None:
    body = stages()[target][1]
    assert re.findall(r"^USER (.+)$", body, flags=re.MULTILINE) == ["10001"]


def test_every_install_in_the_images_uses_the_constraints() -> None:
    installs = re.findall(r"^RUN pip install .*$", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    assert installs
    assert all(" -c constraints.txt " in line for line in installs)


def test_the_commit_hooks_run_what_make_check_runs() -> None:
    recipe = re.search(r"^check:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert recipe
    checked = re.findall(r"\$\(BIN\)/(.+)", recipe[1])
    hooks = re.findall(r"entry: \.venv/bin/(.+)", (ROOT / ".pre-commit-config.yaml").read_text())
    assert hooks == checked


@pytest.mark.parametrize("pattern", [REGISTRY_HOST, MACHINE_PATH], ids=["registry host", "machine path"])
def test_no_file_names_a_registry_host_or_a_machine_path(pattern: re.Pattern[str]) -> None:
    hits: list[str] = []
    for path in tracked_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a picture or a table
        hits += [f"{path.relative_to(ROOT)}: {match[0]}" for match in pattern.finditer(text)]
    assert hits == []
