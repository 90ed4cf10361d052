"""`hbtrain data`: data sets by name, what they are, and fetching them."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter
from rich.text import Text

from hbtrain.cli.display import TransferDisplay
from hbtrain.errors import ConfigError
from hbtrain.reporting.console import TextConsole, visible
from hbtrain.reporting.text import byte_size, counted

if TYPE_CHECKING:
    from hbtrain.hub import DataSet, Fetched

CONSENT_BYTES = 5 * 10**9  # above so many bytes, `fetch` asks first
Many = Parameter(consume_multiple=True, negative=())
Json = Annotated[bool, Parameter(name="--json")]


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What of a data set is meant.

    Attributes:
        languages: Language codes; by default all that the set has.
        purpose: What it is for; by default what `info` names first.
        catalogue: Files that describe data sets of your own, as `hbtrain/hub/catalogue` does those that ship.
    """

    languages: Annotated[list[str] | None, Many] = None
    purpose: Literal["benchmark", "training", "sentences"] | None = None
    catalogue: Annotated[list[str] | None, Many] = None

    def of(self, name: str) -> tuple[Sequence[DataSet], dict[str, Any]]:
        """The data set, or those of a family, and the arguments with which they are listed or fetched.

        Args:
            name: NAME, or NAME?split=train&... with values of its options.

        Raises:
            ConfigError: an option of the wrong form, or a catalogue that cannot be used.
            DataError: there is no such data set.
        """
        from hbtrain.hub import data_sets, parse

        selection = parse(name if name.startswith("hub:") else f"hub:{name}")
        if selection.languages is not None and self.languages is not None:
            raise ConfigError(f"{name} names languages, and so does --languages; leave one of them out")
        found = data_sets(selection.name, self.catalogue or ())
        languages = self.languages or selection.languages
        return found, {"languages": languages, "purpose": self.purpose, "options": selection.options}


Selected = Annotated[Wanted, Parameter(name="*")]
ALL = Wanted()

data = App(name="data", help="Data sets by name: list them, fetch them from the hub, say where they are.")


@data.command(name="list")
def list_(*, catalogue: Annotated[list[str] | None, Many] = None, json_: Json = False) -> None:
    """List all data sets: what they are for, how large, and what of them is on this machine.

    Parameters
    ----------
    catalogue
        Files that describe data sets of your own.
    json_
        Print one JSON document in place of the table.
    """
    from hbtrain import hub

    sets = hub.catalogue(catalogue or ())
    if json_:
        print(json.dumps([_document(one) for one in sets.values()], ensure_ascii=True))
        return
    families: dict[str, list[DataSet]] = {}
    for one in sets.values():
        families.setdefault(one.family or one.name, []).append(one)
    console = TextConsole()
    width = max(map(len, families))
    for name, members in sorted(families.items()):
        one = members[0]
        here = {language for member in members for language in hub.languages_here(member)}
        about = [", ".join(one.purposes), counted(len(one.languages), "language"), _size(members), one.licence.name]
        about += ["gated"] if one.gated else []
        about += [f"{len(members)} sets"] if len(members) > 1 else []
        about += [f"{len(here)} here"] if here else []
        console.print(Text.assemble((name.ljust(width), "bold"), "  ", " · ".join(about)), soft_wrap=True)
        console.print(Text(f"{'':{width}}  {visible(_title(one))}", "dim"), soft_wrap=True)
    note = "size: of all languages; here: languages on this machine; more of each: hbtrain data info NAME"
    console.print(f"\n{note}", style="dim", soft_wrap=True)


@data.command
def info(name: str, *, catalogue: Annotated[list[str] | None, Many] = None, json_: Json = False) -> None:
    """Say all that is known of a data set: `hbtrain data info miracl`.

    Parameters
    ----------
    name
        Of the data set.
    catalogue
        Files that describe data sets of your own.
    json_
        Print one JSON document.
    """
    from hbtrain.hub import Repository, data_sets, languages_here
    from hbtrain.hub.data_set import NEWEST

    members = data_sets(name, catalogue or ())
    if json_:
        documents = [_document(member) for member in members]
        print(json.dumps(documents if len(members) > 1 else documents[0], ensure_ascii=True))
        return
    one = members[0]
    spelled = [code if code == own else f"{code} ({own})" for code, own in one.languages.items()]
    rows = [("what it is", _title(one)), ("for", ", ".join(one.purposes)), ("languages", ", ".join(spelled))]
    rows += [(f"not for {value}", ", ".join(codes)) for value, codes in one.lacks.items()]
    rows += [("other side", f"{one.pivot}, which may be named too")] if one.pivot is not None else []
    rows += [("sets", ", ".join(member.name for member in members))] if len(members) > 1 else []
    rows += [(f"splits for {use}", ", ".join(splits)) for use, splits in one.splits.items()]
    rows += [(option, " or ".join(values)) for option, values in one.options.items()]
    here = {language: None for member in members for language in languages_here(member)}
    rows += [("size", _size(members).removeprefix("size ")), ("here", ", ".join(here) or "none of it")]
    for source in (source for member in members for source in member.sources):
        if isinstance(source, Repository):
            gated = ", gated: its terms are to be accepted there" if source.gated else ""
            newest = " (the newest, as no commit is known)" if source.revision == NEWEST else ""
            text = f"https://huggingface.co/datasets/{source.repository} at {source.revision}{newest}{gated}"
        else:
            text = source.url + ("" if source.is_checked else " (no digest is known, so it is not checked)")
        rows.append(("from", text))
    rows += [("licence", f"{one.licence.name}, {one.licence.page}"), ("citation", one.citation)]
    rows += [("checked", one.checked), ("fetch it", f"hbtrain data fetch {name}")]
    _print(rows)


