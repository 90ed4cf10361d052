"""`hbtrain data`: data sets by name, what they are, and fetching them."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter
from rich.text import Text

from hbtrain.cli.display import TransferDisplay
from hbtrain.errors import ConfigError
from hbtrain.reporting.console import TextConsole, visible
from hbtrain.reporting.table import facts
from hbtrain.reporting.text import byte_size, counted

if TYPE_CHECKING:
    from hbtrain.hub import DataSet, Fetched, Listing

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

    def of(self, name: str) -> tuple[DataSet, dict[str, Any]]:
        """The data set, and the arguments with which it is listed or fetched.

        Args:
            name: NAME, or NAME?split=train&... with values of its options.

        Raises:
            ConfigError: an option of the wrong form, or a catalogue that cannot be used.
            DataError: there is no such data set.
        """
        from hbtrain.hub import data_set, parse

        selection = parse(name if name.startswith("hub:") else f"hub:{name}")
        if selection.languages is not None and self.languages is not None:
            raise ConfigError(f"{name} names languages, and so does --languages; leave one of them out")
        found = data_set(selection.name, self.catalogue or ())
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

    sets = sorted(hub.catalogue(catalogue or ()).values(), key=lambda one: one.name)
    if json_:
        print(json.dumps([_document(one) for one in sets], ensure_ascii=True))
        return
    console = TextConsole()
    width = max(len(one.name) for one in sets)
    for one in sets:
        here = hub.languages_here(one)
        about = [", ".join(one.purposes), counted(len(one.languages), "language"), _size(one), one.licence.name]
        about += ["gated"] if one.gated else []
        about += [f"{len(here)} here"] if here else []
        line = Text.assemble((one.name.ljust(width), "bold"), "  ", " · ".join(about))
        console.print(line, soft_wrap=True)
        console.print(Text(f"{'':{width}}  {visible(one.title)}", "dim"), soft_wrap=True)
    console.print("\nsize: of all languages; more of each: hbtrain data info NAME", style="dim")


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
    from hbtrain.hub import Repository, data_set, languages_here

    one = data_set(name, catalogue or ())
    if json_:
        print(json.dumps(_document(one), ensure_ascii=True))
        return
    spelled = [code if code == own else f"{code} ({own})" for code, own in one.languages.items()]
    rows = [("what it is", one.title), ("for", ", ".join(one.purposes)), ("languages", ", ".join(spelled))]
    rows += [(f"splits for {use}", ", ".join(splits)) for use, splits in one.splits.items()]
    rows += [(option, " or ".join(values)) for option, values in one.options.items()]
    rows += [("size", _size(one)), ("here", ", ".join(languages_here(one)) or "none of it")]
    for source in one.sources:
        if isinstance(source, Repository):
            gated = ", gated: its terms are to be accepted there" if source.gated else ""
            text = f"https://huggingface.co/datasets/{source.repository} at {source.revision}{gated}"
        else:
            text = source.url + ("" if source.is_checked else " (no digest is known, so it is not checked)")
        rows.append(("from", text))
    rows += [("licence", f"{one.licence.name}, {one.licence.page}"), ("citation", one.citation)]
    rows += [("checked", one.checked), ("fetch it", f"hbtrain data fetch {one.name}")]
    TextConsole().print(facts(rows))


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
    from hbtrain.hub import data_set

    one = data_set(name, catalogue or ())
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

    one, chosen = wanted.of(name)
    console = TextConsole(stderr=True)

    def notify(text: str) -> None:
        console.print(text, soft_wrap=True)

    listed = listing(one, **chosen, notify=notify)
    _consent(listed, yes)
    with TransferDisplay(console) as display:
        fetched = fetch_listed(listed, notify=notify, progress=display.tell)
    if json_:
        print(json.dumps(fetched.about() | {"folder": str(fetched.folder)}, ensure_ascii=True))
    else:
        _show(fetched)


@data.command
def where(name: str, *, wanted: Selected = ALL) -> None:
    """Print the folder of a data set that was fetched; without --languages, that of all that are on this machine.

    Parameters
    ----------
    name
        Of the data set; also NAME?split=dev, as for `fetch`.
    """
    from hbtrain import hub

    one, chosen = wanted.of(name)
    TextConsole().print(str(hub.where(one, **chosen)), soft_wrap=True)


def _consent(listed: Listing, yes: bool) -> None:
    """Ask before much is fetched. Raises ConfigError where nobody can be asked, or the answer is no."""
    if listed.missing_size <= CONSENT_BYTES or yes:
        return
    size = byte_size(listed.missing_size)
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise ConfigError(f"{listed.data_set.name}: {size} are to be fetched; add --yes, or name fewer --languages")
    TextConsole(stderr=True).print(f"{listed.data_set.name}: fetch {size}? [y/N] ", end="")
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
    TextConsole().print(facts((Text(name, "bold"), text) for name, text in rows), soft_wrap=True)


def _size(one: DataSet) -> str:
    """The size of all languages, as far as the catalogue knows it."""
    mb, whole = one.size
    return byte_size(mb * 10**6) + ("" if whole else " or more") if mb else "size not known"


def _document(one: DataSet) -> dict[str, Any]:
    from hbtrain.hub import languages_here

    return one.model_dump(mode="json") | {"here": list(languages_here(one))}
