"""`hbtrain push`: what goes to the hub, how it gets there, and why it does not."""

import json
import re

import pytest
import yaml
from huggingface_hub import ModelCard as HubCard

from hbtrain.modeling import Encoder, ModelCard
from hbtrain.modeling.card import add_scores
from hbtrain.runs.run_folder import RunFolder
from tests.unit.tiny_models import TEXTS, encoder_config

PLAN = "5e" * 32
SCORES = {
    "xquad-r/mono/map": 0.51,
    "xquad-r/multi/map": 0.25,
    "xquad-r/multi/rank_distance": 40.5,
    "xquad-r/multi/map/de": 0.2,
    "xquad-r/multi/query_cka": 0.7,
    "mine/mono/ndcg@10": 0.125,
}
COMMIT = "a" * 40


@pytest.fixture(scope="module")
def encoder():
    return Encoder.build(encoder_config("static"), lambda: TEXTS, 0)


@pytest.fixture
def run(tmp_path, encoder):
    """A finished run of two sources, one of them from the catalogue, with results on two benchmarks."""
    folder = RunFolder(tmp_path / "runs" / "first-1a2b3c4d")
    encoder.save(
        folder.model, ModelCard(base_model="static", languages=("de", "en"), sources={"wiki-pairs": 9, "own": 3})
    )
    add_scores(folder.model, {key: score for key, score in SCORES.items() if key.count("/") == 2})
    data = {"sources": {"somebody/wiki-pairs": COMMIT}, "licence": "cc-by-sa-4.0", "digest": "0" * 64}
    folder.update(finished=True, batch_plan=PLAN, data_sets={"sources/wiki-pairs": data, "benchmarks/xquad-r": data})
    folder.results.mkdir()
    (folder.results / "metrics.json").write_text(json.dumps(SCORES))
    about = {"benchmarks": {"xquad-r": {"data": data | {"sources": {"google/xquad-r": COMMIT}}}, "mine": {}}}
    (folder.results / "about.json").write_text(json.dumps(about))
    (folder.model / ".secret").write_text("no part of the model")
    return folder


