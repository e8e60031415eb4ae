"""Where the features of a set are kept: flags, folder and name, and the caches there that don't fit."""
import hashlib
import json
import logging
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path

import PIL

from ptm_mini.data.cache import FILES, remove
from ptm_mini.errors import InputError, whole_number
from ptm_mini.files import is_locked

logger = logging.getLogger(__name__)
CACHE_VERSION = 4                 # goes up when the front end computes something else
OURS = re.compile(r"features-[0-9a-f]{16}|\.features-[0-9a-f]{16}(\.\d+)?\.unfinished")     # with a number: version 0.2's


@dataclass(frozen=True)
class Storage:
    """Where a set's features are kept, and how they are made."""
    folder: Path | None = None    # None: beside the manifest or, where that can't be written, in the user's cache folder
    workers: int = 1              # processes; a script that asks for more needs an  if __name__ == "__main__":
    clean: bool = False           # remove the set's other caches there

    def __post_init__(self):
        if self.workers < 1:
            raise InputError(f"--workers {self.workers}: expected 1 or more")

    def place(self, folder, name):
        """The folder for the cache `name` of the set in `folder`."""
        if self.folder is None and ((folder / name).exists() or os.access(folder, os.W_OK)):
            return folder / name
        caches = self.folder or Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "ptm_mini")
        place = caches.resolve() / f"{folder.name[:50]}-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:8]}"
        if self.folder is None:
            logger.info("%s: can't be written, so its features are kept in %s", folder, place)
        return place / name


def add_arguments(parser):
    parser.add_argument("--features", type=Path, metavar="DIR",
                        help="keep the decoded set there; default: beside its manifest or, where that can't be written, in "
                             "~/.cache/ptm_mini")
    parser.add_argument("--workers", type=whole_number(1), default=os.cpu_count(), metavar="N",
                        help="processes that decode a large set (default: %(default)s, one a core)")
    parser.add_argument("--clean-features", action="store_true",
                        help="remove the set's other feature caches there: of other settings, of files that have changed, "
                             "unfinished")


def from_options(options):
    return Storage(options.features, options.workers, options.clean_features)


def name_of(config, place, rows, root):
    """The name of a cache says what it was made from: the versions, the settings, every sample's id, and every file's path,
    size and time."""
    settings = [CACHE_VERSION, PIL.__version__, asdict(config.audio), asdict(config.image), place]
    digest = hashlib.sha256(json.dumps(settings).encode())
    for row in rows:
        stamps = [stamp(root / name) if name else None for name in (row.audio, row.image)]
        digest.update(json.dumps([row.id, row.audio, row.image, stamps]).encode())
    return f"features-{digest.hexdigest()[:16]}"


def stamp(path):
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def tidy(cache, clean):
    """Say what other caches stand beside `cache`, but for one that a process works on; with `clean`, remove them."""
    beside = cache.parent.glob("*features-*") if os.path.isdir(cache.parent) else []
    others = {path: size_of(path) for path in beside if cache.name not in path.name}
    sizes = {path: size for path, size in others.items() if size is not None and not is_locked(path.with_suffix(".lock"))}
    if not sizes:
        return
    megabytes = sum(sizes.values()) / 1e6
    if not clean:
        logger.info("%s: %d feature caches of other settings, of files that have changed or unfinished, %.0f MB; "
                    "--clean-features removes them", cache.parent, len(sizes), megabytes)
        return
    for path in sizes:
        try:
            remove(path)
            path.with_suffix(".lock").unlink(missing_ok=True)
        except OSError as error:
            raise InputError(f"{path}: can't be removed ({error.strerror}); leave --clean-features out") from error
    logger.info("%s: removed %d feature caches, %.0f MB", cache.parent, len(sizes), megabytes)


def size_of(path):
    """Bytes in a folder that a cache, or part of one, was made in; None where it is anything else, or holds more."""
    if not OURS.fullmatch(path.name) or path.is_symlink():
        return None
    try:
        sizes = {file.name: file.stat().st_size for file in path.iterdir()}
    except OSError:                                              # a file, or gone meanwhile
        return None
    return sum(sizes.values()) if sizes.keys() <= set(FILES) else None
