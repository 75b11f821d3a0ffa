"""Who may ask for predictions, and who may manage the server.

For the edge. Keys come from files or from the environment, never from the command line, where every account
of the machine could read them. Only their SHA-256 is kept in memory, and each comparison takes the same time
whatever was presented. A key is presented as ``Authorization: Bearer KEY`` or ``X-API-Key: KEY``.

A file has one key a line; ``#`` begins a comment; ``sha256:<64 hexadecimal digits>`` stands for a key that
the file does not show. Several keys are valid at a time, so that one can be replaced without a gap: the file
is read again when it changes.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.serving.online.answers import Refusal

__all__ = ["Guard", "KeyFile", "Scope", "keys_of"]

log = logging.getLogger(__name__)

LEAST_LENGTH = 16
ENVIRONMENT = {"scoring": "XOPS_SERVE_KEYS", "admin": "XOPS_SERVE_ADMIN_KEYS"}
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


class Scope(StrEnum):
    """What a request needs to be allowed to do."""

    OPEN = "open"
    SCORING = "scoring"
    ADMIN = "admin"


def keys_of(lines: Iterable[str], *, where: str) -> tuple[bytes, ...]:
    """The digests of the keys in some lines.

    :param where: what is told in an error; the keys never are.
    :raises ArgumentError: ``argument.key``: a key is shorter than 16 characters or not plain ASCII; there is
        none.

    >>> keys_of(["# of the website", "correct-horse-battery"], where="keys.txt")[0].hex()[:8]
    '53b10ff9'
    """
    digests = []
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        given = _DIGEST.fullmatch(text)
        if given:
            digests.append(bytes.fromhex(given[1]))
            continue
        if len(text) < LEAST_LENGTH or not (text.isascii() and text.isprintable()) or " " in text:
            raise ArgumentError(
                f"the key in line {number} of {where} cannot be used",
                code="argument.key",
                why=f"a key has at least {LEAST_LENGTH} ASCII characters and no blanks",
                todo='make one with `python -c "import secrets; print(secrets.token_urlsafe(32))"`',
            )
        digests.append(hashlib.sha256(text.encode()).digest())
    if not digests:
        raise ArgumentError(
            f"there is no key in {where}", code="argument.key", todo="write one key a line, or leave it out"
        )
    return tuple(dict.fromkeys(digests))


class KeyFile:
    """Keys in a file, read again when it has changed.

    :raises ArgumentError: ``argument.key_file`` (unreadable), ``argument.key``.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._seen = self._stamp()
        self.keys = self._read()

    def refresh(self) -> bool:
        """Read it again if it has changed; whether it has. Keys that cannot be read leave the old ones."""
        try:
            seen = self._stamp()
            if seen == self._seen:
                return False
            self.keys = self._read()
        except ArgumentError as error:
            log.warning("The keys stay as they are: %s", error)
            return False
        self._seen = seen
        log.info("Read the keys in %s again: %d.", self.path, len(self.keys))
        return True

    def _stamp(self) -> tuple[int, int, int]:
        try:
            status = self.path.stat()
        except OSError as error:
            raise self._unreadable(error) from None
        return status.st_mtime_ns, status.st_size, status.st_ino

    def _read(self) -> tuple[bytes, ...]:
        try:
            lines = self.path.read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise self._unreadable(error) from None
        return keys_of(lines, where=str(self.path))

    def _unreadable(self, error: Exception) -> ArgumentError:
        return ArgumentError(
            f"the keys in {self.path} cannot be read",
            code="argument.key_file",
            why=type(error).__name__,
            todo="name a text file with one key a line that this account may read",
        )


class Guard:
    """Decides whether a request may do what it asks for.

    :param files: key files by what their keys allow (``scoring``, ``admin``). :param environ: where
        ``XOPS_SERVE_KEYS`` and ``XOPS_SERVE_ADMIN_KEYS`` (keys separated by commas or line ends) are looked
        up.
    :param open_metrics: whether ``/metrics`` needs no key.

    Without any key everything is open. A key for managing is also one for scoring. Where there are keys for
    scoring only, nobody may manage the server from outside.
    """

    def __init__(
        self,
        files: Mapping[str, str | Path | None] | None = None,
        *,
        environ: Mapping[str, str] | None = None,
        open_metrics: bool = True,
    ) -> None:
        env = os.environ if environ is None else environ
        self.open_metrics = open_metrics
        self._files = {scope: KeyFile(path) for scope, path in (files or {}).items() if path is not None}
        self._given = {
            scope: keys_of(re.split(r"[,\n]", env[name]), where=f"${name}")
            for scope, name in ENVIRONMENT.items()
            if env.get(name)
        }

    @property
    def locked(self) -> bool:
        """Whether any key is asked for."""
        return bool(self._files or self._given)

    def refresh(self) -> None:
        """Read the key files that have changed."""
        for file in self._files.values():
            file.refresh()

    def check(self, headers: Iterable[tuple[bytes, bytes]], scope: Scope) -> None:
        """Let a request pass.

        :raises Refusal: 401 without a key that is known, 403 where its key allows something else.
        """
        if scope is Scope.OPEN or not self.locked:
            return
        presented = _presented(headers)
        if presented is None:
            raise _unknown("this needs a key: Authorization: Bearer KEY, or X-API-Key: KEY")
        digest = hashlib.sha256(presented).digest()
        admin = _among(digest, self._keys("admin"))
        scoring = _among(digest, self._keys("scoring"))
        if not (admin or scoring):
            raise _unknown("the key is not known here")
        if scope is Scope.ADMIN and not admin:
            raise Refusal(403, "auth.scope", "this key is for scoring, not for managing the server")

    def _keys(self, scope: str) -> tuple[bytes, ...]:
        file = self._files.get(scope)
        return (*self._given.get(scope, ()), *(file.keys if file is not None else ()))


def _among(digest: bytes, known: Iterable[bytes]) -> bool:
    found = False
    for each in known:
        # No early end: the time says nothing about which key it is.
        found |= hmac.compare_digest(digest, each)
    return found


def _presented(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    for name, value in headers:
        if name == b"authorization":
            kind, _, token = value.partition(b" ")
            if kind.lower() == b"bearer" and token.strip():
                return token.strip()
        elif name == b"x-api-key" and value.strip():
            return value.strip()
    return None


def _unknown(message: str) -> Refusal:
    return Refusal(401, "auth.key", message, headers={"WWW-Authenticate": "Bearer"})
