"""python -m ptm_mini.golden golden.npz"""
if __name__ == "__main__":
    from ptm_mini.errors import run_script
    run_script(__file__)

import io
import tempfile
from pathlib import Path

import numpy as np

from ptm_mini import golden
from ptm_mini.errors import InputError, Parser
from ptm_mini.files import refuse_existing, write_file
from ptm_mini.golden.model import every_array


def main(argv=None):
    parser = Parser(golden.__doc__, prog="python -m ptm_mini.golden")
    parser.add_argument("out", type=Path, help="the new .npz")
    out = parser.parse_args(argv).out
    refuse_existing(out)
    try:
        with tempfile.TemporaryDirectory() as folder:
            arrays = {name: np.asarray(value) for name, value in every_array(Path(folder)).items()}
    except OSError as error:
        raise InputError(f"the folder for temporary files: can't be written ({error.strerror or error}); name another by "
                         f"TMPDIR") from error
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_file(out, buffer.getvalue())
    print(f"{out}: {len(arrays)} arrays, {len(buffer.getvalue()) / 1e3:.0f} kB")
