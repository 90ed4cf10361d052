"""Evaluates a model on the demo by two actors that rank a shard each: evaluate_spread.py MODEL CACHE; prints scores.

The demo is one shard of the usual size.
"""

import json
import sys
from pathlib import Path

from hbtrain.evaluation.benchmarks import load_benchmarks
from hbtrain.evaluation.evaluate import evaluate
from hbtrain.evaluation.rankers import SpreadRanker
from hbtrain.modeling.encoder import Encoder
from hbtrain.retrieval.collection_search import SearchOptions

if __name__ == "__main__":
    model, cache = sys.argv[1:]
    options = SearchOptions(actors=2, rows_per_shard=400, block_rows=100, cache=Path(cache))
    (benchmark,) = load_benchmarks(["demo"])
    evaluation = evaluate(Encoder.load(model), benchmark, ranker=SpreadRanker(options))
    print(json.dumps(evaluation.macro))
