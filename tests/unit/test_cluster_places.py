"""Images, launcher files and the tracking server: each as far as it can be checked without a cloud or Docker."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest
import yaml
from packaging.requirements import Requirement

import hbtrain

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
DOCKERFILES = sorted([*CLUSTER.glob("images/*.Dockerfile"), *CLUSTER.glob("*/Dockerfile")])
LAUNCHERS = sorted(CLUSTER.glob("clouds/*.yaml"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = dict(
    line.split("==") for line in (CLUSTER / "images" / "constraints.txt").read_text().split("\n") if "==" in line
)
"""{package: version} of the images."""


def tool(name, *arguments, text=None):
    """Run a linter that the development packages bring, and return what it says."""
    path = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert path, f"{name} is not installed; pip install '.[dev]'"
    done = subprocess.run([path, *map(str, arguments)], input=text, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def yaml_files():
    """{path: its documents} of all YAML below cluster/."""
    return {path: list(yaml.safe_load_all(path.read_text())) for path in sorted(CLUSTER.rglob("*.yaml"))}


def values_of(tree, key):
    """Every value of `key`, wherever in the tree."""
    if isinstance(tree, dict):
        for name, value in tree.items():
            if name == key:
                yield value
            yield from values_of(value, key)
    elif isinstance(tree, list):
        for value in tree:
            yield from values_of(value, key)


def test_pins_are_inside_the_ranges_of_the_project():
    extras = PROJECT["optional-dependencies"]
    wanted = map(Requirement, [*PROJECT["dependencies"], *extras["cpu"], *extras["gpu"]])
    ranges = {requirement.name: requirement.specifier for requirement in wanted}
    for name, version in PINS.items():
        assert name not in ranges or ranges[name].contains(version), f"{name}=={version} but {ranges[name]}"
    assert {"ray", "torch", "deepspeed", "mlflow", "transformers"} <= PINS.keys() & ranges.keys()


def test_ray_is_of_one_version_everywhere():
    versions = set(re.findall(r"^FROM rayproject/ray:([\d.]+)-py311-", "".join(map(Path.read_text, DOCKERFILES)), re.M))
    versions.update(version for tree in yaml_files().values() for version in values_of(tree, "rayVersion"))
    assert versions == {PINS["ray"]}


def test_every_image_is_built_here_or_pinned():
    built = set(re.findall(r"^# .*docker build .*-t (\S+)", "".join(map(Path.read_text, DOCKERFILES)), re.M))
    name = "registry.example.com/hbtrain"
    ours = {f"{name}:{hbtrain.__version__}-{kind}" for kind in ("cpu", "cuda")}
    assert built == {*ours, f"{name}-mlflow:{PINS['mlflow']}"}
    used = {image for tree in yaml_files().values() for image in values_of(tree, "image")}
    assert built <= used
    tags = {}
    for image in used - built:
        repository, tag = image.partition("@")[0].split(":")
        assert re.fullmatch(r"\d+\.\d+", tag), f"{image}: a version is needed"
        assert tags.setdefault(repository, tag) == tag, f"{repository} has two versions"


def test_the_command_for_digests_pins_every_image_of_others(tmp_path):
    """With a `docker` that gives one made-up digest for each image; once more, it replaces what it has written."""
    shutil.copytree(CLUSTER, tmp_path / "cluster")
    (tmp_path / "docker").write_text(
        '#!/bin/sh\nfor image; do :; done; echo "sha256:$(echo $image $AGE | sha256sum | cut -c-64)"\n'
    )
    (tmp_path / "docker").chmod(0o755)
    command = re.search(r"^for image in .+?^done", (CLUSTER / "README.md").read_text(), re.M | re.S)[0]

    def pinned(age):
        environment = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "AGE": age}
        subprocess.run(["bash", "-euc", command], cwd=tmp_path, env=environment, check=True)
        text = "".join(path.read_text() for path in sorted(tmp_path.glob("cluster/*/*")))
        named = re.findall(r"^(?:FROM|\s+image:) (\S+)$", text, re.M)
        return {image for image in named if not image.startswith("registry.example.com/")}

    first, second = pinned("1"), pinned("2")
    assert all(re.fullmatch(r"[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}", image) for image in first | second)
    assert {image.partition("@")[0] for image in first} == {image.partition("@")[0] for image in second}
    assert len(first) == len(second) == 4
    assert not first & second


LOCKS = sorted(CLUSTER.glob("*/*.lock"))
ONLY_WITH_CUDA = re.compile(r"torch|triton|(nvidia|cuda)-.+|faiss-(cpu|gpu)")


def locked(path):
    """{package: version} of a lock."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    found = [re.fullmatch(r"([\w.-]+)==([\w.+!-]+) --hash=sha256:[0-9a-f]{64}", line) for line in lines]
    assert all(found), "a version and a hash for each package"
    return {match[1].lower().replace("_", "-"): match[2] for match in found}


