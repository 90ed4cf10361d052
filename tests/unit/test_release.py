"""What surrounds the code on its host: files for releases, reports and CI, each as far as it can be checked here."""

import json
import re
import sys
import tomllib
from copy import deepcopy
from importlib.metadata import packages_distributions
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest
import yaml
from packaging.requirements import Requirement

import hbtrain

ROOT = Path(__file__).parents[2]
HOST = ROOT / ".github"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
KINDS = ["Added", "Changed", "Fixed", "Removed"]
SCHEMAS = {
    "CITATION.cff": "citation-file-format",
    ".github/ISSUE_TEMPLATE/bug.yml": "github-issue-forms",
    ".github/ISSUE_TEMPLATE/feature.yml": "github-issue-forms",
    ".github/ISSUE_TEMPLATE/config.yml": "github-issue-config",
    ".github/workflows/ci.yml": "github-workflows",
}


def read(name):
    return yaml.safe_load((ROOT / name).read_text())


def released():
    """[(version, date, the text below)] of the changelog, newest first."""
    text = (ROOT / "CHANGELOG.md").read_text()
    return re.findall(r"^## (\d[^ \n]*) - ([\d-]+)\n(.*?)(?=^## |\Z)", text, re.M | re.S)


def test_one_version_and_one_date_everywhere():
    (version, date, _), *_ = released()
    citation = read("CITATION.cff")
    assert version == citation["version"] == hbtrain.__version__
    assert date == citation["date-released"]
    assert citation["license"] == PROJECT["license"]


def test_the_changelog_is_by_kind_with_what_is_not_released_on_top():
    headings = re.findall(r"^## (.+)", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert headings == ["Unreleased", *(f"{version} - {date}" for version, date, _ in released())]
    for version, date, text in released():
        assert re.fullmatch(r"\d+\.\d+\.\d+ \d{4}-\d\d-\d\d", f"{version} {date}")
        kinds = re.findall(r"^### (.+)", text, re.M)
        assert kinds == [kind for kind in KINDS if kind in kinds], version


@pytest.mark.parametrize("name", SCHEMAS)
def test_it_has_the_form_that_the_host_reads(name):
    schemas = files("check_jsonschema") / "builtin_schemas" / "vendor"
    schema = json.loads((schemas / f"{SCHEMAS[name]}.json").read_text())
    document = read(name)
    if True in document:  # YAML 1.1 takes the key `on` for a truth
        document["on"] = document.pop(True)
    jsonschema.validate(document, schema)
    broken = deepcopy(document)
    broken[next(iter(broken))] = {"no": ["such", "value"]}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, schema)


def test_what_the_package_imports_is_what_it_depends_on():
    """Not what others happen to bring along, which they may cease to."""
    extras = [extra for name, extra in PROJECT["optional-dependencies"].items() if name != "dev"]
    wanted = {Requirement(line).name.lower() for line in sum(extras, PROJECT["dependencies"])}
    package = ROOT / "hbtrain"
    text = "\n".join(path.read_text() for path in package.rglob("*.py"))
    modules = set(re.findall(r"^ *(?:from|import) ([a-zA-Z]\w*)(?:\.[\w.]+)?(?: import .+| as \w+)?$", text, re.M))
    modules -= {*sys.stdlib_module_names, package.name}
    of = packages_distributions()
    names = {name: {dist.lower().replace("_", "-") for dist in of.get(name, [name])} for name in modules}
    lacking = [name for name, distributions in names.items() if wanted.isdisjoint(distributions)]
    assert len(modules) > 20
    assert not lacking


def test_ci_runs_what_is_run_here_for_every_python_that_is_promised():
    jobs = read(".github/workflows/ci.yml")["jobs"]
    steps = {name: [step.get("run") for step in job["steps"]] for name, job in jobs.items()}
    assert "bash .ci/run" in steps["all"]
    assert "make test-fast" in steps["fast"]
    (oldest,) = (
        step["with"]["python-version"] for step in jobs["all"]["steps"] if "setup-python" in step.get("uses", "")
    )
    tested = [oldest, *jobs["fast"]["strategy"]["matrix"]["python"]]
    words = "Programming Language :: Python :: "
    assert tested == [name.removeprefix(words) for name in PROJECT["classifiers"] if name.startswith(words)]
    assert PROJECT["requires-python"] == f">={oldest}"


def test_commits_are_checked_by_the_tools_of_make_lint():
    (repository,) = read(".pre-commit-config.yaml")["repos"]
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.M)[1]
    tools = re.findall(r"\$\(BIN\)/(\S+(?: format| check)?)", recipe)
    for hook in repository["hooks"]:
        assert hook["entry"] == "make lint" or hook["entry"].removeprefix(".venv/bin/").startswith(tuple(tools)), hook
    assert {"ruff format", "ruff check"} <= set(tools)
