"""What every command has around its work: flags, one line an error, an exit status, and what ends it from outside."""
import ast
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from conftest import refusal

from ptm_mini.errors import Parser, counted, run, signals_raise, whole_number

ROOT = Path(__file__).parent.parent
SCRIPTS = [*(ROOT / name for name in ("train.py", "eval.py", "ptm_mini/golden/__main__.py", "ptm_mini/report/tour.py")),
           *(ROOT / "data_prep" / f"{name}.py" for name in ("toy", "folder", "av_mnist", "cifar10_av", "urbansound8k_av"))]
BEGIN = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
if __name__ == "__main__":
    from ptm_mini.errors import run_script
    run_script(__file__)
"""


def hear_signals():
    """What the tests run in, such as nohup or a shell's background, may ignore signals, which a child would inherit."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


@pytest.fixture
def begun(tmp_path):
    """A function that starts a script of these lines, waits until it says that it is there, and returns its process"""
    processes = []

    def start(*lines, **keywords):
        script = tmp_path / "script.py"
        script.write_text(BEGIN + "\n".join(lines))
        process = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                   cwd=tmp_path, **{"preexec_fn": hear_signals, **keywords})
        processes.append(process)
        process.stdout.readline()
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


WRITES = """
import time
from pathlib import Path
from ptm_mini.files import new_folder
def main():
    with new_folder(Path("set")):
        print("there", flush=True)
        time.sleep(60)
"""


@pytest.mark.parametrize("name, status, says", [("SIGINT", 130, "interrupted"), ("SIGTERM", 143, "ended by SIGTERM"),
                                                ("SIGHUP", 129, "ended by SIGHUP")])
def test_what_ends_a_command_from_outside_is_one_line_and_leaves_nothing(begun, tmp_path, name, status, says):
    process = begun(WRITES)
    assert any(path.name.endswith(".unfinished") for path in tmp_path.iterdir())
    process.send_signal(getattr(signal, name))
    assert process.communicate(timeout=20)[1] == f"error: {says}\n" and process.returncode == status
    assert os.listdir(tmp_path) == ["script.py"]


def test_an_interruption_of_the_imports_is_one_line_too(begun):
    process = begun("import time", "print('importing', flush=True)", "time.sleep(60)", "def main(): pass")
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=20)[1] == "error: interrupted\n" and process.returncode == 130


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_every_script_runs_before_its_imports(path):
    _, guard, *_ = ast.parse(path.read_text()).body
    assert ast.unparse(guard) == ("if __name__ == '__main__':\n    from ptm_mini.errors import run_script\n"
                                  "    run_script(__file__)")


def test_an_ignored_signal_stays_ignored(begun):
    process = begun("import time", "def main():", "    print('there', flush=True)", "    time.sleep(0.3)",
                    preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    process.send_signal(signal.SIGHUP)
    assert process.communicate(timeout=20)[1] == "" and process.returncode == 0


def test_a_second_signal_does_not_disturb_the_tidying_up(begun, tmp_path):
    process = begun("import signal, os", "from pathlib import Path", "def main():", "    print('there', flush=True)",
                    "    try:", "        os.kill(os.getpid(), signal.SIGHUP)",
                    "    finally:", "        os.kill(os.getpid(), signal.SIGTERM)",
                    "        Path('tidy').write_text('')")
    assert process.communicate(timeout=20)[1] == "error: ended by SIGHUP\n" and (tmp_path / "tidy").exists()


def test_signals_are_as_before_after_a_command():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)]
    run(lambda: None)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)] == before
    raised = []

    def elsewhere():
        with signals_raise():
            raised.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert raised == before[:1]


@pytest.fixture(params=["", "1"], ids=["buffered", "unbuffered"])
def unbuffered(request, monkeypatch):
    monkeypatch.setenv("PYTHONUNBUFFERED", request.param)


