"""Every command that pages show is run: here, or by a test that is named; or it cannot be, for a reason."""

import contextlib
import glob
import itertools
import json
import re
import shlex
import shutil
import subprocess

import pytest
from cyclopts import MissingArgumentError

from hbtrain.cli.main import app
from hbtrain.config import load_config, override
from hbtrain.config.load import parse_flags
from hbtrain.hub import catalogue, parse
from hbtrain.runs.preflight import preflight
from hbtrain.sweeps.space import probes_of, trials_of
from hbtrain.sweeps.space_file import load_space, with_flags
from tests.unit.documented import ROOT, all_pages, commands, write_world
from tests.unit.test_catalogue_layouts import SHIPPED, stand_in

ELSEWHERE = {  # pattern: (test, what it holds)
    r"hbtrain train |tune/sweep": ("integration/test_quickstart.py", '"train", "quickstart"'),
    r"hbtrain sweep merge ": ("unit/test_merge_sweep.py", "merge"),
    r"hbtrain sweep ": ("integration/test_every_space.py", "test_its_trials_and_their_summary"),
    r"hbtrain verify ": ("integration/test_verify_command.py", '"verify"'),
    r"hbtrain push ": ("unit/test_push.py", '"push"'),
    r"hbtrain export ": ("unit/test_export.py", '"export"'),
    r"hbtrain translate ": ("integration/test_reproduce.py", '"translate"'),
    r"hbtrain doctor": ("integration/test_doctor.py", '"doctor"'),
    r"(cluster/submit|hbtrain submit) ": ("integration/test_submit.py", '"train", "quickstart"'),
    r"hbtrain evaluate .* --actors ": ("integration/test_retrieval_actors.py", "actors"),
    r"hbtrain (evaluate|compare|status) s3://": ("integration/test_storage_run.py", "bucket.uri"),
    r"hbtrain \w+ (corpora|runs|results-miracl)/small": ("integration/test_reproduce.py", "small_commands"),
    r"hbtrain audit (paper/xlmr-hybrid)": ("integration/test_reproduce.py", '"audit", "train"'),
    r"python tests/distributed/verify_matrix.py": ("distributed/test_verify_ranks.py", "def test_"),
    r"sbatch ": ("unit/test_cluster_slurm.py", "ray.sbatch"),
    r"ray get-auth-token": ("integration/test_ray_token.py", "token"),
}
"""Commands that take workers, a cluster or a bucket, and which test runs them. Their configuration is checked here too:
`train` up to where workers start, the points of `sweep`, the options of all."""
NOT_RUN = {
    r"docker |kubectl |helm |sed |echo s3\.bucket|cat$|cd cluster/tracking": "Docker or Kubernetes, and images",
    r"ray (up|exec|dashboard|down) ": "a cloud",
    r"ray (start|stop)": "a cluster that the other tests of the machine would find",
    r"sacct ": "SLURM",
    r"(make|pip|uv|pre-commit|\.|python3 -m venv) ": "makes an environment",
    r"(\.venv/bin/pytest|/tmp/oldest/bin/python) ": "runs the suite: CI does `make test`",
    r"mlflow ui": "a server without an end",
    r"jq ": "a program that hbtrain does not bring",
    r"python -$|python -c": "reads files of a model of the hub",
    r"hbtrain (compare RUN|prepare FORM)": "a pattern with words to be filled in",
    r"hbtrain \w+ .*\.\./shared/": "the data beside the checkout, and hours",
    r"python \.\./shared/tools/": "weights from the package index",
    r"hbtrain (train|sweep|status) .*(s3://|/shared)": "a bucket, or a folder that all nodes share",
}
FLAGS = ("train", "verify", "audit")  # commands whose flags are keys of the configuration
HERE = {
    "resources.workers": 1,
    "resources.use_gpu": False,
    "encoder.precision": "fp32",
    "batching.global_batch_size": 2,
    "tracking.uri": None,
}
"""What a training needs to be checked on this machine, with stand-ins of data sets that have two rows."""
ALL = commands()
INLINE = re.compile(r"(?<!`)`hbtrain ((?!prepare FORM)[a-z-]+ [^`|]+)`(?!`)")  # not a pipe in a table


