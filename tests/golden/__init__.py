"""What hbtrain gave when these values were recorded: plans, corpora read back, keys, help and the quickstart's scores.

Whoever changes one of these values changes what users see: a plan trains on other batches, a corpus reads differently,
a command's words change. Such a change is made on purpose, and has a line in CHANGELOG.md. Then

    pytest tests/golden --write-golden

writes the files in `tests/golden/data` anew, for the diff to be read and committed with the change. The quickstart's
scores are held by `tests/integration/test_quickstart.py`.

The tests use what users use: the command line, `load_config`, `BatchPlan`, `ParallelCorpus`. How a corpus lies on disk
is not looked at, only what is read from it.
"""
