"""Fetches and unpacks a bundle. Arguments: URL of a .tar.gz, its SHA-256, target folder."""

import hashlib
import shutil
import sys
import tarfile
import urllib.request
from pathlib import Path, PurePosixPath
from tempfile import TemporaryFile

url, expected, folder = sys.argv[1:]
for leftover in Path(folder).iterdir():  # from an interrupted attempt
    shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
with TemporaryFile(dir=folder) as archive:
    with urllib.request.urlopen(url, timeout=60) as response:
        shutil.copyfileobj(response, archive)
    archive.seek(0)
    actual = hashlib.file_digest(archive, "sha256").hexdigest()
    if actual != expected:
        sys.exit(f"bundle.url: the file has the SHA-256 {actual}, expected {expected}")
    archive.seek(0)
    with tarfile.open(fileobj=archive, mode="r:gz") as tar:
        # A bundle is files in a folder. extractall(filter="data") needs Python 3.11.4.
        for member in tar:
            path = PurePosixPath(member.name)
            if path.is_absolute() or ".." in path.parts or not (member.isfile() or member.isdir()):
                sys.exit("bundle.url: the archive holds a link or a path outside its folder")
            target = Path(folder, path)
            if member.isdir():
                target.mkdir(parents=True, exist_ok=True)
            elif content := tar.extractfile(member):
                target.parent.mkdir(parents=True, exist_ok=True)
                with content, target.open("wb") as file:
                    shutil.copyfileobj(content, file)
print(f"unpacked the bundle with the SHA-256 {expected}")