def where(words):
    """The patterns that a command fits."""
    text = " ".join(words)
    return [pattern for pattern in (*ELSEWHERE, *NOT_RUN) if re.match(pattern, text)]


PATTERN = next(pattern for pattern in NOT_RUN if "FORM" in pattern)
DISTINCT = [(page, words) for words, page in {words: page for page, words in ALL}.items()]
COMPLETE = [(page, words) for page, words in DISTINCT if words[0] == "hbtrain" and PATTERN not in where(words)]
RUN = [(page, words) for page, words in DISTINCT if not where(words) and not page.startswith("data-sets/")]


def name(value):
    return " ".join(value)[:60] if isinstance(value, tuple) else value


def test_commands_are_found():
    pages = {page for page, _ in ALL}
    assert {"README.md", "cluster/README.md", "docs/tutorial.md", "docs/own-data.md", "data-sets/miracl.md"} <= pages
    assert len(RUN) > 30


def test_each_pattern_fits_a_command_and_each_test_is_there():
    for pattern in (*ELSEWHERE, *NOT_RUN):
        assert any(re.match(pattern, " ".join(words)) for _, words in ALL), pattern
    for file, held in ELSEWHERE.values():
        assert held in (ROOT / "tests" / file).read_text(), file


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    write_world(folder)
    return folder


@pytest.fixture
def world(made, monkeypatch, cache):
    """The files that commands name, in the working folder, to be read."""
    monkeypatch.chdir(made)
    return made