TALKS = "import logging", "def main():", "    for i in range(10000):", "        {}"


@pytest.mark.usefixtures("unbuffered")
@pytest.mark.parametrize("said", ["print(i, 'x' * 100)", "logging.getLogger('x').info('%d %s', i, 'x' * 100)"])
def test_a_reader_who_leaves_ends_a_command_quietly(begun, said):
    process = begun(*TALKS[:-1], TALKS[-1].format(said))
    process.stdout.close()
    assert process.stderr.read() == "" and process.wait(20) == 141


@pytest.mark.usefixtures("unbuffered")
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no disk that is always full")
@pytest.mark.parametrize("said", ["print('x')", "print(i, 'x' * 100)", "logging.getLogger('x').info('%d', i)"])
def test_output_that_finds_no_room_is_one_line(tmp_path, said):
    (tmp_path / "script.py").write_text("\n".join([BEGIN, *TALKS[:-1], TALKS[-1].format(said)]))
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, tmp_path / "script.py"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.stderr == "error: standard output: No space left on device\n" and done.returncode == 2


@pytest.mark.parametrize("said, expected", [("print('0.5±0.1 雨')", "0.5\\xb10.1 \\u96e8\n"),
                                            ("logging.getLogger('x').info('±')", "\\xb1\n")])
def test_a_terminal_that_knows_no_such_letter_gets_its_number(tmp_path, said, expected):
    (tmp_path / "script.py").write_text("\n".join([BEGIN, "import logging", "def main():", f"    {said}"]), encoding="utf-8")
    done = subprocess.run([sys.executable, tmp_path / "script.py"], env={**os.environ, "PYTHONIOENCODING": "ascii"},
                          capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, expected, "")


@pytest.fixture
def parser():
    parser = Parser("what it does")
    parser.add_argument("run")
    parser.add_argument("--epochs", type=whole_number(0))
    parser.add_argument("--fraction", type=float)
    parser.add_argument("--method", nargs="+", choices=["prompt", "head"], metavar="METHOD")
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--stress", action="store_true")
    either.add_argument("--attention", action="store_true")
    return parser


@pytest.mark.parametrize("arguments, says", [
    ("", "run: not given"), ("a b", "b: one word too many"), ("a --epohcs 3", "--epohcs: no such flag; did you mean --epochs?"),
    ("a --epohcs=3", "--epohcs: no such flag; did you mean --epochs?"), ("a -x", "-x: no such flag; say --help"),
    ("a --epochs", "--epochs: expected one argument"),
    ("a --epochs x", "--epochs: expected a whole number, 0 or more, not 'x'"),
    ("a --epochs -1", "--epochs: expected a whole number, 0 or more, not '-1'"), ("a --epochs 1.5", "not '1.5'"),
    ("a --epochs " + "9" * 5000, "--epochs: expected a whole number"),
    ("a --fraction x", "--fraction: expected a number, not 'x'"),
    ("a --method promt", "--method promt: no such choice; did you mean prompt?"),
    ("a --method xyz", "--method xyz: no such choice; expected one of prompt, head"),
    ("a --method", "--method: expected at least one argument"), ("a --stress --attention", "--attention: not allowed with")])
def test_a_wrong_flag_is_one_line_that_names_it(parser, arguments, says):
    assert says in refusal(parser.parse_args, arguments.split())


def test_right_flags_are_taken(parser):
    options = parser.parse_args(["a", "--epochs", "0", "--method", "head", "prompt"])
    assert (options.run, options.epochs, options.method) == ("a", 0, ["head", "prompt"])
    with pytest.raises(SystemExit) as caught:
        parser.parse_args(["--help"])
    assert caught.value.code == 0


def test_one_is_singular():
    assert [counted(n, "sample") for n in range(3)] == ["0 samples", "1 sample", "2 samples"]
    assert [counted(n, "class", "classes") for n in (1, 2)] == ["1 class", "2 classes"]
