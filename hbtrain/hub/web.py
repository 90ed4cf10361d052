"""Reading from servers of data: asking again, going on where a download was cut off, and what went wrong, in words.

Requests are made by huggingface_hub's client, which follows `HF_HUB_OFFLINE` and the variables of proxies. It could
also download, but would begin a file anew after a kill, and compare no digest.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import urlsplit

from hbtrain.errors import DataError

if TYPE_CHECKING:
    import httpx2

WAITS_S: tuple[float, ...] = (1, 2, 4, 8)
"""How long to wait after each failure in a row; a further one is an error. Data that come make the count begin anew."""
CONNECTIONS = 2  # how often a server that cannot be connected to is tried again: mostly there is no network
LONGEST_WAIT_S = 300  # the hub counts requests in windows of five minutes; a server that asks for longer is an error
PART, RANGE_BEYOND = 206, 416
BUSY = frozenset({408, 429, 500, 502, 503, 504})
"""Statuses of servers that may answer a moment later."""


class EndedError(Exception):
    """Another file has failed, or the command was interrupted: this one is not fetched further."""


class Web:
    """Requests that may run in several threads, all of which `end` ends."""

    def __init__(self, notify: Callable[[str], None], patient: bool = True) -> None:
        """Make requests.

        Args:
            notify: called with a line of text where a server asks for patience.
            patient: whether a request is made again after a failure.
        """
        self._notify = notify
        self._waits_s = WAITS_S if patient else ()
        self._ended = threading.Event()

    def end(self) -> None:
        """Let all downloads end at their next block; what they have stays."""
        self._ended.set()

    def ask(self, url: str, headers: Mapping[str, str], method: str = "GET") -> httpx2.Response:
        """The answer to a request, whose body is still to be read, and which is to be closed.

        Raises:
            httpx2.HTTPError: the server cannot be reached or refuses, also after it was asked again.
            DataError: the proxy that the environment names cannot be used.
            EndedError: see `end`.
        """
        import httpx2
        from huggingface_hub import constants, get_session
        from huggingface_hub.utils import hf_raise_for_status

        failures = 0
        while True:
            try:
                client = get_session()
            except (OSError, ImportError, ValueError) as error:
                raise DataError(
                    f"no connection can be made ({error}); see to proxies (HTTPS_PROXY, ALL_PROXY)"
                ) from error
            request = client.build_request(
                method,
                url,
                headers={"Accept-Encoding": "identity", **headers},
                timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT,
            )
            try:
                response: httpx2.Response = client.send(request, stream=True, follow_redirects=True)
            except httpx2.TransportError as error:
                is_down = isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout)
                if failures >= min(len(self._waits_s), CONNECTIONS if is_down else len(self._waits_s)):
                    raise
                self.wait(self._waits_s[failures])
            else:
                if response.status_code not in BUSY:
                    break
                wait_s = asked_wait_s(response.headers)
                if failures >= len(self._waits_s) or (wait_s or 0) > LONGEST_WAIT_S:
                    break
                response.close()
                if wait_s is not None:
                    self._notify(f"{urlsplit(url).netloc} asks to wait {wait_s:.0f} s")
                self.wait(self._waits_s[failures] if wait_s is None else wait_s)
            failures += 1
        if response.status_code >= 400 and response.status_code != RANGE_BEYOND:
            response.read()
            response.close()
            hf_raise_for_status(response)
        return response

    def download(
        self, url: str, part: Path, size: int | None, headers: Mapping[str, str], tell: Callable[[int], None]
    ) -> bool:
        """Fetch a file, from where `part` ends; gives whether all of it came in answer to one request.

        Args:
            url: of the file.
            part: where it is written; after an error it has what came.
            size: of the whole file in bytes, if that is known.
            headers: of the request.
            tell: called with the number of further bytes that are there; below 0: they were of no use.

        Raises:
            httpx2.HTTPError: the server cannot be reached, refuses, or breaks off again and again.
            OSError: the file cannot be written.
            EndedError: see `end`.
        """
        import httpx2

        failures = 0
        with part.open("ab", buffering=0) as stream:  # what came is in the file, also after a kill
            if size is not None and stream.tell() > size:
                _empty(stream)
            as_one = not stream.tell()
            tell(stream.tell())
            while size is None or stream.tell() < size:
                before = stream.tell()
                try:
                    self._go_on(url, stream, size, headers, tell)
                    break
                except httpx2.TransportError:
                    as_one = as_one and not stream.tell()
                    failures = 1 if stream.tell() > before else failures + 1
                    if failures > len(self._waits_s):
                        raise
                    self.wait(self._waits_s[failures - 1])
        return as_one

    def _go_on(
        self, url: str, stream: BinaryIO, size: int | None, headers: Mapping[str, str], tell: Callable[[int], None]
    ) -> None:
        """Read what is missing at the end of a stream; raises what `download` does."""
        have = stream.tell()
        with closing(self.ask(url, {**headers, "Range": f"bytes={have}-"} if have else headers)) as response:
            total = whole_size(response)
            if size is not None and total not in (None, size):
                raise DataError(f"{url} has {total:,} bytes where {size:,} are expected; it has changed")
            if response.status_code == RANGE_BEYOND:
                if not have:
                    raise DataError(f"{url} is refused, as if a part of it had been asked for ({RANGE_BEYOND})")
                if total != have:
                    tell(-have)
                    _empty(stream)
                    self._go_on(url, stream, size, headers, tell)
                return
            if have and response.status_code != PART:  # the whole file comes
                tell(-have)
                _empty(stream)
            for block in response.iter_bytes():  # as they come: blocks of one size would be lost where it breaks off
                left = memoryview(block)
                while left:  # a disk that runs full takes a part before it refuses
                    left = left[stream.write(left) :]
                tell(len(block))
                if self._ended.is_set():
                    raise EndedError
        if size is not None and stream.tell() < size:
            raise DataError(f"{url} ended after {stream.tell():,} of {size:,} bytes; the same command goes on")

    def size(self, url: str, headers: Mapping[str, str]) -> int | None:
        """How many bytes a file has; None: the server does not tell."""
        with closing(self.ask(url, headers, "HEAD")) as response:
            return whole_size(response)

    def wait(self, seconds: float) -> None:
        """Do nothing for a while. Raises EndedError: see `end`."""
        if self._ended.wait(seconds):
            raise EndedError


def _empty(stream: BinaryIO) -> None:
    stream.truncate(0)
    stream.seek(0)


def whole_size(response: httpx2.Response) -> int | None:
    """Bytes of the whole file of which a response is a part or all; None: unknown."""
    if response.headers.get("Content-Encoding", "identity") != "identity":
        return None
    ranged = response.headers.get("Content-Range")
    told = ranged.rpartition("/")[2] if ranged else response.headers.get("Content-Length", "")
    return int(told) if told.isdigit() else None


def asked_wait_s(headers: Mapping[str, str]) -> float | None:
    """For how many seconds a server asks to be left alone: by `Retry-After`, or by the hub's own header."""
    from huggingface_hub.utils import parse_ratelimit_headers

    told = headers.get("Retry-After", "").strip()
    if told.isdigit():
        return int(told)
    limit = parse_ratelimit_headers(headers)
    return limit.reset_in_seconds if limit is not None and limit.remaining == 0 else None
