"""The commands as a user types them: processes, exit statuses, what is on stdout and what on stderr."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.integration.raw import PATIENCE_S, Daemon, children, until

ROOT = Path(__file__).resolve().parents[2]
EDGED = [sys.executable, "-m", "edged"]
ENDLESS = ["--max-tokens", "3000", "--temperature", "1.5"]


def environment(home: Path, **more: str) -> dict[str, str]:
    """Of somebody who has never used edged: no settings, a HOME and a runtime directory of their own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("EDGED_", "XDG_", "NOTIFY"))}
    nowhere = {"HOME": str(home), "XDG_RUNTIME_DIR": str(home), "EDGED_CONFIG": str(home / "none.toml")}
    return kept | nowhere | {"EDGED_STATE_DIR": str(home / "state"), "PYTHONPATH": str(ROOT)} | more


class User:
    """Types commands in a home directory of their own."""

    def __init__(self, home: Path, **more: str) -> None:
        self.home, self.environment = home, environment(home, **more)

    def types(self, *words: str, stdin: str | bytes = "") -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*EDGED, *words],
            input=stdin if isinstance(stdin, bytes) else stdin.encode(),
            capture_output=True,
            timeout=PATIENCE_S * 2,
            env=self.environment,
            cwd=self.home,
        )
        out, err = done.stdout.decode(), done.stderr.decode()
        assert "Traceback" not in out + err, err
        return subprocess.CompletedProcess(done.args, done.returncode, out, err)


@pytest.fixture
def user(endless: Daemon, short_path: Path) -> User:
    return User(short_path, EDGED_ENDPOINT=endless.endpoint)


@pytest.fixture
def newcomer(short_path: Path, nano: Path) -> User:
    """Nobody has started a daemon."""
    (short_path / "tmp").mkdir()
    return User(short_path, EDGED_MODEL=str(nano), TMPDIR=str(short_path / "tmp"))


