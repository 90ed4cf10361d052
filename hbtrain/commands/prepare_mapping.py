"""The options of `hbtrain prepare` that say which columns of a table hold what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from hbtrain.corpus.readers.mapping import Columns

Many = Parameter(consume_multiple=True, negative=())


@dataclass(frozen=True, kw_only=True)
class ColumnOptions:
    """Options of tables and datasets.

    Attributes:
        query: LANGUAGE=COLUMN of the question. A column may be a path such as answers.text.0, or a sum such as
            title+text.
        passage: LANGUAGE=COLUMN of its passage.
        negatives: LANGUAGE=COLUMN of a text, or a list of texts, that do not answer the question.
        id_column: Rows with one id ask one question; without it, rows with equal questions do.
        passage_id_column: Rows with one passage id share a passage; without it, rows with equal passages do.
        where: COLUMN=VALUE: only records that have it, such as label=1.
    """

    query: Annotated[list[str], Many]
    passage: Annotated[list[str], Many]
    negatives: Annotated[list[str] | None, Many] = None
    id_column: str | None = None
    passage_id_column: str | None = None
    where: Annotated[list[str] | None, Many] = None

    def parsed(self) -> Columns:
        """What they say. Raises ConfigError for what is not of the form."""
        from hbtrain.corpus.readers.mapping import Columns, parse_columns, parse_where

        return Columns(
            parse_columns(self.query, "--query"),
            parse_columns(self.passage, "--passage"),
            parse_columns(self.negatives or [], "--negatives"),
            self.id_column,
            self.passage_id_column,
            parse_where(self.where or []),
        )


Mapping = Annotated[ColumnOptions, Parameter(name="*")]
