"""The folder of a sweep: parts that appear whole, with checksums, and what became of the others."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from isofire import toml_json
from isofire.errors import IsofireError, OutputError
from isofire.files import read_file, write_text
from isofire.json_text import to_json_text
from isofire.sweep.claim import STALE, Claim, Owner, now, owner_of
from isofire.sweep.manifest import MANIFEST, Kind, is_intact, sync, write_manifest

VISIBLE = 90.0
"""Seconds after which every machine sees what another one renamed; NFS keeps names for up to a minute."""


class _Failure(Struct, frozen=True, kw_only=True):
    """What a record of a failure has at least, so that whoever reads it finds it."""

    key: str
    title: str
    type: str
    reason: str
    traceback: str = ""
    date: str = ""
    seconds: float = 0.0
    attempts: Annotated[int, Meta(ge=1)] = 1


class Superseded(IsofireError):
    """A part's owner lost its claim while it worked; whoever holds the claim now computes the part."""


class Store:
    """Where everything of a sweep lies.

    | place | what |
    |---|---|
    | `plan.json` | what the sweep consists of |
    | `cells/KEY/`, `baselines/KEY/` | finished parts |
    | `failed/KEY.json` | why a cell failed |
    | `claims/KEY` | who computes a part now |
    | `training/KEY/` | state from which a training goes on |
    | `parts/` | parts being written |
    | `damaged/` | finished parts that are no longer what they were |
    | `journal.jsonl` | a line whenever a part starts, finishes or fails |

    Attributes
    ----------
    damaged
        A sentence for each damaged part that this object found.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)
        self.damaged: list[str] = []

    def path(self, kind: Kind, key: str) -> Path:
        """Folder of a finished part."""
        return self.root / kind / key

    def training(self, key: str) -> Path:
        """Folder for the state of a part's training."""
        return self.root / "training" / key

    def exists(self, kind: Kind, key: str) -> bool:
        """Whether a part is finished, by the sizes of its files."""
        return is_intact(self.path(kind, key), kind, key, deep=False)

    def read(self, kind: Kind, key: str, name: str) -> Any:
        """Values of a JSON file of a finished part; None if it is missing, or not what was written.

        Raises
        ------
        OutputError
            If it cannot be read, which says nothing about it.
        """
        folder = self.path(kind, key)
        try:
            data = read_file(folder / name, toml_json.MOST_JSON)
            manifest = toml_json.read_json(folder / MANIFEST)
            wanted = manifest["files"][name]["sha256"]
            return toml_json.parse_json(data) if hashlib.sha256(data).hexdigest() == wanted else None
        except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
            return None
        except OSError as error:
            raise OutputError(f"cannot read {folder / name}: {error.strerror or error}; mend that") from error

    def appears(self, kind: Kind, key: str) -> bool:
        """Wait for a part that another machine finished; network file systems show it late."""
        end = time.monotonic() + VISIBLE
        while not self.exists(kind, key):
            if time.monotonic() > end:
                return False
            time.sleep(0.5)
        return True

    def check(self, kind: Kind, key: str) -> bool:
        """Whether a part is finished and every byte is as it was written; a damaged one is set aside.

        Raises
        ------
        OutputError
            If a part cannot be read, which says nothing about it, or a damaged one cannot be renamed.
        """
        folder = self.path(kind, key)
        # asked first: what appears while we look is whole, not damaged
        if not _is_there(folder):
            return False
        if is_intact(folder, kind, key, deep=True):
            return True
        self._set_aside(folder)
        return False

    def publish(
        self, kind: Kind, key: str, write: Callable[[Path], None], is_ours: Callable[[], bool] = lambda: True
    ) -> None:
        """Have `write` fill a folder and give it its final name once it is complete and on disk.

        Parameters
        ----------
        is_ours
            Whether the caller still holds the part's claim.

        Raises
        ------
        OutputError
            If it cannot be written (full disk). Nothing of it is left.
        Superseded
            If another owner took the claim over, or removed files while they were written. Nothing of it is left.
        """
        part = self.root / "parts" / f"{key}.{uuid.uuid4().hex[:8]}"
        final = self.path(kind, key)
        try:
            part.mkdir(parents=True)
            write(part)
            write_manifest(part, key)
            # a new owner clears what it finds; files written after that make a folder of their own, which lacks some
            if not (is_ours() and is_intact(part, kind, key, deep=False)):
                raise Superseded(f"another process took {key} over")
            final.parent.mkdir(parents=True, exist_ok=True)
            self._rename(part, final, kind, key)
            sync(final.parent)
        except OSError as error:
            shutil.rmtree(part, ignore_errors=True)
            if not is_ours():
                raise Superseded(f"another process took {key} over") from error
            raise _cannot_write(final, error) from error
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise

    def clear(self, key: str) -> None:
        """Remove what a killed owner of a part left half-written; only for whoever holds the part's claim."""
        for part in (self.root / "parts").glob(f"{key}.*"):
            shutil.rmtree(part, ignore_errors=True)

    def tidy(self) -> None:
        """Remove temporary files that killed processes left, once they are too old to be anybody's."""
        here = now(self.root)
        for pattern in (".*.part", ".probe.*", ".clock.*", "failed/.*.part", "claims/.*"):
            for path in self.root.glob(pattern):
                with contextlib.suppress(OSError):
                    if here - path.stat().st_mtime > STALE:
                        path.unlink()

    def settle(self, finished: Iterable[str]) -> None:
        """Remove what owners of finished parts left who were killed after they had published them."""
        for key in self._leftovers() & set(finished):
            claim = self.claim(key)
            if claim is not None:
                with claim:
                    self.clear(key)
                    self.forget_training(key)
                    self.forgive(key)

    def _leftovers(self) -> set[str]:
        """Keys of claims, trainings, failures and half-written parts."""
        found = {path.name for folder in ("claims", "training") for path in (self.root / folder).glob("[!.]*")}
        found |= {path.stem for path in (self.root / "failed").glob("[!.]*.json")}
        return found | {path.name.split(".")[0] for path in (self.root / "parts").glob("[!.]*")}

    def forget_training(self, key: str) -> None:
        """Remove the state of a training that is finished."""
        shutil.rmtree(self.training(key), ignore_errors=True)

    def claim(self, key: str) -> Claim | None:
        """Claim a part; None if somebody else holds it."""
        return Claim.take(self.root / "claims" / key)

    def is_claimed(self, key: str) -> bool:
        """Whether somebody is at a part now."""
        return owner_of(self.root / "claims" / key) is not None

    def owners(self) -> dict[str, Owner]:
        """Who computes which part now."""
        places = sorted((self.root / "claims").glob("[!.]*"))
        return {place.name: owner for place in places if (owner := owner_of(place)) is not None}

    def fail(self, key: str, record: dict[str, Any]) -> None:
        """Record why a cell failed; attempts add up."""
        earlier = self.failure(key) or {}
        record = {"key": key, **record, "date": _date(), "attempts": int(earlier.get("attempts", 0)) + 1}
        write_text(self._failed(key), to_json_text(record))

    def failure(self, key: str) -> dict[str, Any] | None:
        """Why a cell failed; None if it did not."""
        try:
            found = toml_json.read_json(self._failed(key))
            msgspec.convert(found, _Failure)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, msgspec.ValidationError):
            # what cannot be read still says that it failed
            reason = f"{self._failed(key)} is damaged; run with --retry-failed"
            return {"key": key, "title": key, "type": "unreadable", "reason": reason, "traceback": ""}
        return {"traceback": "", "attempts": 1, **found}

    def forgive(self, key: str) -> None:
        """Remove the record of a failure, after the cell finished."""
        self._failed(key).unlink(missing_ok=True)

    def note(self, event: str, key: str, **more: Any) -> None:
        """Add a line to the journal, which tells the course of things and decides nothing."""
        line = json.dumps({"date": _date(), "event": event, "key": key, "pid": os.getpid(), **more}) + "\n"
        try:
            # one write in append mode, so that lines of several processes do not mix
            handle = os.open(self.root / "journal.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            try:
                os.write(handle, line.encode())
            finally:
                os.close(handle)
        except OSError as error:
            raise _cannot_write(self.root / "journal.jsonl", error) from error

    def _failed(self, key: str) -> Path:
        return self.root / "failed" / f"{key}.json"

    def _rename(self, part: Path, final: Path, kind: Kind, key: str) -> None:
        try:
            part.rename(final)
        except OSError:
            if not os.path.lexists(final):
                raise
            if is_intact(final, kind, key, deep=True):
                # another machine that could not see this claim was faster; its bits are the same
                shutil.rmtree(part)
                return
            self._set_aside(final)
            part.rename(final)

    def _set_aside(self, folder: Path) -> None:
        place = self.root / "damaged" / f"{folder.name}.{uuid.uuid4().hex[:8]}"
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            folder.rename(place)
        except FileNotFoundError:
            return
        except OSError as error:
            raise _cannot_write(place, error) from error
        self.damaged.append(f"{folder.parent.name}/{folder.name} was damaged, kept as damaged/{place.name}")
        self.note("damaged", folder.name, kept=f"damaged/{place.name}")


def read_json(path: Path) -> Any:
    """A JSON file of a finished part.

    Raises
    ------
    OutputError
        If it is missing or damaged.
    """
    try:
        return toml_json.read_json(path)
    except (OSError, ValueError) as error:
        told = getattr(error, "strerror", None) or error
        raise OutputError(f"cannot read {path}: {told}; run the sweep again, which repairs its folder") from error


def _is_there(path: Path) -> bool:
    """Whether anything has this name; unlike `os.path.lexists` it does not take an error for a no."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise OutputError(f"cannot read {path}: {error.strerror or error}; mend that and run again") from error
    return True


def _date() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _cannot_write(path: Path, error: OSError) -> OutputError:
    if isinstance(error, IsofireError):
        assert isinstance(error, OutputError)
        return error
    return OutputError(
        f"cannot write {path}: {error.strerror or error}; make room there and give the same command again, "
        "finished cells are kept"
    )
