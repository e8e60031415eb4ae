"""What a command ends with: one line an error, and an exit status."""
import pytest
from helpers import failure
from pytest import CaptureFixture

from ptm_mini.errors import InputError, NonFiniteLoss, nearest, run


def throw(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize("error, status, line", [
    (InputError("a.wav: no such file; expected a sound"), 2,
     "a.wav: no such file; expected a sound"),
    (OSError(28, "No space left on device", "a.pt"), 2,
     "[Errno 28] No space left on device: 'a.pt'"),
    (NonFiniteLoss("lora: the loss became nan"), 1, "lora: the loss became nan"),
    (KeyboardInterrupt("interrupted; resume with x"), 130, "interrupted; resume with x"),
    (KeyboardInterrupt(), 130, "interrupted")])
def test_an_error_is_one_line_and_a_status(capsys: CaptureFixture, error: BaseException,
                                           status: int, line: str) -> None:
    assert failure(capsys, throw, error) == (line, status)


def test_a_name_with_control_characters_stays_one_line(capsys: CaptureFixture) -> None:
    line, _ = failure(capsys, throw, InputError("a\nb\x1b[31m雨.wav: no such file"))
    assert line == r"a\nb\x1b[31m雨.wav: no such file"


def test_a_mistake_of_the_program_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        run(lambda: throw(ZeroDivisionError()))


@pytest.mark.parametrize("word, words, mend", [
    ("promt", ["head", "prompt"], "did you mean prompt?"),
    ("xyz", ["head", "prompt"], "expected one of head, prompt"),
    ("xyz", [f"class {n}" for n in range(12)],
     "expected one of class 0, class 1, class 2, class 3, class 4, class 5, class 6, class 7, "
     "class 8, class 9 and 2 more"),
    (7, ["head", "prompt"], "expected one of head, prompt")])
def test_an_unknown_word_is_answered_with_the_valid_ones(word: object, words: list[str],
                                                         mend: str) -> None:
    assert nearest(word, words) == mend
