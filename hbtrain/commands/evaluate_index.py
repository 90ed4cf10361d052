"""The options of `hbtrain evaluate` for corpora that do not fit into memory: embeddings on disk, actors, an index."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from hbtrain.errors import ConfigError
from hbtrain.storage import RemotePath, check_writable

if TYPE_CHECKING:
    from hbtrain.retrieval.collection import SearchOptions


@dataclass(frozen=True, kw_only=True)
class IndexOptions:
    """How candidates are searched.

    Attributes:
        index: Search the best --depth with this index of FAISS (Flat, IVF4096,Flat, HNSW32, IVF4096,PQ64, ...) over
            embeddings kept on disk, for corpora that do not fit into memory; by default all ranks are exact.
        index_parameters: Of the search, such as nprobe=16 or efSearch=64.
        depth: Candidates of a query that the index finds.
        actors: Ray actors that encode, and then rank or index a part of the candidates each; 0: this process.
        half_precision: Keep the embeddings on disk in half precision.
        embeddings: An s3:// URI below which the embeddings are kept as well: no other machine encodes them again.
    """

    index: str | None = None
    index_parameters: str = ""
    depth: int = 100
    actors: int = 0
    half_precision: bool = False
    embeddings: str | None = None

    def search(self, batch_size: int) -> SearchOptions:
        """What they mean. Raises ConfigError for options that do not go together, StorageError for `embeddings`."""
        if self.depth < 1:
            raise ConfigError(f"--depth {self.depth}: must be 1 or more")
        on_disk = self.index is not None or self.actors
        if self.index is None and self.index_parameters:
            raise ConfigError(
                f"--index-parameters {self.index_parameters}: they are of an index; add --index, IVF4096,Flat for one"
            )
        if self.half_precision and not on_disk:
            raise ConfigError(
                "--half-precision is for embeddings on disk; add --actors, or --index Flat or another index"
            )
        if self.embeddings is not None and not on_disk:
            raise ConfigError(
                f"--embeddings {self.embeddings}: for embeddings on disk; add --actors, or --index Flat or another"
            )
        from hbtrain.retrieval.collection import SearchOptions
        from hbtrain.retrieval.encoding import Batching

        mirror = None
        if self.embeddings is not None:
            mirror = RemotePath.parse(self.embeddings)
            check_writable(mirror, "--embeddings")
        return SearchOptions(
            parameters=self.index_parameters,
            actors=self.actors,
            dtype="float16" if self.half_precision else "float32",
            batching=Batching(batch_size=batch_size),
            mirror=mirror,
        )


Index = Annotated[IndexOptions, Parameter(name="*")]
EXACT = IndexOptions()
"""All ranks, in this process."""
