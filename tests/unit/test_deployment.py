"""The compose file and the Helm chart: valid, and made of commands that these programs take."""

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from helm_python import Chart, lint

import serving.command_line
import training.retrain.__main__
from training.retrain.schedule import Schedule

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "opportune"
KUBERNETES = ("1.29.0", "1.37.0")
PARSERS = {
    "opportune-serve": serving.command_line.parser,
    "opportune-retrain": training.retrain.__main__._parser,  # pyright: ignore[reportPrivateUsage]
}
VALUES: dict[str, dict[str, Any]] = {
    "as they are": {},
    "on request, on a claim of one's own": {
        "store": {"existingClaim": "releases"},
        "retrain": {"schedule": "", "replicas": 2},
    },
    "with a recipe of one's own": {
        "retrain": {"recipe": '[channels]\nkiosk = "everything"\n'},
    },
    "on one node": {"store": {"accessMode": "ReadWriteOnce", "storageClassName": "local"}, "serve": {"workers": 3}},
}


def rendered(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What the chart makes, by kind and name."""
    with Chart.load(CHART) as chart:
        texts = chart.render(dict(values), name="shop", namespace="default").values()
    things: list[dict[str, Any]] = [thing for text in texts for thing in yaml.safe_load_all(text) if thing]
    return {f"{one['kind']}/{one['metadata']['name']}": one for one in things}


def container(thing: Mapping[str, Any]) -> dict[str, Any]:
    (found,) = thing["spec"]["template"]["spec"]["containers"]
    return found


def test_the_compose_file_is_of_the_schema_of_compose_files():
    checked = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", ROOT / "compose.yaml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout


def test_the_compose_file_starts_what_these_programs_take():
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())
    services = compose["services"]
    entry = ["opportune-serve", "--store", "/var/lib/opportune/store", "--host", "0.0.0.0", "--port", "8000"]
    assert all(f'"{word}"' in (ROOT / "Dockerfile").read_text() for word in entry)
    stores: set[Path] = set()
    for name in ("serve-1", "serve-2", "retrain"):
        one = services[name]
        program, *arguments = [*one.get("entrypoint", entry), *one["command"]]
        stores.add(PARSERS[program]().parse_args(arguments).store)
        assert one["environment"]["OPPORTUNE_DATABASE"].endswith("@database:5432/opportune")
        assert one["depends_on"]["database"]["condition"] == "service_healthy"
        assert one["volumes"] == ["store:/var/lib/opportune"]
    assert len(stores) == 1
    (schedule,) = services["retrain"]["command"]
    Schedule(schedule.removeprefix("--schedule="))
    assert services["database"]["image"] == "postgres:17"
    assert {volume.split(":")[0] for one in services.values() for volume in one["volumes"]} == compose["volumes"].keys()


def test_the_compose_file_shows_where_a_recipe_goes():
    text = (ROOT / "compose.yaml").read_text()
    retrain = yaml.safe_load(re.sub(r"^( +)# - ", r"\1- ", text, flags=re.MULTILINE))["services"]["retrain"]
    trained = PARSERS["opportune-retrain"]().parse_args([*retrain["entrypoint"][1:], *retrain["command"]])
    assert f"./recipe.toml:{trained.recipe}:ro" in retrain["volumes"]


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_the_chart_has_nothing_that_lint_minds(values: dict[str, Any]):
    report = lint(CHART, values, strict=True)
    assert (report["total_charts_linted"], report["errors"]) == (1, [])
    assert [one for one in report["messages"] if one["severity"] > 1] == []


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_what_the_chart_makes_is_what_kubernetes_takes(values: dict[str, Any], version: str):
    things = rendered(values)
    less, more = "existingClaim" in values.get("store", {}), "recipe" in values.get("retrain", {})
    assert len(things) == 4 - less + more
    for thing in things.values():
        kubernetes_validate.validate(thing, version, strict=True)


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_the_chart_starts_what_these_programs_take(values: dict[str, Any]):
    things = rendered(values)
    serve, retrain = (things[f"Deployment/shop-opportune-{name}"] for name in ("serve", "retrain"))
    taken = {name: PARSERS[name]() for name in PARSERS}
    served = taken[container(serve)["command"][0]].parse_args(container(serve)["args"])
    trained = taken[container(retrain)["command"][0]].parse_args(container(retrain)["args"])
    assert served.store == trained.store
    assert (served.host, served.admin_host) == ("0.0.0.0", "127.0.0.1")
    assert served.workers == values.get("serve", {}).get("workers", 1)
    assert bool(trained.schedule) == (values.get("retrain", {}).get("schedule") != "")
    if recipe := values.get("retrain", {}).get("recipe"):
        assert things["ConfigMap/shop-opportune-recipe"]["data"] == {trained.recipe.name: recipe}
        (mount,) = [one for one in container(retrain)["volumeMounts"] if one["name"] == "recipe"]
        assert mount["mountPath"] == str(trained.recipe.parent)
        (volume,) = [one for one in retrain["spec"]["template"]["spec"]["volumes"] if one["name"] == "recipe"]
        assert volume["configMap"] == {"name": "shop-opportune-recipe"}
    else:
        assert trained.recipe is None
    for thing in (serve, retrain):
        (variable,) = container(thing)["env"]
        assert variable["name"] == "OPPORTUNE_DATABASE"
        assert variable["valueFrom"]["secretKeyRef"] == {"name": "opportune-database", "key": "url"}
        (claim,) = [
            one["persistentVolumeClaim"]
            for one in thing["spec"]["template"]["spec"]["volumes"]
            if len(one) > 1 and "persistentVolumeClaim" in one
        ]
        assert claim["claimName"] == values.get("store", {}).get("existingClaim", "shop-opportune")


def test_probes_and_the_service_lead_to_the_port_that_is_served():
    things = rendered({})
    serve, service = things["Deployment/shop-opportune-serve"], things["Service/shop-opportune"]
    found = container(serve)
    assert found["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "http"}
    assert found["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
    (port,) = found["ports"]
    assert f"--port={port['containerPort']}" in found["args"]
    assert service["spec"]["ports"][0]["targetPort"] == port["name"]
    labels = serve["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    assert serve["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_a_value_that_the_chart_does_not_know_is_refused():
    assert lint(CHART, {"serve": {"replica": 2}})["errors"]
