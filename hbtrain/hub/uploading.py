"""Uploading a model to the hub, in one commit, and what keeps it from being there, in one line."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hbtrain.errors import ConfigError, DataError
from hbtrain.hub.repositories import endpoint
from hbtrain.hub.web import asked_wait_s

AGAIN = "the same command sends what is missing"
TOKENS = "https://huggingface.co/settings/tokens"
SHOWN = 3  # how many files of a repository a message names
FROM_THE_HUB = frozenset({".gitattributes"})  # files that a repository has from its beginning

Content = Path | bytes


def check_name(repository: str) -> None:
    """Raise ConfigError if this is no name of a repository: `ORG/NAME`."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repository)
        well = repository.count("/") == 1
    except HFValidationError:
        well = False
    if not well:
        raise ConfigError(
            f"--repo {repository}: must be ORG/NAME, of letters, digits, '-', '_' and '.', 96 at most, such as "
            "my-team/retriever"
        )


def upload(
    repository: str,
    files: Mapping[str, Content],
    is_same: Callable[[Mapping[str, Any]], bool],
    *,
    private: bool,
    message: str,
) -> str:
    """Upload files to a repository of models, which is made if it is not there; gives the commit's address.

    The token is that of huggingface_hub: `$HF_TOKEN`, or what `hf auth login` has stored.

    Args:
        repository: `ORG/NAME`.
        files: {path in the repository: file or content}.
        is_same: whether a repository whose model card has this metadata holds an earlier state of the same model.
        private: whether a repository that is made is for its owner only.
        message: of the commit.

    Raises:
        DataError: there is no token, or none that may write; the repository holds something else; no network.
    """
    import hbtrain

    with _in_words(repository):
        from huggingface_hub import CommitOperationAdd, HfApi, get_token
        from huggingface_hub.errors import RepositoryNotFoundError

        if get_token() is None:
            raise DataError(
                f"no token for {_host()}: run `hf auth login`, or set HF_TOKEN; one with the right to write is made at "
                f"{TOKENS}"
            )
        api = HfApi(endpoint=endpoint(), library_name="hbtrain", library_version=hbtrain.__version__)
        try:
            there = api.model_info(repository)
        except RepositoryNotFoundError:  # absent, or private and not open to the token: making it tells
            api.create_repo(repository, private=private or None)
        else:
            _check_content(repository, there, is_same)
            if private and not there.private:
                raise DataError(
                    f"{repository} is there, and public; make it private at {endpoint()}/{repository}/settings, or "
                    "leave out --private"
                )
        operations = [CommitOperationAdd(path_in_repo=path, path_or_fileobj=content) for path, content in files.items()]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a card without a licence
            return str(api.create_commit(repository, operations, commit_message=message).commit_url)


def _check_content(repository: str, there: Any, is_same: Callable[[Mapping[str, Any]], bool]) -> None:
    names = sorted(one.rfilename for one in there.siblings or () if one.rfilename not in FROM_THE_HUB)
    known = there.card_data.to_dict() if there.card_data is not None else {}
    if names and not is_same(known):
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        raise DataError(
            f"{repository} is there with another content ({', '.join(names[:SHOWN])}{more}), which stays as it is: "
            f"give another name, or delete it at {endpoint()}/{repository}/settings"
        )


def _host() -> str:
    return urlsplit(endpoint()).netloc


@contextmanager
def _in_words(repository: str) -> Iterator[None]:
    """Turn what requests raise into a DataError."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        try:
            yield
        except RuntimeError as error:  # of a file's upload, with the reason behind it
            if not isinstance(error.__cause__, HfHubHTTPError | httpx2.HTTPError | OSError):
                raise
            raise error.__cause__ from error
    except OfflineModeIsEnabled as error:
        raise DataError(f"{_host()} is not asked, as HF_HUB_OFFLINE is set; unset it") from error
    except HfHubHTTPError as error:
        raise DataError(_refused(error, repository)) from error
    except httpx2.HTTPError as error:
        reason = str(error) or type(error).__name__
        raise DataError(
            f"{_host()} cannot be reached ({reason}); see to network, proxies (HTTPS_PROXY) and HF_ENDPOINT, and "
            f"{AGAIN}"
        ) from error
    except OSError as error:
        raise DataError(f"{error.filename or repository} cannot be sent: {error.strerror or error}") from error


def _refused(error: Any, repository: str) -> str:
    """What the hub means by its refusal, a huggingface_hub error."""
    status, told = error.response.status_code, error.server_message or error.response.reason_phrase
    owner = repository.partition("/")[0]
    if status == 401:
        return f"{_host()} does not accept the token; make another at {TOKENS} (HF_TOKEN), or run `hf auth login`"
    if status in (403, 404):
        return (
            f"the token may not write to {repository} ({told}): it needs the right to write ({TOKENS}), and {owner} "
            "must be its user, or an organisation with that user as a member who may write"
        )
    if status == 429:
        wait_s = asked_wait_s(error.response.headers)
        when = "a while" if wait_s is None else f"{wait_s:.0f} s"
        return f"{_host()} has had too many requests; wait {when}, and {AGAIN}"
    return f"{_host()} refuses {repository}: {status} {told}; {AGAIN}"