def test_there_is_a_lock_for_every_image():
    named = {re.search(r"--require-hashes --requirement (?:/opt/)?(\S+)", path.read_text())[1] for path in DOCKERFILES}
    assert named == {path.name for path in LOCKS}


@pytest.mark.parametrize("name", ["cpu", "cuda"])
def test_locks_have_the_versions_that_hbtrain_is_tested_with(name):
    versions = locked(CLUSTER / "images" / f"{name}.lock")
    other = "gpu" if name == "cpu" else "cpu"
    expected = {package for package in PINS if package not in {f"faiss-{other}", *(["torch"] if name == "cpu" else [])}}
    assert {package: versions[package] for package in expected} == {package: PINS[package] for package in expected}
    extras = PROJECT["optional-dependencies"]
    wanted = map(Requirement, [*PROJECT["dependencies"], *extras["cpu" if name == "cpu" else "gpu"]])
    for requirement in wanted:
        if (name, requirement.name) != ("cpu", "torch"):
            assert requirement.specifier.contains(versions[requirement.name]), requirement


def test_images_of_ray_install_the_same_but_for_cuda():
    cpu, cuda = (
        {
            name: version
            for name, version in locked(CLUSTER / "images" / f"{kind}.lock").items()
            if not ONLY_WITH_CUDA.fullmatch(name)
        }
        for kind in ("cpu", "cuda")
    )
    assert cpu == cuda
    assert f"torch=={PINS['torch']} " in (CLUSTER / "images" / "cpu.Dockerfile").read_text()


def test_the_tracking_server_is_of_the_version_that_logs():
    folder = CLUSTER / "tracking"
    wanted = dict(re.findall(r"^(.+)==(.+)$", (folder / "requirements.txt").read_text(), re.M))
    assert wanted["mlflow"] == PINS["mlflow"]
    assert wanted.items() <= locked(folder / "requirements.lock").items()


def test_nothing_is_writable_by_all_and_no_image_runs_as_root():
    for path in (path for path in CLUSTER.rglob("*") if path.is_file()):
        assert not re.search(r"\b[0-7]?77[67]\b|chmod \S*[oa]\+\S*w", path.read_text()), path
    for path in DOCKERFILES:
        users = re.findall(r"^USER (\S+)", path.read_text(), re.M)
        assert users, path
        assert int(users[-1]) > 0


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_dockerfiles_have_no_faults_that_hadolint_knows(path):
    assert tool("hadolint", "--no-color", path) == ""
    assert "DL3006" in tool("hadolint", "--no-color", "-", text="FROM debian\n")


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_what_dockerfiles_copy_exists(path):
    copied = [words for line in re.findall(r"^COPY (.+)", path.read_text(), re.M) for words in line.split()[:-1]]
    context = ROOT if "images" in path.parts else path.parent
    for source in copied:
        assert (context / source).exists(), source
    if "images" in path.parts:
        assert {"hbtrain", "tune", "pyproject.toml", PROJECT["readme"], *PROJECT["license-files"]} <= set(copied)


