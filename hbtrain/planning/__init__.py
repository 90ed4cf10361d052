"""What training needs, by formula: parameters, memory, communication, work. Numbers in, numbers out; no torch, no ray.

The formulas are checked against real models and real DeepSpeed engines in `tests/unit/test_planning.py` and
`tests/distributed/test_scale_ranks.py`; `docs/scale.md` applies them to clusters.
"""
