"""Scoring a model as a training does: by exact ranks, and from an index."""

import pytest

from hbtrain.config import load_config, override, to_tree
from hbtrain.errors import ConfigError
from hbtrain.retrieval.trec_files import read_trec_run
from hbtrain.runs.preflight import preflight
from hbtrain.runs.ray_tasks import build, score


@pytest.fixture
def config(cache):
    return load_config("quickstart", {"data.cache": str(cache), "data.validation": None})


def test_an_index_scores_what_exact_ranks_score(config, tmp_path):
    build(to_tree(config), str(tmp_path / "model"))
    (exact,) = score(to_tree(config), str(tmp_path / "model"), str(tmp_path / "exact"))
    indexed = override(config, {"evaluation.index": "Flat"})
    (found,) = score(to_tree(indexed), str(tmp_path / "model"), str(tmp_path / "indexed"))
    keys = [key for key in found.metrics if "@10" in key]
    assert {"demo/multi/recall@10", "demo/multi/ndcg@10"} <= set(keys)
    assert {key: found.metrics[key] for key in keys} == pytest.approx({key: exact.metrics[key] for key in keys})
    assert "demo/multi/map" in exact.metrics
    assert "demo/multi/map" not in found.metrics, "a list that ends does not know it"
    written = [read_trec_run(tmp_path / kind / "demo" / "multi" / "de.trec.gz") for kind in ("exact", "indexed")]
    assert written[0].documents == written[1].documents


def test_no_run_files_where_none_are_wanted(config, tmp_path):
    build(to_tree(config), str(tmp_path / "model"))
    score(to_tree(override(config, {"evaluation.run_depth": 0})), str(tmp_path / "model"), str(tmp_path / "runs"))
    score(to_tree(config), str(tmp_path / "model"))
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"evaluation.index": "IVFx"}, "could not parse index string IVFx"),
        ({"evaluation.index": "Flat", "evaluation.index_parameters": "nprobe=3"}, "the exact search 'Flat' has none"),
    ],
)
def test_an_index_that_faiss_does_not_know_is_found_before_training(config, overrides, words):
    with pytest.raises(ConfigError, match=words):
        preflight(override(config, overrides))


def test_what_is_of_an_index_needs_one(config):
    with pytest.raises(
        ConfigError, match="evaluation.index_parameters nprobe=2: they are of an index; set evaluation.index"
    ):
        override(config, {"evaluation.index_parameters": "nprobe=2"})
