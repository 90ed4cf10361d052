"""What servers of data refuse, and what keeps them from being reached, in one line with what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hbtrain.errors import MAKE_ROOM, DataError, StorageError, is_full
from hbtrain.hub.data_set import Download, Repository
from hbtrain.hub.web import BUSY, asked_wait_s

AGAIN = "the same command goes on where it stopped"


@contextmanager
def in_words(source: Repository | Download, url: str, elsewhere: str) -> Iterator[None]:
    """Turn what requests raise into a DataError.

    Args:
        source: what is asked for.
        url: where.
        elsewhere: what to do where there is no network: how another machine fetches the data, and where they belong.
    """
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    host = urlsplit(url).netloc
    try:
        yield
    except OfflineModeIsEnabled as error:
        raise DataError(f"{host} is not asked, as HF_HUB_OFFLINE is set; unset it, or {elsewhere}") from error
    except HfHubHTTPError as error:
        raise DataError(_refused(error, source, host)) from error
    except (httpx2.NetworkError, httpx2.TimeoutException, httpx2.ProxyError) as error:
        reason = str(error) or type(error).__name__
        raise DataError(
            f"{host} cannot be reached ({reason}); see to network, proxies (HTTPS_PROXY) and HF_ENDPOINT, and {AGAIN}; "
            f"or {elsewhere}"
        ) from error
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:  # ValueError: an answer that is no JSON
        raise DataError(f"{url} cannot be read ({error}); {AGAIN}") from error


def _refused(error: Any, source: Repository | Download, host: str) -> str:
    """What a server means by its refusal, a huggingface_hub error."""
    response = error.response
    what = f"{response.status_code} {response.reason_phrase}"
    if response.status_code == 429:
        wait_s = asked_wait_s(response.headers)
        when = "a while" if wait_s is None else f"{wait_s:.0f} s"
        return f"{host} has had too many requests; wait {when}, then {AGAIN}; with a token (HF_TOKEN) more are allowed"
    if isinstance(source, Repository):
        return _refused_by_hub(error, source, host, what)
    if response.status_code in (404, 410):
        return f"{response.url} is gone ({what}); give an entry with another address (--catalogue FILE)"
    return f"{response.url} is refused: {what}; {_remedy(response.status_code)}"


def _remedy(status: int) -> str:
    return AGAIN if status in BUSY else "see to HF_ENDPOINT, and to proxies"


def _refused_by_hub(error: Any, source: Repository, host: str, what: str) -> str:
    from huggingface_hub import errors, get_token

    name, page = source.repository, f"https://huggingface.co/datasets/{source.repository}"
    given = "the token that was given has no access" if get_token() else "no token was given"
    log_in = "run `hf auth login`, or set HF_TOKEN"
    meanings = {
        errors.GatedRepoError: f"{name} is gated, and {given}: accept its terms at {page}, then {log_in}",
        errors.RevisionNotFoundError: (
            f"{name} has no revision {source.revision} any more; give an entry with another one (--catalogue FILE)"
        ),
        errors.RemoteEntryNotFoundError: (
            f"{error.response.url} is gone; give an entry with another revision (--catalogue FILE)"
        ),
        # A gated repository's error is one of these as well.
        errors.RepositoryNotFoundError: (
            f"{host} has no dataset repository {name}, or it is not open to you; see {page}, and {log_in}"
        ),
    }
    for kind, meaning in meanings.items():
        if isinstance(error, kind):
            return meaning
    if error.response.status_code == 401:
        return f"{host} does not accept the token; make another at https://huggingface.co/settings/tokens (HF_TOKEN)"
    return f"{host} refuses {name}: {what}; {_remedy(error.response.status_code)}"


@contextmanager
def writing(folder: Path, variable: str) -> Iterator[None]:
    """Turn errors of writing into a StorageError.

    Args:
        folder: where files are written.
        variable: the one of the environment that names it.

    Raises:
        StorageError: it cannot be written.
    """
    try:
        yield
    except OSError as error:
        remedy = MAKE_ROOM if is_full(error) else f"set {variable} to a folder that can be written"
        raise StorageError(f"{folder} cannot be written: {error.strerror or error}; {remedy}") from error
