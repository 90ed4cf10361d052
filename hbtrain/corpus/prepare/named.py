"""A data set that `data.sources` names becomes a corpus in the cache, by the stages of `hbtrain prepare`.

It is made once for each revision, choice of languages and options. Where it is there, nothing is asked of the hub, and
the raw files may be gone. Bad rows are left out and counted: files of a pinned revision cannot be mended.
"""

from __future__ import annotations

from pathlib import Path

from hbtrain.corpus.data_sets import Notify, WantedData, about
from hbtrain.corpus.prepare.prepare import prepare
from hbtrain.corpus.readers.by_form import reader_of
from hbtrain.errors import StorageError
from hbtrain.storage.files import lock_file


def prepared_corpus(wanted: WantedData, cache: str | None = None, notify: Notify | None = None) -> Path:
    """The folder of a data set's corpus, which is fetched and prepared if need be; other processes wait for it.

    Args:
        wanted: for training.
        cache: folder of hbtrain's cache.
        notify: told what is done, and what was left out.

    Raises:
        DataError: it cannot be fetched, or its files are not of the form that the catalogue names.
        StorageError: a cache cannot be written.
    """
    folder, name = wanted.corpus_folder(cache), wanted.data_set.name
    say = notify or (lambda text: None)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with lock_file(folder.parent / "lock"):
            if wanted.is_prepared(cache):
                return folder
            fetched = wanted.fetch(cache, notify)
            say(f"preparing the corpus of {name}, once")
            made = prepare(reader_of(fetched), folder, skip_bad_rows=True, about=about(fetched))
    except OSError as error:
        raise StorageError(
            f"cannot keep data set {name} in {folder.parent}: {error.strerror}; set data.cache or HBTRAIN_CACHE"
        ) from error
    for reason, number in made.manifest["dropped"].items():
        say(f"{name}: left out {number:,}: {reason}; listed in {folder / 'drops.jsonl'}")
    return folder