class TestAsk:
    def test_prints_the_answer_and_nothing_else(self, user: User) -> None:
        done = user.types("ask", "set the lab fan to 40 percent", "--max-tokens", "20", "--temperature", "1")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.strip()

    def test_words_stdin_and_json_are_the_same_question(self, user: User) -> None:
        options = ("--max-tokens", "12", "--temperature", "1", "--seed", "3")
        plain = user.types("ask", "hello there", *options)
        words = user.types("ask", *options, "hello", "there")
        piped = user.types("ask", *options, stdin="hello there\n")
        dash = user.types("ask", "-", *options, stdin="hello there")
        assert plain.stdout == words.stdout == piped.stdout == dash.stdout
        answer = json.loads(user.types("ask", "--json", "hello there", *options).stdout)
        assert answer["text"] + "\n" == plain.stdout
        assert answer["finish_reason"] == "length"
        assert answer["usage"]["completion_tokens"] == 12
        assert answer["timings"]["ttft_ms"] > 0

    def test_a_system_message_is_part_of_the_prompt(self, user: User) -> None:
        count = [
            json.loads(user.types("ask", "--json", "--max-tokens", "1", *more, "hello").stdout)["usage"][
                "prompt_tokens"
            ]
            for more in ((), ("--system", "You are a lamp."))
        ]
        assert count[1] > count[0]

    def test_verbose_tells_timings_on_stderr(self, user: User) -> None:
        done = user.types("ask", "-v", "hello", "--max-tokens", "5")
        assert re.search(r"5 tokens, cut off at its token limit · prompt \d+ tokens · first token after", done.stderr)

    def test_a_time_limit_keeps_what_there_is_and_says_so(self, user: User) -> None:
        done = user.types("ask", "-v", "--timeout", "0.5", *ENDLESS, "hello")
        assert done.returncode == 1
        assert "cut off by the time limit" in done.stderr

    @pytest.mark.parametrize(
        ("words", "stdin", "said"),
        [
            (("ask", ""), "", "the question is empty"),
            (("ask",), "  \n", "the question is empty"),
            (("ask",), b"\xff\xfe", "not UTF-8"),
            (("ask", "--max-tokens", "0", "hi"), "", "--max-tokens"),
            (("ask", "--temperature", "warm", "hi"), "", "--temperature"),
            (("ask", "--nonsense"), "", "--nonsense"),
            (("answer",), "", "No such command"),
            (("serve", "--log-level", "loud"), "", "--log-level"),
            (("ping", "-c", "0"), "", "--count"),
        ],
    )
    def test_wrong_usage_is_2_and_names_it(
        self, user: User, words: tuple[str, ...], stdin: str | bytes, said: str
    ) -> None:
        done = user.types(*words, stdin=stdin)
        assert done.returncode == 2
        assert said in done.stderr
        assert done.stdout == ""

    def test_an_error_answer_is_1_and_one_line(self, user: User) -> None:
        done = user.types("ask", "--model", "gpt-17", "hi")
        assert (done.returncode, done.stdout) == (1, "")
        assert re.fullmatch(r"edged: model: 'gpt-17' is not installed here; there are: .+\n", done.stderr)
        as_json = user.types("ask", "--json", "--model", "gpt-17", "hi")
        assert as_json.returncode == 1
        assert json.loads(as_json.stdout)["error"]["code"] == "not_found"

    def test_a_reader_that_has_seen_enough_is_no_error_to_talk_about(self, user: User, endless: Daemon) -> None:
        process = subprocess.Popen(
            [*EDGED, "ask", *ENDLESS, "hello"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=user.environment,
        )
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(1)
        process.stdout.close()
        assert process.wait(PATIENCE_S) == 141
        assert process.stderr.read() == b""
        process.stderr.close()
        until(lambda: endless.status()["front"]["live_requests"] == 0, "its request to be cancelled")

    def test_ctrl_c_is_130_and_cancels(self, user: User, endless: Daemon) -> None:
        process = subprocess.Popen(
            [*EDGED, "ask", *ENDLESS, "hello"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=user.environment
        )
        assert process.stdout is not None
        process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 130
        assert b"Traceback" not in stderr
        until(lambda: endless.status()["front"]["live_requests"] == 0, "its request to be cancelled")


class TestWithoutADaemon:
    def test_ask_starts_a_private_one_says_so_and_takes_it_away(self, newcomer: User) -> None:
        done = newcomer.types("ask", "--max-tokens", "4", "hello")
        assert done.returncode == 0
        assert "no daemon runs; starting a private one with model" in done.stderr
        assert list((newcomer.home / "tmp").iterdir()) == []

    def test_a_private_daemon_dies_with_an_ask_that_is_killed(self, newcomer: User) -> None:
        process = subprocess.Popen(
            [*EDGED, "ask", *ENDLESS, "hello"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=newcomer.environment,
        )
        assert process.stdout is not None
        until(lambda: children(process.pid), "the private daemon to start", alive=process)
        (daemon,) = children(process.pid)
        process.stdout.read(1)
        process.kill()
        process.communicate()
        until(lambda: not Path(f"/proc/{daemon}").exists() or _is_zombie(daemon), "the private daemon to end")

    def test_a_private_daemon_that_cannot_start_says_why(self, newcomer: User) -> None:
        done = newcomer.types("ask", "--model", "nosuch", "hello")
        assert done.returncode == 1
        assert "no model of that name is installed" in done.stderr

    @pytest.mark.parametrize("words", [("ping",), ("status",), ("top", "-c", "1")])
    def test_what_needs_one_is_3_and_says_where_it_looked(self, newcomer: User, words: tuple[str, ...]) -> None:
        done = newcomer.types(*words)
        assert done.returncode == 3
        assert f"ipc://{newcomer.home}/edged.sock: no such socket" in done.stderr
        assert "edged serve" in done.stderr
        if words != ("top", "-c", "1"):
            as_json = newcomer.types(*words, "--json")
            assert (as_json.returncode, json.loads(as_json.stdout)["error"]["code"]) == (3, "no_daemon")

    def test_models_without_one_are_those_on_disk(self, newcomer: User) -> None:
        done = newcomer.types("models", "--json")
        assert (done.returncode, "no such socket" in done.stderr) == (0, True)
        assert "nano" in [model["name"] for model in json.loads(done.stdout)]
        assert newcomer.types("models", "-e", f"ipc://{newcomer.home}/x.sock").returncode == 3

    def test_a_named_daemon_that_is_not_there_is_not_replaced(self, newcomer: User) -> None:
        done = newcomer.types("ask", "-e", f"ipc://{newcomer.home}/x.sock", "hello")
        assert done.returncode == 3
        assert "private" not in done.stderr


class TestLook:
    def test_status_for_people(self, user: User, endless: Daemon) -> None:
        user.types("ask", "--max-tokens", "3", "hello")
        done = user.types("status")
        assert done.returncode == 0
        for word in (endless.endpoint, "ready", "CPUExecutionProvider", "weights", "KV free", "reserve", "tokens/s"):
            assert word in done.stdout
        assert "\x1b" not in done.stdout
        (bar,) = re.findall(r"^  \[(.*)\]$", done.stdout, re.MULTILINE)
        assert len(bar) == 60
        assert {"W", ".", "r"} <= set(bar)

    def test_status_for_programs_is_the_daemons_own_map(self, user: User, endless: Daemon) -> None:
        shown = json.loads(user.types("status", "--json").stdout)
        assert shown["front"]["pid"] == endless.pid
        assert shown["models"][0]["state"] == "ready"

    def test_top_shows_the_same_and_ends(self, user: User) -> None:
        done = user.types("top", "--count", "2", "--interval", "0.1")
        assert done.returncode == 0
        assert "KV free" in done.stdout

    def test_ping(self, user: User) -> None:
        assert "3 answered; p50" in user.types("ping", "-c", "3").stdout
        found = json.loads(user.types("ping", "-c", "20", "--interval", "0", "--json").stdout)
        assert 0 < found["min_ms"] <= found["p50_ms"] <= found["p99_ms"] <= found["max_ms"]

    def test_models(self, user: User, endless: Daemon) -> None:
        model, *_ = json.loads(user.types("models", "--json").stdout)
        assert user.types("models").stdout.startswith(f"{model['name']}: ready, CPUExecutionProvider, ")

    def test_a_hanging_daemon_is_try_later(self, daemon: Callable[..., Daemon], short_path: Path) -> None:
        started = daemon()
        user = User(short_path, EDGED_ENDPOINT=started.endpoint)
        started.process.send_signal(signal.SIGSTOP)
        try:
            done = user.types("ping", "-c", "1", "--timeout", "0.5")
        finally:
            started.process.send_signal(signal.SIGCONT)
        assert done.returncode == 4
        assert "no reply within 0.5 s" in done.stderr


class TestConfig:
    def test_show_says_where_each_value_came_from(self, newcomer: User) -> None:
        file = newcomer.home / "edged.toml"
        file.write_text('threads = 2\nlog_level = "debug"\n')
        newcomer.environment["EDGED_LOG_LEVEL"] = "error"
        shown = json.loads(newcomer.types("config", "show", "--config", str(file), "--json").stdout)
        assert shown["threads"] == {"value": 2, "origin": str(file)}
        assert shown["log_level"] == {"value": "error", "origin": "environment EDGED_LOG_LEVEL"}
        assert shown["drain_s"]["origin"] == "default"
        assert shown["endpoint"]["value"].startswith("ipc://")
        text = newcomer.types("config", "show", "--config", str(file)).stdout
        assert re.search(r'^log_level +=.*"error" +# environment EDGED_LOG_LEVEL$', text, re.MULTILINE)

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("threads = -1", "threads"),
            ('model = "x\n', "not valid TOML"),
            ("thread = 1", "no such setting"),
        ],
    )
    def test_check_names_file_and_key(self, newcomer: User, text: str, said: str) -> None:
        file = newcomer.home / "edged.toml"
        file.write_text(text)
        done = newcomer.types("config", "check", "--config", str(file))
        assert (done.returncode, done.stdout) == (1, "")
        assert str(file) in done.stderr
        assert said in done.stderr

    def test_check_looks_at_the_model_too(self, newcomer: User) -> None:
        assert newcomer.types("config", "check").returncode == 0
        newcomer.environment["EDGED_MODEL"] = str(newcomer.home)
        done = newcomer.types("config", "check")
        assert done.returncode == 1
        assert str(newcomer.home) in done.stderr


class TestServe:
    def test_flags_go_before_the_environment_and_a_second_daemon_is_refused(self, endless: Daemon, user: User) -> None:
        user.environment["EDGED_ENDPOINT"] = "ipc:///nowhere/at/all.sock"
        done = user.types("serve", "--endpoint", endless.endpoint, "--model", str(endless.settings["model"]))
        assert done.returncode == 1
        assert "another edged serves" in done.stderr

    def test_a_hangup_reads_the_settings_again(self, daemon: Callable[..., Daemon]) -> None:
        started = daemon()
        started.write_settings(log_level="debug", threads=2)
        started.process.send_signal(signal.SIGHUP)
        until(lambda: "changed=log_level,threads" in started.log(), "the settings to be read again")
        assert "next restart: threads" in started.log()
        started.write_settings(log_level="loud")
        started.process.send_signal(signal.SIGHUP)
        until(lambda: "settings not re-read" in started.log(), "the mistake to be named")
        assert started.status()["models"][0]["state"] == "ready"

    def test_the_process_started_is_the_daemon_itself(self, endless: Daemon) -> None:
        """A service manager signals and watches the process it started: no wrapper may stand between."""
        assert endless.status()["front"]["pid"] == endless.pid
        command = Path(f"/proc/{endless.pid}/cmdline").read_bytes().split(b"\0")
        assert b"edged.cli.serve_main" in command


class TestChat:
    def test_a_piped_conversation_is_answered_turn_by_turn(self, user: User, endless: Daemon) -> None:
        before = endless.model()["engine"]["finished"]
        done = user.types("chat", "--max-tokens", "4", stdin="hello\n\nagain\n/reset\n/what\nonce more\n/quit\nnever\n")
        assert done.returncode == 0
        assert "/what: no such command" in done.stderr
        until(lambda: endless.model()["engine"]["finished"] == before + 3, "three answers to be counted")

    def test_ctrl_c_stops_the_answer_and_not_the_program(self, user: User, endless: Daemon) -> None:
        with terminal([*EDGED, "chat", *ENDLESS], user.environment) as screen:
            screen.until("> ")
            screen.types("hello\n")
            until(lambda: endless.status()["front"]["live_requests"] == 1, "the answer to begin")
            screen.until("hello")
            time.sleep(0.3)  # a few words
            screen.types("\x03")
            screen.until("(stopped)")
            until(lambda: endless.status()["front"]["live_requests"] == 0, "the answer to be cancelled")
            screen.types("\x03")  # at the prompt
            screen.until("Ctrl-D leaves")
            screen.types("/quit\n")
            assert screen.ends() == 0

    def test_a_model_being_loaded_is_shown_at_a_terminal(self, newcomer: User) -> None:
        with terminal([*EDGED, "ask", "--max-tokens", "3", "hello"], newcomer.environment) as screen:
            screen.until("private one")
            assert screen.ends() == 0
        assert "cut off at its token limit" in screen.seen


class Terminal:
    """A process whose stdin, stdout and stderr are a pseudo-terminal."""

    def __init__(self, pid: int, fd: int) -> None:
        self._pid, self._fd = pid, fd
        self._status: int | None = None
        self.seen = ""

    def types(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def until(self, text: str) -> None:
        """Read until `text` is on the screen; what was before it is not looked at again."""
        end_s = time.monotonic() + PATIENCE_S
        rest = self.seen[self._read_to :]
        while text not in rest:
            assert time.monotonic() < end_s, f"waited for {text!r}; seen: {self.seen!r}"
            assert self._read(), f"it ended before {text!r}; seen: {self.seen!r}"
            rest = self.seen[self._read_to :]
        self._read_to += rest.index(text) + len(text)

    _read_to = 0

    def _read(self) -> bool:
        if select.select([self._fd], [], [], 0.1)[0]:
            try:
                data = os.read(self._fd, 65536)
            except OSError:  # the other end is closed
                return False
            self.seen += data.decode(errors="replace")
            return bool(data)
        return True

    def ends(self) -> int:
        """Wait for its end; the exit status."""
        end_s = time.monotonic() + PATIENCE_S
        while self._status is None:
            assert time.monotonic() < end_s, f"it does not end; seen: {self.seen!r}"
            self._read()
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                self._status = os.waitstatus_to_exitcode(status)
        return self._status

    def close(self) -> None:
        if self._status is None:
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
        os.close(self._fd)


@contextmanager
def terminal(command: list[str], env: dict[str, Any]) -> Iterator[Terminal]:
    master, slave = pty.openpty()
    process = subprocess.Popen(
        command,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=env | {"TERM": "dumb"},
        start_new_session=True,
        preexec_fn=_take_terminal,
    )
    process.returncode = 0  # it is waited for below, not by subprocess
    os.close(slave)
    screen = Terminal(process.pid, master)
    try:
        yield screen
    finally:
        screen.close()


def _take_terminal() -> None:
    """Make stdin the controlling terminal, so that Ctrl-C is a signal."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
