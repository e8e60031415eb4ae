"""The features of a set on disk: decoded once, chunk by chunk, into memory-mapped arrays, and checked when they are read."""
import logging
import shutil
import time
import zlib
from concurrent.futures.process import BrokenProcessPool
from datetime import timedelta

import numpy as np

from ptm_mini.data.array_file import ArrayFile
from ptm_mini.data.workers import work_through
from ptm_mini.errors import InputError
from ptm_mini.files import locked

logger = logging.getLogger(__name__)
CHUNK = 32                        # rows decoded and noted down together: what an interruption loses at most, of each worker
POOLED = 16                       # chunks from which on a pool of processes pays: its start takes seconds
SILENCE = 5.0                     # seconds between two lines about progress
FILES = "audio.npy", "image.npy", "checksums.npy"


class Cache:
    """A folder with audio.npy [rows, T, M] float32, image.npy [rows, 3, H, W] uint8 and checksums.npy [rows] uint32.

    It appears when it is whole. A row is checked when it is first read, so that opening costs nothing however large it is;
    one that was altered is decoded again.
    """

    def __init__(self, folder, rows, root, shapes, decode, workers):
        """Open the cache, or make it where it is not there or not whole.

        rows, root  list of Row, and the folder that their paths start from
        shapes      of a row of the audio and of the image
        decode      function(audio path or None, image path or None) -> two tensors; workers have to be able to import it
        workers     processes that decode
        raises      InputError where a file is bad or the cache can't be made
        """
        self.folder, self.rows, self.root, self.decode = folder, rows, root, decode
        self.files = [ArrayFile(name, dtype, (len(rows), *shape))
                      for name, dtype, shape in zip(FILES, ("<f4", "|u1", "<u4"), (*shapes, ()))]
        if not self.is_whole(folder):
            self.make(workers)
        self.audio, self.image, self.checksums = (file.mapped(folder) for file in self.files)
        self.checked, self.has_mended = np.zeros(len(rows), dtype=bool), False

    def is_whole(self, folder):
        """Whether every file in `folder` is of the kind and length that it was made with."""
        return all(file.is_intact(folder) for file in self.files)

    def read(self, index):
        """Copies of the row `index`: audio [T, M] float32, image [3, H, W] uint8"""
        if not self.checked[index]:
            if checksum(self.rows[index].id, (self.audio[index], self.image[index])) != self.checksums[index]:
                self.mend(index)
            self.checked[index] = True
        return self.audio[index].copy(), self.image[index].copy()

    def mend(self, index):
        """Decode one row again, into the cache."""
        if not self.has_mended:
            logger.warning("%s: sample %r was altered since it was written; it is decoded again, and so are others like it",
                           self.folder, self.rows[index].id)
        self.has_mended = True
        try:
            self.note(self.folder, index, fill(*self.job(self.folder, index, 1)))
        except OSError as error:
            raise InputError(f"{self.folder}: is damaged and can't be mended ({error.strerror}); remove it or name another "
                             f"place with --features") from error

    def job(self, folder, first, count):
        """What `fill` needs for `count` rows"""
        return first, self.rows[first:first + count], self.root, self.decode, folder, self.files

    def note(self, folder, first, checksums):
        """Write down that the rows from `first` on are decoded."""
        with self.files[-1].open_at(folder, first) as file:
            file.write(np.array(checksums, "<u4"))

    def make(self, workers):
        """Decode all rows into a folder beside, which then becomes the cache. What an interrupted process has noted down
        there is not decoded again; another that is at it is waited for."""
        unfinished = self.folder.with_name(f".{self.folder.name}.unfinished")
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            with locked(unfinished.with_suffix(".lock")):
                if self.is_whole(self.folder):                     # another process has made it meanwhile
                    return
                if self.folder.exists():
                    logger.warning("%s: is not as it was written; it is made anew", self.folder)
                    remove(self.folder)
                try:
                    self.decode_rows(unfinished, workers)
                    unfinished.rename(self.folder)
                except (InputError, OSError):
                    remove(unfinished)
                    raise
        except OSError as error:
            raise InputError(f"{self.folder}: can't be made ({error.strerror}); free space or name another place with "
                             f"--features") from error
        except BrokenProcessPool as error:
            raise InputError(f"{unfinished}: a process that decoded has died; what is decoded is kept: say it again, with "
                             f"fewer --workers if the memory was short") from error
        except KeyboardInterrupt:
            logger.info("%s: what is decoded is kept; the same command goes on from there", unfinished)
            raise

    def decode_rows(self, folder, workers):
        """Decode what `folder` lacks, and say how fast it goes."""
        if not self.is_whole(folder):
            remove(folder)
            refuse_full_disk(folder.parent, sum(file.offset(len(self.rows)) for file in self.files))
            folder.mkdir()
            for file in self.files:
                file.make(folder)
        lacking = np.array(self.files[-1].mapped(folder)) == 0
        chunks = [first for first in range(0, len(lacking), CHUNK) if lacking[first:first + CHUNK].any()]
        total = sum(len(lacking[first:first + CHUNK]) for first in chunks)
        logger.info("decoding %d samples into %s; %d are there", total, self.folder, len(lacking) - total)
        count, start = 0, time.monotonic()
        said = start

        def finished(job, checksums):
            nonlocal count, said
            self.note(folder, job[0], checksums)
            count, now = count + len(checksums), time.monotonic()
            if now - said > SILENCE:
                said, rate = now, count / (now - start)
                logger.info("decoded %d of %d samples, %.0f a second, %s left", count, total, rate,
                            timedelta(seconds=round((total - count) / rate)))

        work_through(fill, [self.job(folder, first, CHUNK) for first in chunks],
                     workers if len(chunks) >= POOLED else 1, finished)
        logger.info("decoded %d samples, %.0f a second", count, count / (time.monotonic() - start))


def fill(first, rows, root, decode, folder, files):
    """Decode rows and write them, from the row `first` of the files in `folder` on. returns their checksums"""
    checksums = []
    with files[0].open_at(folder, first) as audio, files[1].open_at(folder, first) as image:
        for row in rows:
            found = [x.numpy() for x in decode(*(root / name if name else None for name in (row.audio, row.image)))]
            audio.write(found[0])
            image.write(found[1])
            checksums.append(checksum(row.id, found))
    return checksums


def checksum(identity, arrays):
    """CRC-32 of a row, begun with the sample's id: rows that changed places are seen too."""
    value = zlib.crc32(identity.encode())
    for array in arrays:
        value = zlib.crc32(array, value)
    return value


def refuse_full_disk(folder, needed):
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(f"{folder}: the features need {needed / 1e6:.0f} MB, {free / 1e6:.0f} MB are free; free some "
                         f"or name another place with --features")


def remove(folder):
    """Remove a cache, and nothing else: files of other names stay, and are an OSError."""
    if folder.is_dir():
        for name in FILES:
            (folder / name).unlink(missing_ok=True)
        folder.rmdir()
