"""Parallel corpora on disk."""

from hbtrain.corpus.conflicts import SourceIndex
from hbtrain.corpus.parallel import ParallelCorpus, source_path
from hbtrain.corpus.source import Side, Source

__all__ = ["ParallelCorpus", "Side", "Source", "SourceIndex", "source_path"]
