"""A .npy file of one row a sample, written in parts and read through a memory map."""
import io
import math
import os
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ArrayFile:
    """Its dtype and shape are known beforehand: a file is compared with them, and nothing that stands in it is interpreted."""
    name: str
    dtype: str
    shape: tuple        # the first is the number of rows

    def header(self):
        buffer = io.BytesIO()
        np.lib.format.write_array_header_1_0(buffer, {"descr": self.dtype, "fortran_order": False, "shape": self.shape})
        return buffer.getvalue()

    def offset(self, row):
        """Where a row begins, in bytes"""
        return len(self.header()) + row * self.row_bytes()

    def row_bytes(self):
        return np.dtype(self.dtype).itemsize * math.prod(self.shape[1:])

    def make(self, folder):
        """A file of zeros, which take no space until they are written over"""
        with open(folder / self.name, "wb") as file:
            file.write(self.header())
            file.truncate(self.offset(self.shape[0]))

    def is_intact(self, folder):
        """Whether the file in `folder` is there with its header and its length"""
        try:
            with open(folder / self.name, "rb") as file:
                return (file.read(len(self.header())) == self.header()
                        and os.fstat(file.fileno()).st_size == self.offset(self.shape[0]))
        except OSError:
            return False

    def open_at(self, folder, row):
        """The file, open for writing from this row on. Written plainly, and not through a memory map: where the disk is full
        that is an error, and no bus error."""
        file = open(folder / self.name, "r+b")
        file.seek(self.offset(row))
        return file

    def mapped(self, folder):
        """np.memmap, for reading"""
        return np.memmap(folder / self.name, self.dtype, "r", len(self.header()), self.shape)