@data.command
def licence(name: str, *, catalogue: Annotated[list[str] | None, Many] = None) -> None:
    """Say under what terms a data set may be used, and where that is written.

    Parameters
    ----------
    name
        Of the data set.
    catalogue
        Files that describe data sets of your own.
    """
    from hbtrain.hub import data_sets

    one = data_sets(name, catalogue or ())[0]
    gated = "; gated: its terms are to be accepted there before it can be fetched" if one.gated else ""
    TextConsole().print(f"{one.licence.name}  {one.licence.page}{gated}", soft_wrap=True)


@data.command
def fetch(name: str, *, wanted: Selected = ALL, yes: bool = False, json_: Json = False) -> None:
    """Fetch a data set, and check it: `hbtrain data fetch miracl --languages sw yo`.

    What is on this machine already is not fetched again, and a download that was cut off goes on where it stopped.
    Files of the hub are kept in the cache of huggingface_hub (HF_HOME), others in that of hbtrain (HBTRAIN_CACHE).

    Parameters
    ----------
    name
        Of the data set; also NAME?split=dev&translator=google, with what `info` names.
    yes
        Fetch more than 5 GB without a question.
    json_
        Print what was fetched as one JSON document.
    """
    from hbtrain.hub import fetch_listed, listing

    members, chosen = wanted.of(name)
    console = TextConsole(stderr=True)

    def notify(text: str) -> None:
        console.print(text, soft_wrap=True)

    listings = [listing(one, **chosen, notify=notify) for one in members]
    _consent(name, sum(listed.missing_size for listed in listings), yes)
    fetched = []
    for listed in listings:
        with TransferDisplay(console) as display:
            fetched.append(fetch_listed(listed, notify=notify, progress=display.tell))
    if json_:
        documents = [one.about() | {"folder": str(one.folder)} for one in fetched]
        print(json.dumps(documents if len(fetched) > 1 else documents[0], ensure_ascii=True))
        return
    for one in fetched:
        _show(one)


@data.command
def where(name: str, *, wanted: Selected = ALL) -> None:
    """Print the folder of a data set that was fetched; without --languages, that of all that are on this machine.

    Parameters
    ----------
    name
        Of the data set; also NAME?split=dev, as for `fetch`.
    """
    from hbtrain import hub

    members, chosen = wanted.of(name)
    for folder in [hub.where(one, **chosen) for one in members]:
        TextConsole().print(str(folder), soft_wrap=True)


def _consent(name: str, missing: int, yes: bool) -> None:
    """Ask before much is fetched. Raises ConfigError where nobody can be asked, or the answer is no."""
    if missing <= CONSENT_BYTES or yes:
        return
    size = byte_size(missing)
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise ConfigError(f"{name}: {size} are to be fetched; add --yes, or name fewer --languages")
    TextConsole(stderr=True).print(f"{name}: fetch {size}? [y/N] ", end="")
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise ConfigError("nothing was fetched; with --languages it is less")


def _show(fetched: Fetched) -> None:
    files = counted(len(fetched.digests), "file")
    listed = fetched.listing
    rows = [
        ("fetched", f"{listed.data_set.name} in {', '.join(listed.languages)}: {files}, {byte_size(listed.size)}"),
        *(("from", f"{source} at {at}") for source, at in fetched.revisions.items()),
        ("licence", f"{listed.data_set.licence.name}, {listed.data_set.licence.page}"),
        ("folder", str(fetched.folder)),
    ]
    _print(rows)


def _print(rows: Sequence[tuple[str, str]]) -> None:
    """Print names and texts side by side; addresses and paths stay in one piece, to be copied."""
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        TextConsole().print(Text.assemble((name.ljust(width), "bold"), "  ", visible(text)), soft_wrap=True)


def _title(one: DataSet) -> str:
    """The title of a data set, or of its family."""
    return one.title if one.family is None else one.title.removesuffix(f" ({one.name.removeprefix(f'{one.family}-')})")


def _size(members: Sequence[DataSet]) -> str:
    """The size of data sets in all languages, as far as the catalogue knows it."""
    sizes = [one.size for one in members]
    mb, whole = sum(size for size, _ in sizes), all(is_whole for _, is_whole in sizes)
    return byte_size(mb * 10**6) + ("" if whole else " or more") if mb else "size not known"


def _document(one: DataSet) -> dict[str, Any]:
    from hbtrain.hub import languages_here

    return one.model_dump(mode="json") | {"here": list(languages_here(one))}
