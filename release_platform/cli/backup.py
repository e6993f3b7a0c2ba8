"""`release backup` and `release restore`: all that the platform keeps, in one file."""

import os
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Annotated

import typer

from release_platform.cli.console import err
from release_platform.domain.errors import IntegrityError, Refused

File = Annotated[str, typer.Argument(help="The file, an archive in tar's format; - for a pipe.", show_default=False)]


def backup(file: File) -> None:
    """Write databases, files and keys of the platform into one new file, as they are at one moment.

    Promotions, rollbacks and registrations wait while the databases are copied, seconds as a rule; everything else goes
    on. The file holds the signing key: keep it like one.

    Examples:

        release backup monday.tar

        release backup - | gpg --encrypt --recipient ops > monday.tar.gpg
    """
    from release_platform.adapters.clock import SystemClock
    from release_platform.backup import holdings, save
    from release_platform.settings import Settings

    settings = Settings()
    if file != "-" and Path(file).exists():
        raise Refused(f"{file} is there already", remedy="name a new file, or move it away")
    with _workplace(file, settings.root) as folder:
        parts = holdings(settings, os.environ)
        contents = save(parts, settings, folder, SystemClock(), _tell)
        _pack(folder, file)
    err.print(f"{len(contents.files)} file(s) of {contents.made_at}", markup=False, highlight=False)


def restore(
    file: File,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Take it in the place of what is there now.")] = False,
) -> None:
    """Take what a backup holds as the platform's, after every byte of it was checked.

    Stop the servers first. Nothing is touched when the backup is damaged or incomplete, or when there is something
    already. Afterwards `release ledger verify` and `release audit` say whether all fits together.

    Examples:

        release restore monday.tar

        release restore monday.tar --overwrite
    """
    from release_platform.backup import holdings, load
    from release_platform.settings import Settings

    settings = Settings()
    with _workplace(file, settings.root) as folder:
        _unpack(file, folder)
        contents = load(holdings(settings, os.environ), settings, folder, overwrite=overwrite, tell=_tell)
    for model, (epoch, _) in contents.ledger.items():
        err.print(f"{model}: epoch {epoch}", markup=False, highlight=False)
    err.print(
        f"restored what was there at {contents.made_at}; now `release ledger verify` and `release audit`",
        soft_wrap=True,
    )


def _tell(what: str) -> None:
    err.print(f"  {what} ...", markup=False, highlight=False, soft_wrap=True)


@contextmanager
def _workplace(file: str, home: Path) -> Iterator[Path]:
    """Yields where a backup lies unpacked: beside its file, or in the platform's folder; only its owner may look."""
    from release_platform.backup import written_to

    place = home if file == "-" else Path(file).absolute().parent
    with written_to(place):
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".backup-", dir=place) as folder:
            yield Path(folder) / "backup"


def _pack(folder: Path, file: str) -> None:
    """Puts a folder into an archive, which is there whole or not at all."""
    if file == "-":
        with tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as archive:
            archive.add(folder, arcname=".")
        return
    packed = folder.parent / "packed"
    packed.touch(mode=0o600)
    with tarfile.open(packed, mode="w") as archive:
        archive.add(folder, arcname=".")
    shutil.rmtree(folder)
    with packed.open("rb") as written:
        os.fsync(written.fileno())
    packed.replace(file)


def _unpack(file: str, folder: Path) -> None:
    folder.mkdir()
    try:
        source = {"fileobj": sys.stdin.buffer, "mode": "r|*"} if file == "-" else {"name": file, "mode": "r"}
        with tarfile.open(**source) as archive:
            for member in archive:
                _extract(archive, member, folder)
    except (tarfile.TarError, EOFError) as error:
        raise IntegrityError(
            f"{file} is no backup, or damaged: {error}", remedy="use another one; nothing was changed"
        ) from error


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    """Writes one plain file or folder; the standard library's own filter is not in every Python 3.11."""
    parts = PurePosixPath(member.name).parts
    if member.name.startswith("/") or ".." in parts or not (member.isreg() or member.isdir()):
        raise tarfile.TarError(f"'{member.name:.100}' is no file of a backup")
    place = folder.joinpath(*parts)
    if member.isdir():
        place.mkdir(parents=True, exist_ok=True)
        return
    content = archive.extractfile(member)
    assert content is not None
    place.parent.mkdir(parents=True, exist_ok=True)
    with content, place.open("wb") as file:
        shutil.copyfileobj(content, file)
    place.chmod(member.mode & 0o700)