@pytest.fixture
def token(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", hub.token)
    return hub.token


def push(hbtrain, run, *arguments, repo="my-team/retriever"):
    return hbtrain("push", run.path, "--repo", repo, *arguments)


def test_a_pushed_model_is_whole_and_its_card_tells_of_the_run(hbtrain, hub, token, run):
    code, out, err = push(hbtrain, run, "--licence", "apache-2.0", "--private")
    assert code == 0, err
    there = hub.models["my-team/retriever"]
    assert there.private
    assert re.search(rf"pushed +{hub.url}/my-team/retriever/commit/{there.head}", out)
    sent = {str(x.relative_to(run.model)) for x in run.model.rglob("*") if x.is_file()} - {".secret"}
    assert there.files.keys() - {".gitattributes"} == sent
    assert {path for path in sent - {"README.md"} if there.files[path] != (run.model / path).read_bytes()} == set()
    assert hub.uploaded, "no file was large"
    card = HubCard(there.files["README.md"].decode())
    assert card.data.license == "apache-2.0"
    assert card.data.get("hbtrain_run") == "first-1a2b3c4d"
    found = {(x.dataset_type, x.dataset_config, x.metric_type): x for x in card.data.eval_results}
    assert {key: x.metric_value for key, x in found.items()} == {
        ("google/xquad-r", "mono", "map"): 0.51,
        ("google/xquad-r", "multi", "map"): 0.25,
        ("google/xquad-r", "multi", "rank_distance"): 40.5,
        ("mine", "mono", "ndcg@10"): 0.125,
    }
    assert {x.dataset_revision for x in found.values()} == {COMMIT, None}
    for fact in (
        f"| batch plan (fingerprint of the first 16 batches) | {PLAN} |",
        "| licence of wiki-pairs | cc-by-sa-4.0 |",
        'SentenceTransformer("my-team/retriever")',
        "# retriever\n",
        "Its licence is apache-2.0",
        "| xquad-r/multi/map | 0.2500 |",
    ):
        assert fact in card.text
    assert "No licence is claimed" not in card.text


def test_a_dry_run_shows_all_and_asks_for_nothing(hbtrain, hub, run):
    code, out, err = push(hbtrain, run, "--dry-run")
    assert code == 0, err
    assert hub.requests == []
    shown = {name: int(size.replace(",", "")) for name, size in re.findall(r"^ *(\S+) +([\d,]+) bytes *$", out, re.M)}
    text = out.partition("README.md:\n\n")[2].partition("\nnothing was sent;")[0]
    assert shown.pop("README.md") == len(text.encode())
    assert shown == {
        str(x.relative_to(run.model)): x.stat().st_size
        for x in run.model.rglob("*")
        if x.is_file() and x.name not in ("README.md", ".secret")
    }
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["model-index"][0]["name"] == "retriever"
    assert "license" not in front
    assert "to my-team/retriever, public if it is made" in out


def test_what_is_sent_is_what_the_dry_run_shows(hbtrain, hub, token, run):
    text = push(hbtrain, run, "--dry-run")[1].partition("README.md:\n\n")[2].partition("\nnothing was sent;")[0]
    assert push(hbtrain, run)[0] == 0
    assert hub.models["my-team/retriever"].files["README.md"].decode() == text
    assert not hub.models["my-team/retriever"].private


def test_a_run_may_be_pushed_again_and_another_is_refused(hbtrain, hub, token, run):
    assert push(hbtrain, run)[0] == 0
    (run.results / "metrics.json").write_text(json.dumps({"xquad-r/multi/map": 0.75}))
    assert push(hbtrain, run)[0] == 0
    there = hub.models["my-team/retriever"]
    assert len(there.commits) == 2
    assert [x.metric_value for x in HubCard(there.files["README.md"].decode()).data.eval_results] == [0.75]
    other = RunFolder(run.path.rename(run.path.with_name("second-1a2b3c4d")))
    before = dict(there.files)
    code, _, err = push(hbtrain, other)
    assert code == 2
    assert "error: my-team/retriever is there with another content (1_Normalize" in err
    assert "give another name, or delete it" in err
    assert there.files == before
    there.files = {"notes.txt": b"by hand"}
    assert "another content (notes.txt)" in push(hbtrain, other)[2]


def test_an_upload_that_broke_off_is_made_whole_by_the_same_command(hbtrain, hub, token, run):
    hub.fail("/commit/", method="POST", status=504)
    code, _, err = push(hbtrain, run)
    assert code == 2
    assert re.search(r"error: \S+ refuses my-team/retriever: 504 .*; the same command sends what is missing", err)
    sent = len(hub.asked("/uploads/", "PUT"))
    assert push(hbtrain, run)[0] == 0
    assert len(hub.asked("/uploads/", "PUT")) == sent
    assert "README.md" in hub.models["my-team/retriever"].files


@pytest.mark.parametrize(
    ("given", "repo", "words"),
    [
        (None, "my-team/new", "no token for .*: run `hf auth login`, or set HF_TOKEN"),
        ("hf_wrong", "my-team/new", "does not accept the token"),
        ("hf_stranger", "my-team/new", r"the token may not write to my-team/new \(.*rights to write"),
        ("hf_accepted", "other-team/new", "the token may not write to other-team/new .* other-team must be its user"),
        ("hf_accepted", "new", "--repo new: must be ORG/NAME"),
        ("hf_accepted", "my-team/no spaces", "--repo my-team/no spaces: must be ORG/NAME"),
    ],
)
def test_refusals_are_one_line(hbtrain, hub, monkeypatch, run, given, repo, words):
    if given is not None:
        monkeypatch.setenv("HF_TOKEN", given)
    code, _, err = push(hbtrain, run, repo=repo)
    assert code == 2
    assert re.search(f"^error: .*{words}", err, re.M)
    assert "Traceback" not in err
    assert hub.models == {}


def test_without_a_network_that_is_said(hbtrain, hub, token, run, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    code, _, err = push(hbtrain, run)
    assert code == 2
    assert re.search(r"^error: 127\.0\.0\.1:9 cannot be reached \(.*\); see to network, proxies", err, re.M)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set; unset it" in push(hbtrain, run)[2]


def test_a_public_repository_is_not_made_private_unasked(hbtrain, hub, token, run):
    assert push(hbtrain, run)[0] == 0
    assert "my-team/retriever is there, and public; make it private" in push(hbtrain, run, "--private")[2]


def test_what_is_no_finished_run_is_refused(hbtrain, hub, token, run, tmp_path):
    assert "is no run with a trained model" in hbtrain("push", tmp_path, "--repo", "my-team/x")[2]
    run.update(finished=False)
    assert "is not finished" in push(hbtrain, run)[2]
    assert hub.requests == []
    (run.model / "README.md").unlink()
    run.update(finished=True)
    assert "cannot read the card and results of" in push(hbtrain, run)[2]


def test_a_run_without_benchmarks_and_of_an_earlier_version_goes_too(hbtrain, hub, token, run):
    for name in ("metrics.json", "about.json"):
        (run.results / name).unlink()
    run.update(batch_plan=None, data_sets=None)
    assert push(hbtrain, run)[0] == 0
    card = HubCard(hub.models["my-team/retriever"].files["README.md"].decode())
    assert card.data.eval_results is None
    assert "| batch plan (fingerprint of the first 16 batches) | unknown |" in card.text