def test_the_images_of_ray_differ_in_pytorch_alone():
    def lines(name):
        text = (CLUSTER / "images" / f"{name}.Dockerfile").read_text()
        lines = text.replace(f"{name}.lock", "LOCK").splitlines()
        return [line for line in lines if line.startswith(("FROM", "WORKDIR", "COPY", "USER"))]

    assert lines("cpu") == lines("cuda")


def test_the_compose_file_keeps_its_specification():
    compose = yaml.safe_load((CLUSTER / "tracking" / "compose.yaml").read_text())
    schema = json.loads((files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json").read_text())
    jsonschema.validate(compose, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(compose | {"services": {"mlflow": {"imagee": "x"}}}, schema)
    for service in compose["services"].values():
        assert (service["cap_drop"], service["security_opt"]) == (["ALL"], ["no-new-privileges:true"])
        assert service.get("depends_on", {}).keys() <= compose["services"].keys()
        for variable, value in service["environment"].items():
            if re.search("PASSWORD|KEY|TOKEN|SECRET", variable):
                assert re.fullmatch(r"\$\{\w+:\?\}", value), variable


def test_compose_and_kubernetes_give_the_tracking_server_the_same_settings():
    compose = yaml.safe_load((CLUSTER / "tracking" / "compose.yaml").read_text())["services"]["mlflow"]["environment"]
    parts = yaml.safe_load_all((CLUSTER / "kubernetes" / "tracking.yaml").read_text())
    (server,) = [part["spec"]["template"]["spec"] for part in parts if part["kind"] == "Deployment"]
    pods = {variable["name"]: variable.get("value") for variable in server["containers"][0]["env"]}
    assert compose.keys() == pods.keys() - {"POSTGRES_PASSWORD"}
    for name in ("MLFLOW_S3_ENDPOINT_URL", "MLFLOW_ARTIFACTS_DESTINATION", "AWS_DEFAULT_REGION"):
        assert compose[name] == pods[name]


def test_the_tracking_server_knows_its_variables():
    from mlflow.cli import server

    known = {parameter.envvar for parameter in server.params}
    settings = set(re.findall(r"^ +(MLFLOW_\w+): ", (CLUSTER / "tracking" / "compose.yaml").read_text(), re.M))
    assert settings - {"MLFLOW_S3_ENDPOINT_URL"} <= known


@pytest.mark.parametrize("path", LAUNCHERS, ids=lambda path: path.stem)
def test_ray_takes_the_launcher_file(path):
    import ray.autoscaler
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load(path.read_text())
    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    jsonschema.validate(config, schema)
    validate_config(prepare_config(config))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(config | {"worker_image": "x"}, schema)
    assert config["provider"]["type"] == path.stem
    kinds = config["available_node_types"]
    assert config["head_node_type"] in kinds
    assert max(kind.get("max_workers", 0) for kind in kinds.values()) <= config["max_workers"]


@pytest.mark.parametrize("path", LAUNCHERS, ids=lambda path: path.stem)
def test_nodes_of_the_launcher_show_a_token_and_see_the_shared_folder(path):
    config = yaml.safe_load(path.read_text())
    assert config["file_mounts"] == {"/home/ray/.ray/auth_token": "~/.ray/auth_token"}
    assert {"--env=RAY_AUTH_MODE=token", "--volume=/shared:/shared"} <= set(config["docker"]["run_options"])


@pytest.mark.parametrize("path", LAUNCHERS, ids=lambda path: path.stem)
def test_commands_of_the_launcher_are_sound(path):
    from ray.scripts.scripts import start

    config = yaml.safe_load(path.read_text())
    commands = [line for key, lines in config.items() if key.endswith("_commands") for line in lines]
    assert tool("shellcheck", "--shell=bash", "-", text="\n".join(commands) + "\n") == ""
    known = {flag for parameter in start.params for flag in parameter.opts}
    flags = {flag for line in commands if line.startswith("ray start") for flag in re.findall(r"(--[\w-]+)", line)}
    assert {"--head", "--address", "--autoscaling-config"} <= flags <= known
