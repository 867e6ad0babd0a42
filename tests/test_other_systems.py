"""What only POSIX has is not used unasked: the package starts where there is none of it, as is tried here."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import twotowers

SOURCE = Path(twotowers.__file__).parent
MODULES = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog", "posix"}
OF_OS = {"fork", "forkpty", "getuid", "geteuid", "getgid", "killpg", "setsid", "getpgid", "wait4", "uname", "mkfifo"}
OF_OS |= {"getloadavg", "sched_getaffinity", "sched_setaffinity", "nice", "statvfs", "chown", "getpriority", "sysconf"}
OF_SIGNAL = {"SIGHUP", "SIGPIPE", "SIGKILL", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGCHLD", "SIGSTOP", "SIGCONT", "alarm"}

WITHOUT = """
import os, signal, sys
for name in ("SIGHUP", "SIGPIPE", "SIGKILL"):
    delattr(signal, name)
for name in ("fork", "getuid", "sched_getaffinity"):
    delattr(os, name)
sys.modules |= dict.fromkeys(("fcntl", "resource", "pwd", "grp", "termios"))
import twotowers.cli
sys.argv = ["twotowers", "--version"]
twotowers.cli.main()
"""


def used(tree):
    """Names of what only POSIX has, but for those that are asked for before, and the lines that use them."""
    asked = {
        node.args[1].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("hasattr", "getattr")
        if isinstance(node.args[1], ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            of = {"os": OF_OS, "signal": OF_SIGNAL}.get(node.module, set())
            yield from ((alias.name, node.lineno) for alias in node.names if node.module in MODULES or alias.name in of)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            of = {"os": OF_OS, "signal": OF_SIGNAL}.get(node.value.id, set())
            if node.attr in of and node.attr not in asked:
                yield node.attr, node.lineno


@pytest.mark.parametrize("file", sorted(SOURCE.rglob("*.py")), ids=lambda file: str(file.relative_to(SOURCE)))
def test_nothing_that_only_posix_has_is_used_unasked(file):
    assert list(used(ast.parse(file.read_text(encoding="utf-8")))) == []


def test_what_only_posix_has_is_found():
    found = used(
        ast.parse("import fcntl\nfrom os import fork\nsignal.SIGHUP\nos.uname() if hasattr(os, 'uname') else 0")
    )
    assert list(found) == [("fcntl", 1), ("fork", 2), ("SIGHUP", 3)]


def test_the_command_starts_without_what_only_posix_has():
    ran = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith("twotowers ")
