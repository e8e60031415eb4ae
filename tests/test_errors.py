"""What a command ends with: one line an error, and an exit status."""
from unittest.mock import Mock

import pytest
from helpers import failure

from ptm_mini.errors import InputError, NonFiniteLoss


@pytest.mark.parametrize("error, status, line", [
    (InputError("a\nb\x1b[31m雨.wav: no such file"), 2, r"a\nb\x1b[31m雨.wav: no such file"),
    (OSError(28, "No space left on device", "a.pt"), 2,
     "[Errno 28] No space left on device: 'a.pt'"),
    (NonFiniteLoss("lora: the loss became nan"), 1, "lora: the loss became nan"),
    (KeyboardInterrupt("interrupted; resume with x"), 130, "interrupted; resume with x"),
    (KeyboardInterrupt(), 130, "interrupted")])
def test_an_error_is_one_line_and_a_status(error: BaseException, status: int, line: str) -> None:
    assert failure(Mock(side_effect=error), status=status) == line
