"""The flags of probes: queries that are asked partly in another language."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from hbtrain.errors import ConfigError

if TYPE_CHECKING:
    from hbtrain.evaluation.probes import Probe
    from hbtrain.formats.lexicons import Lexicon


@dataclass(frozen=True, kw_only=True)
class ProbeFlags:
    """Queries that are asked partly in another language.

    Attributes:
        probe: Kinds of probes, each with pairs of languages: interpolate de+en switch de+en. Vectors are moved from the
            query's to its translation's, or words are replaced; the scores stand in probes.csv.
        lexicons: For switch: de-en=FILE for German words and their translations (MUSE's form, or FreeDict's).
    """

    probe: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None
    lexicons: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None

    def read(self) -> tuple[tuple[Probe, ...], dict[tuple[str, str], Lexicon]]:
        """The probes, and the lexicons of those that switch words.

        Raises:
            ConfigError: words that are no probe, or lexicons that are not those that the probes need.
            DataError: a lexicon cannot be read.
        """
        from hbtrain.config.batching import language_pair
        from hbtrain.evaluation.probes import parse_probes
        from hbtrain.formats.inputs import local_copy
        from hbtrain.formats.lexicons import read_lexicon
        from hbtrain.formats.locations import expanded

        files: dict[tuple[str, str], str] = {}
        for given in self.lexicons or ():
            name, _, file = given.partition("=")
            try:
                pair = language_pair(name)
            except ValueError as error:
                raise ConfigError(f"--lexicons {given}: {error}") from error
            if not file or pair in files:
                raise ConfigError(f"--lexicons {given}: give each pair once, with its file, as de-en=FILE")
            files[pair] = file
        probes = parse_probes(self.probe or (), files)
        unused = set(files) - {(probe.start, probe.end) for probe in probes if probe.kind == "switch"}
        if unused:
            start, end = min(unused)
            raise ConfigError(f"--lexicons {start}-{end}: for --probe switch {start}+{end}; add it, or leave this out")
        return probes, {pair: read_lexicon(str(local_copy(expanded(file), None))) for pair, file in files.items()}


Probed = Annotated[ProbeFlags, Parameter(name="*")]
UNPROBED = ProbeFlags()
"""Without probes."""
