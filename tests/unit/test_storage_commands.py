"""Commands whose model, data and output are in a bucket; vocabularies from one."""

import gzip
import json

import pytest

from hbtrain.corpus import source_path
from hbtrain.errors import DataError
from hbtrain.modeling.vocabulary import SPECIAL_TOKENS, load_vocabulary
from hbtrain.storage import place, push
from tests.unit.test_mine_command import model

__all__ = ["model"]  # a fixture


def test_mining_in_a_bucket(hbtrain, model, bucket, cache, tmp_path):
    push(model, place(bucket.uri) / "model")
    bucket.put("facts.jsonl", source_path("demo").read_bytes())
    options = ["--data", f"{bucket.uri}/facts.jsonl", "--negatives", 1]
    code, out, err = hbtrain("mine", f"{bucket.uri}/model", *options, "--output", f"{bucket.uri}/mined/a.jsonl.gz")
    assert code == 0, err
    assert f"mined  {bucket.uri}/mined/a.jsonl.gz" in out
    code, _, err = hbtrain("mine", model, "--data", "demo", "--negatives", 1, "--output", tmp_path / "a.jsonl.gz")
    assert code == 0, err
    there, here = (
        gzip.decompress(bucket.get("mined/a.jsonl.gz")),
        gzip.decompress((tmp_path / "a.jsonl.gz").read_bytes()),
    )
    assert [json.loads(line) for line in there.splitlines()] == [json.loads(line) for line in here.splitlines()]


@pytest.mark.parametrize("command", ["evaluate", "mine"])
def test_an_output_that_cannot_be_written_is_told_before_the_work(hbtrain, model, cache, bucket, command):
    data = ["--benchmark", "demo"] if command == "evaluate" else ["--data", "demo"]
    code, _, err = hbtrain(command, model, *data, "--output", "s3://no-such-bucket/a/b")
    assert (code, err.count("\n")) == (2, 1)
    folder = "a/b" if command == "evaluate" else "a"
    assert err.startswith(f"error: --output = 's3://no-such-bucket/{folder}' cannot be written: ")


def test_an_evaluation_of_a_benchmark_in_a_bucket(hbtrain, model, bucket, cache):
    bucket.put("data/facts.jsonl", source_path("demo-heldout").read_bytes())
    options = ["--benchmark", "parallel", "--data", f"{bucket.uri}/data/facts.jsonl", "--output", f"{bucket.uri}/out"]
    index = ["--index", "Flat", "--depth", "5", "--embeddings", f"{bucket.uri}/embeddings"]
    code, out, err = hbtrain("evaluate", model, *options, *index)
    assert code == 0, err
    assert f"results  {bucket.uri}/out" in out
    assert any(key.startswith("facts/multi/") for key in json.loads(bucket.get("out/metrics.json")))
    assert any(key.endswith("/manifest.json") for key in bucket.keys("embeddings/"))
    code, _, err = hbtrain("evaluate", model, *options, "--embeddings", f"{bucket.uri}/embeddings")
    assert (code, "set --index or --actors" in err) == (2, True)


def test_a_vocabulary_in_a_bucket(bucket, cache):
    pieces = [*SPECIAL_TOKENS, "a", "##b"]
    bucket.put("vocab.txt.gz", gzip.compress("\n".join(pieces).encode()))
    assert load_vocabulary(f"{bucket.uri}/vocab.txt.gz") == pieces
    with pytest.raises(DataError, match="cannot fetch"):
        load_vocabulary(f"{bucket.uri}/none.txt")
