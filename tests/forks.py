"""A preforking server: processes that start without the time for their imports.

Run as a script, this file is the server. It imports the modules that it is given, then reads one
request from each line of its input and writes one response line. `Server` is its client.
"""

import atexit
import contextlib
import importlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

LONG = 900  # seconds after which a test gives up


class Server:
    """The process, and those that it has started.

    Args:
      target: "module:function" or "/path/script.py:function"; it takes a list of words.
      preload: names of modules to import first.
      environment: more of the environment.
      launches: whether the target starts itself by `subprocess.Popen`; then it forks instead.
    """

    def __init__(self, target, preload=(), environment=None, launches=False):
        words = json.dumps([target, list(preload), launches])
        path = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self.process = subprocess.Popen(
            [sys.executable, __file__, words],
            env=os.environ | path | (environment or {}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, *question):
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"the process that forks has ended with {self.process.wait()}"
        return json.loads(line)

    def start(self, words, out, err=None, environment=None, lines=None, folder=None):
        """Calls the target in a new process, whose output goes to files.

        It stands in `folder`, and stands still after so many `lines`.
        """
        files = [str(out), str(err or out)]
        pid = self.ask("start", words, files, environment or {}, lines, str(folder or "."))
        return Process(self, pid, *map(Path, files))

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


class Process:
    """A process of a server's, with the methods of `subprocess.Popen`."""

    def __init__(self, server, pid, out, err):
        self.server, self.pid, self.out, self.err = server, pid, out, err
        self.returncode = None

    def said(self):
        """All its output so far."""
        return "".join(path.read_text() for path in dict.fromkeys((self.out, self.err)))

    def poll(self):
        if self.returncode is None:
            self.returncode = self.server.ask("poll", self.pid)
        return self.returncode

    def wait(self, timeout=LONG):
        end = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired(f"the process {self.pid}", timeout)
            time.sleep(0.02)
        return self.returncode

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def end(self):
        """Kills it and those it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.wait()


# The process itself


class Held:
    """A text stream that stands still after so many lines."""

    def __init__(self, stream, lines):
        self.stream, self.lines = stream, lines

    def __getattr__(self, name):
        return getattr(self.stream, name)

    def write(self, text):
        self.stream.write(text)
        self.lines -= text.count("\n")
        if self.lines <= 0:
            self.stream.flush()
            signal.pause()


def become(call, words, environment):
    """Does the call and ends, as a new process would."""
    os.environ.update(environment)
    code = 1
    try:
        code = call(words)
        code = code if isinstance(code, int) else 0
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


class Forked:
    """What stands for `subprocess.Popen` in a process that starts itself once more."""

    def __init__(self, command, env):
        self.pid, self.returncode = os.fork(), None
        if not self.pid:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            become(CALL, command[2:], env)

    def poll(self):
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, timeout=None):
        end = time.monotonic() + (LONG if timeout is None else timeout)
        while self.poll() is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired("fork", timeout)
            time.sleep(0.02)
        return self.returncode

    def terminate(self):
        if self.poll() is None:
            os.kill(self.pid, signal.SIGTERM)

    def kill(self):
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


def found(target):
    """The function, and its module."""
    path, _, name = target.rpartition(":")
    if path.endswith(".py"):
        spec = importlib.util.spec_from_file_location(Path(path).stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    else:
        module = importlib.import_module(path)
    return getattr(module, name), module


def start(words, files, environment, lines, folder):
    """Forks; the child has a session of its own."""
    if child := os.fork():
        return child
    os.setsid()
    os.chdir(folder)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for stream, file in enumerate(files, 1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    if lines is not None:
        sys.stdout = Held(sys.stdout, lines)
    become(CALL, words, environment)


def poll(pid):
    """The exit code, or None of one that runs."""
    ended, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if ended else None


if __name__ == "__main__":
    target, preload, launches = json.loads(sys.argv[1])
    for name in preload:
        importlib.import_module(name)
    CALL, module = found(target)
    if launches:
        module.subprocess = type("forks", (), vars(subprocess) | {"Popen": Forked})
    for line in sys.stdin:
        kind, *words = json.loads(line)
        print(json.dumps({"start": start, "poll": poll}[kind](*words)), flush=True)
