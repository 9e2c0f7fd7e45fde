"""Errors to `error:` and `hint:` lines, exit codes, streams, colour, interruption."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from ppvcli.cli import output
from ppvcli.errors import ConfigError, DeviceError, OfflineError, PpvError, UnknownNameError, UsageError

Start = Callable[..., "subprocess.Popen[str]"]

DEBUG_HINT = "PPV_DEBUG=1 shows the traceback"
posix = pytest.mark.skipif(sys.platform == "win32", reason="signals, pipes and pseudo-terminals of POSIX")


@pytest.mark.parametrize(
    ("error", "exit_code", "stderr"),
    [
        (PpvError("it broke"), 1, "error: it broke\n"),
        (PpvError("it broke", hint="mend it"), 1, "error: it broke\nhint: mend it\n"),
        (DeviceError("no GPU", hint="--cpu"), 1, "error: no GPU\nhint: --cpu\n"),
        (OfflineError("not here"), 1, "error: not here\n"),
        (UsageError("no video given"), 2, "error: no video given\n"),
        (ConfigError("a: wrong\nb: wrong too"), 2, "error: a: wrong\nb: wrong too\n"),
        (UnknownNameError("model", "tsmm", ["tsm"]), 2, "error: unknown model 'tsmm'; nearest: tsm\n"),
        (typer.BadParameter("not 3."), 2, "error: invalid value: not 3\nhint: ppv --help\n"),
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
        (ValueError("bad\nvery bad"), 1, f"error: ValueError: bad\nhint: {DEBUG_HINT}\n"),
        (MemoryError(), 1, f"error: MemoryError\nhint: {DEBUG_HINT}\n"),
    ],
)
def test_report_error_tells_each_error_in_its_own_way(
    error: BaseException,
    exit_code: int,
    stderr: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("PPV_DEBUG", raising=False)
    assert output.report_error(error) == exit_code
    assert capsys.readouterr() == ("", stderr)


@pytest.mark.parametrize("error", [PpvError("it broke", hint="mend it"), ValueError("bad")])
def test_report_error_with_debug_shows_the_traceback(
    error: Exception, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PPV_DEBUG", "1")
    try:
        raise error
    except Exception as caught:
        output.report_error(caught)
    stdout, stderr = capsys.readouterr()
    assert stdout == ""
    assert "Traceback (most recent call last)" in stderr
    assert "raise error" in stderr
    assert DEBUG_HINT not in stderr


def test_show_error_does_not_obey_control_characters_of_a_file_name(capsys: pytest.CaptureFixture[str]) -> None:
    output.show_error("no video at \x1b[31mred\r.mp4")
    assert capsys.readouterr().err == "error: no video at \\x1b[31mred\\r.mp4\n"


def test_print_json_writes_a_file_name_that_is_not_utf8(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_json({"path": b"caf\xe9.mp4".decode("utf-8", "surrogateescape")})
    assert capsys.readouterr().out == '{\n  "path": "caf\\udce9.mp4"\n}\n'


def _read_terminal(env: dict[str, str]) -> str:
    """What `ppv predcit` writes when its stderr is a terminal."""
    import pty

    clean = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "TERM")}
    master, slave = pty.openpty()
    try:
        subprocess.run(
            [sys.executable, "-m", "ppvcli", "predcit"],
            env={**clean, "TERM": "xterm", **env},
            stdout=subprocess.DEVNULL,
            stderr=slave,
            timeout=60,
        )
        return os.read(master, 4096).decode()
    finally:
        os.close(slave)
        os.close(master)


@posix
@pytest.mark.parametrize(
    ("env", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False), ({"NO_COLOR": ""}, True)]
)
def test_error_has_colour_on_a_terminal_only_and_not_with_no_color(env: dict[str, str], coloured: bool) -> None:
    shown = _read_terminal(env)
    assert "no such command 'predcit'" in shown
    assert ("\x1b[1;31merror:\x1b[0m" in shown) == coloured
    assert ("\x1b" in shown) == coloured


SLOW_COMMAND = """
import os, signal, sys, time
from ppvcli.cli import app
from ppvcli.models.device import load_paddle