@pytest.fixture
def own_world(made, tmp_path, monkeypatch, cache):
    """The same, to be written to."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def filled(words):
    """The words of a command with patterns of files filled in, as a shell does, and files in the place of `...`."""
    for word in words:
        yield from sorted(glob.glob(word)) or (["a.jsonl.gz"] if word == "..." else [word])  # noqa: PTH207


@pytest.mark.parametrize(("page", "words"), COMPLETE, ids=name)
def test_its_options_and_keys_are_those_of_hbtrain(page, words, world):
    _, command, *rest = filled(words)
    if command == "submit":
        command, *rest = rest
    app.parse_args([command, *rest], print_error=False, exit_on_error=False)
    if command in ("train", "verify"):
        load_config(rest[0], parse_flags(rest[1:]))
    elif command == "sweep" and rest[0] != "merge":
        space = space_of(rest[0], rest[1:], world)
        assert (probes_of if space.search else trials_of)(space)


@pytest.mark.parametrize("page", [page for page, text in all_pages().items() if INLINE.search(text)])
def test_commands_within_sentences_are_those_of_hbtrain(page):
    for found in INLINE.findall(all_pages()[page]):
        command, *rest = shlex.split(" ".join(found.split()))
        if command != "submit" and "..." not in rest:
            with contextlib.suppress(MissingArgumentError):  # a sentence may leave out what it is not about
                app.parse_args([command, *rest], print_error=False, exit_on_error=False)


def space_of(first, rest, world):
    """The space of a sweep with its flags."""
    (world / "my-space.yaml").write_text("recipe: quickstart\nspace: {batching.alpha: {grid: [0, 1]}}\n")
    return with_flags(load_space(first), parse_flags(rest))


def data_sets(words):
    """{name: (purpose, languages)} of the data sets by name in a command, and in a recipe of its."""
    found = {}
    after = words[words.index("--languages") + 1 :] if "--languages" in words else ()
    asked = list(itertools.takewhile(lambda word: not word.startswith("--"), after))
    benchmarks = {"--benchmark", "--evaluation.benchmarks"} & {*words}
    if words[1] in FLAGS or "tutorial.yaml" in words:
        name = "tutorial.yaml" if "tutorial.yaml" in words else words[2]
        recipe = load_config(name, parse_flags(list(filled(words[3:]))) if words[1] == "train" else None)
        words, benchmarks = ("", "", *recipe.data.sources, *recipe.evaluation.benchmarks), True
    for word in words[2:]:
        plain = word.removeprefix("hub:").partition("?")[0]
        if plain not in SHIPPED:
            continue
        one = catalogue()[plain]
        purpose = "benchmark" if benchmarks else one.purposes[0]
        if word.startswith("hub:"):
            purpose = next(x for x in one.purposes if x != "benchmark")
        elif "--purpose" in words:
            purpose = words[words.index("--purpose") + 1]
        chosen = parse(f"hub:{word.removeprefix('hub:')}").languages or asked
        there = one.in_languages(purpose, one.chosen(purpose, {}), chosen or None)
        found[plain] = purpose, sorted(there, key=lambda x: x not in ("de", "en"))[: len(chosen) or 3]
    return found


def stand_ins(words, hub, folder):
    """Files of a catalogue with the data sets that a command names, small, in the stand-in of the hub."""
    files = []
    for one, (purpose, languages) in data_sets(words).items():
        tree = stand_in(hub, one, purpose, languages) | {"purposes": [purpose]}
        tree["languages"] = {x: tree["languages"][x] for x in languages}
        tree["form"] = SHIPPED[one].form_for(purpose)
        tree["splits"] = {x: y for x, y in tree.get("splits", {}).items() if x == purpose}
        for key in ("sizes", "lacks", "parts"):
            tree.pop(key, None)
        file = folder / f"{one}.catalogue.yaml"
        file.write_text(json.dumps(tree))
        files.append(str(file))
    return files


@pytest.mark.parametrize(("page", "words"), RUN, ids=name)
def test_it_runs(page, words, own_world, hub, hbtrain):
    words = list(filled(words))
    if words[0] != "hbtrain":
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
        return
    files = stand_ins(words, hub, own_world)
    _, command, *rest = words
    if files:
        rest += ["--data.catalogue" if command in FLAGS else "--catalogue", *files]
    if command == "audit":
        rest += ["--batching.global_batch_size", "2"] if files else []
    if "where" in rest:
        assert hbtrain(command, "fetch", *rest[1:])[0] == 0
    if command == "evaluate-run":
        assert hbtrain("evaluate", "MODEL", "--benchmark", "xquad-r=DIR", "--output", "made")[0] == 0
        shutil.move("made/runs/xquad-r", "RUNS")
    code, out, err = hbtrain(command, *rest)
    assert code == 0, err
    assert out


TRAININGS = [
    (page, words)
    for page, words in COMPLETE
    if words[1] in ("train", "sweep") and not re.search(r"s3://|/shared|sweep merge", " ".join(words))
]


def configurations(words, world):
    """The configuration of a training, or of the first, middle and last trial of a sweep."""
    _, command, first, *rest = filled(words)
    if command == "train":
        return [load_config(first, parse_flags(rest))]
    space = space_of(first, rest, world)
    trials = (probes_of if space.search else trials_of)(space)
    return [trials[place].config for place in (0, len(trials) // 2, -1)]


@pytest.mark.parametrize(("page", "words"), TRAININGS, ids=name)
def test_a_training_is_in_order_up_to_its_workers(page, words, world, hub, tmp_path):
    files = stand_ins(words, hub, tmp_path)
    for config in configurations(words, world):
        prepared = [source for source in config.data.sources if source.startswith("corpora/")]
        there = dict(zip(prepared, ("a.jsonl.gz", "b.jsonl.gz"), strict=False))
        sources = [there.get(source, source) for source in config.data.sources]
        changes = HERE | {"storage": str(tmp_path), "data.catalogue": files, "data.sources": sources}
        if config.encoder.backbone not in ("static", "transformer"):
            changes |= {"encoder.backbone": str(world / "backbone"), "encoder.freeze_layers": 0}
        models = {"loss.guide": config.loss.guide, "loss.teacher": config.loss.teacher}
        changes |= {key: str(world / "backbone") for key, model in models.items() if model is not None}
        checked = preflight(override(config, changes))
        assert checked.plan.batch(0).rows.size == 2