def slow() -> None:
    load_paddle()
    try:
        print("started", flush=True)
        time.sleep(60)
    finally:
        if signal.getsignal(signal.SIGTERM) is signal.SIG_IGN:
            os.kill(os.getpid(), signal.SIGTERM)  # as of `timeout`, which sends two
        if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
            os.kill(os.getpid(), signal.SIGHUP)
        print("cleaned up", flush=True)

app.COMMANDS["slow"] = slow
sys.exit(app.main(["slow"]))
"""


@posix
@pytest.mark.parametrize(
    ("number", "code", "error"),
    [
        (signal.SIGINT, 130, "error: interrupted\n"),
        (signal.SIGTERM, 143, "error: terminated\n"),
        pytest.param(getattr(signal, "SIGHUP", 0), 129, "error: terminated\n", id="SIGHUP"),
    ],
)
def test_signal_ends_a_command_in_order_with_one_line(
    number: int, code: int, error: str, python_process: Start
) -> None:
    plain = "import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"  # these tests may run under nohup
    process = python_process("-c", plain + SLOW_COMMAND)
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout, stderr) == (code, "cleaned up\n", error)


@posix
def test_nohup_is_respected(python_process: Start) -> None:
    ignore = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    process = python_process("-c", ignore + SLOW_COMMAND.replace("time.sleep(60)", "time.sleep(1)"))
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    process.send_signal(signal.SIGHUP)
    assert process.communicate(timeout=60) == ("cleaned up\n", "")
    assert process.returncode == 0


@posix
@pytest.mark.parametrize(
    ("closed", "answer"), [(">&-", ("", "")), ("2>&-", ("ppv ", "")), (">&- 2>&-", ("", "")), ("<&-", ("ppv ", ""))]
)
def test_stream_that_the_shell_has_closed_does_no_harm(closed: str, answer: tuple[str, str]) -> None:
    command = f"{sys.executable} -c 'import sys; from ppvcli.cli.app import main; sys.exit(main([\"--version\"]))'"
    found = subprocess.run(f"{command} {closed}", shell=True, capture_output=True, text=True, timeout=60)
    assert (found.returncode, found.stdout[:4], found.stderr) == (0, *answer)
    found = subprocess.run(
        f"{command.replace('--version', 'nonsense')} {closed}", shell=True, capture_output=True, text=True, timeout=60
    )
    assert (found.returncode, found.stdout) == (2, "")
    assert "Traceback" not in found.stderr


@posix
def test_reader_that_goes_away_is_no_error_to_talk_about(python_process: Start) -> None:
    code = "import sys; from ppvcli.cli.app import main; sys.exit(main(['--help']))"
    process = python_process("-c", code)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait(timeout=60) == 0


@pytest.mark.parametrize(
    ("error", "text"),
    [
        ("a/b.avi is empty: 0 bytes", "a/b.avi is empty: 0 bytes"),
        ("no video at a/b.avi", "no video at a/b.avi"),
        ("decoding took too long", "a/b.avi: decoding took too long"),
    ],
)
def test_path_of_a_broken_file_stands_once(error: str, text: str) -> None:
    assert output.with_path("a/b.avi", error) == text


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("args", [["bench-decode", "--help"], ["predict", "missing.mp4", "--json"], ["--version"]])
def test_full_disk_behind_stdout_is_one_error_with_a_hint(args: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        found = subprocess.run([sys.executable, "-m", "ppvcli", *args], stdout=full, stderr=subprocess.PIPE, text=True)
    assert found.returncode == 1
    first, second = found.stderr.splitlines()
    assert first == "error: can't write the output: No space left on device"
    assert second == "hint: free some space, or write to another place"
