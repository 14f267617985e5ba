"""What is sent to the far side: the shell program `far_side.sh` and the calls that follow it, and what the program for
many jobs (`app.ssh.far`) is told.

A program goes through the standard input of `COMMAND`; nothing of a job is ever in a command line, which other users of
the machine could read. In a shell's program values are words in single quotes, so they are data whatever they hold.
"""

from __future__ import annotations

import ast
import functools
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.node import jobdir, launch, shells
from app.node.launch import NotStarted

COMMAND = "exec sh -c 'eval \"$(cat)\"'"
"""Evaluates its standard input once that has ended."""
LISTENING = "exec sh -c 'IFS= read -r M_program; eval \"$M_program\"'"
"""Evaluates the first line of its standard input, which stays open."""
AGENT = "exec python3 -IS -c 'import sys;exec(eval(sys.stdin.buffer.readline()))'"
"""The same in Python, where the line is a literal."""
AGENT_SINCE = (3, 8)
"""The oldest Python that `AGENT` may be."""
AGENT_LONGEST = 1 << 20
"""Bytes of a job that is started by it."""
AGENT_OUTPUT = 16 << 20
"""The highest `output_limit` of one: it keeps half of that in memory."""
AGENT_FOR = 20.0
"""Seconds in which it may start a job that it was told of. Who waits for its answer waits for longer."""

OPENING = b"muster far side\n"
"""The line that the answers follow; what the machine's profile may have printed is before it."""
MARK = b"muster standard error\n"

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SHELLS_OWN_TEXT = """
    _ BASHOPTS BASHPID BASH_ARGC BASH_ARGV BASH_ARGV0 BASH_COMMAND BASH_LINENO BASH_SOURCE BASH_SUBSHELL
    BASH_VERSINFO BASH_VERSION DIRSTACK EPOCHREALTIME EPOCHSECONDS EUID FUNCNAME GROUPS HISTCMD IFS LINENO OLDPWD
    OPTARG OPTERR OPTIND POSIXLY_CORRECT PPID PS4 PWD RANDOM SECONDS SHELLOPTS SHLVL SRANDOM TMOUT UID
"""
_SHELLS_OWN = frozenset(_SHELLS_OWN_TEXT.split())
"""Variables that a shell takes for its own: they are set behind its back, by `env`."""
RESERVE = 16 << 20
"""Bytes that must be free on the machine for a job to start."""

_DRAIN = 2.0
_LONGEST_TICK = 1.0
_SYSTEM = ("/bin/", "/sbin/", "/usr/")
_AGENT_FILES = ("traces", "stream", "job", "telling", "guard", "agent")


@dataclass(frozen=True, slots=True)
class Ground:
    """What holds for every job of a machine.

    `base` "" stands for the default, by `installation` and `node`; `variables` are the names in the environment there;
    `leash` is in seconds.
    """

    installation: str
    node: str
    leash: float
    base: str = ""
    variables: tuple[str, ...] = ()

    def opening(self, job_id: str = "", digest: str = "") -> bytes:
        """The program up to the calls."""
        place = '"${XDG_STATE_HOME:-$HOME/.local/state}"/muster/' + f"{self.installation}/{self.node}"
        return b"".join(
            [
                _text(),
                b"M_base=%s\n" % (quoted(self.base) if self.base else place.encode()),
                b"M_secret=\nM_mark=%s\nM_output=%d\n" % (quoted(MARK.decode().strip()), jobdir.OUTPUT_LIMIT),
                b"M_bare() { unset %s; }\n" % " ".join(self._foreign()).encode(),
                about(job_id, digest),
                b"printf '\\n%%s\\n' %s\n" % quoted(OPENING.decode().strip()),
            ]
        )

    def _foreign(self) -> list[str]:
        """The variables of a session that no script is to have."""
        return [
            name
            for name in dict.fromkeys(("OLDPWD", "SHLVL", *self.variables))
            if _NAME.fullmatch(name) and name not in launch.INHERITED and name != "PWD"
        ]

    @property
    def tick(self) -> float:
        """Seconds between two looks at the bounds of a job."""
        return max(0.05, min(_LONGEST_TICK, self.leash / 8))


def about(job_id: str, digest: str) -> bytes:
    """Which job it is."""
    return b'M_id=%s\nM_digest=%s\nM_job="$M_base/jobs/$M_id"\n' % (quoted(job_id), quoted(digest or "-"))


@functools.cache
def _text() -> bytes:
    """The program without its comments."""
    lines = Path(__file__).with_name("far_side.sh").read_bytes().splitlines(keepends=True)
    return b"".join(line for line in lines if line.strip() and not line.lstrip().startswith(b"#"))


def quoted(text: str) -> bytes:
    """The text as one shell word. It must hold no NUL."""
    return b"'" + os.fsencode(text).replace(b"'", b"'\\''") + b"'"


def start(ground: Ground, job_id: str, digest: str, described: bytes) -> bytes:
    """The program that starts the job, or attaches to it where it was started before."""
    return ground.opening(job_id, digest) + described + b"M_start\n"


def described(ground: Ground, job: Mapping[str, Any], secrets: Sequence[str], longest_secret: int) -> bytes:
    """What has to be known to start the job (`app.node.told`, values put in).

    `secrets` are the values in it, of which none may be seen; `longest_secret` is what `Masker.longest` says. Raises
    `NotStarted` for what cannot be handed over.
    """
    limit, tick = job["output_limit"], ground.tick
    full, over = _ticks(job.get("timeout"), tick)
    environment, words = _environment(ground, dict(job), secrets)
    stdin = job.get("stdin")
    lines = [
        b"M_limit=%d M_tail=%d M_tick=%.3f M_full=%d M_over=%.3f"
        % (limit, longest_end(limit, longest_secret), tick, full, over),
        b"M_leash=%d M_drain=%d M_grace=%.3f"
        % (math.ceil(ground.leash / tick), math.ceil(_DRAIN / tick), job["grace"]),
        b"M_secret=%s M_fed=%s" % (b"1" if secrets else b"", b"" if stdin is None else b"1"),
        b"M_feed() { %s\n}" % (b":" if stdin is None else _put(stdin)),
        b"M_prepare() {\n%s\n}" % b" &&\n".join(_files(job)),
        b"M_launch() {\n%s\n}\n" % b"\n".join([*_directory(job), environment, *_program(job, words)]),
    ]
    return b"\n".join(lines)


def longest_end(limit: int, longest_secret: int) -> int:
    """How many bytes the machine keeps of the end of a stream that is cut: half of the output's limit, and as many as a
    secret may have that begins in what is cut."""
    return limit // 2 + longest_secret


def attach(ground: Ground, job_id: str, digest: str, has_secrets: bool) -> bytes:
    """The program that waits for the end of a job that was started before."""
    secret = b"M_secret=1\n" if has_secrets else b""
    return ground.opening(job_id, digest) + secret + b"M_attach\n"


def cancel(ground: Ground, job_id: str) -> bytes:
    """The program that ends a job, or sees to it that it never starts."""
    return ground.opening(job_id) + b"M_cancel\n"


def rest(ground: Ground, job_id: str, out: int, err: int) -> bytes:
    """The program that sends the output from these offsets on."""
    return ground.opening(job_id) + b"M_rest %d %d\n" % (out + 1, err + 1)


def ends(ground: Ground, job_id: str) -> bytes:
    """The program that sends the last bytes of what was cut."""
    return ground.opening(job_id) + b"M_ends\n"


def look(ground: Ground) -> bytes:
    """The program that says what the machine is."""
    return ground.opening() + b"M_look\n"


def greet(ground: Ground) -> bytes:
    """The program that says what is needed for the first job, and makes the place where everything is kept."""
    names = " ".join(
        dict.fromkeys([*shells.every_program(), "setsid", "sha256sum", "shasum", "openssl", "python3"])
    )
    return ground.opening() + b"M_greet %s\n" % names.encode()


def tail(base: str, job_id: str, out: int, err: int) -> bytes:
    """The line for `LISTENING` that sends output as it comes, from these offsets on, until its input ends."""
    place = quoted(f"{base}/jobs/{job_id}")
    return (
        b"cd %s && { : >_live; printf '\\n%%s\\ndata\\n' %s; echo %s >&2; tail -c +%d -f _out 2>/dev/null & a=$!;"
        b" tail -c +%d -f _err >&2 2>/dev/null & b=$!; cat >/dev/null; kill $a $b; }\n"
    ) % (place, quoted(OPENING.decode().strip()), quoted(MARK.decode().strip()), out + 1, err + 1)


def keep(base: str) -> bytes:
    """The line for `LISTENING` that takes a sign of life with each further line."""
    return b'cd %s && while IFS= read -r n; do echo "$n" >lease; done\n' % quoted(base)


def agent(ground: Ground) -> bytes:
    """What `AGENT` reads first: the program, and what holds for every job."""
    kept = [name for name in launch.INHERITED if name in ground.variables]
    settings = [ground.base, ground.leash, ground.tick, jobdir.OUTPUT_LIMIT, kept, shells.SEARCH_PATH]
    return b"%s\n%s\n" % (agent_text().encode(), json.dumps(settings).encode())


@functools.cache
def agent_text() -> str:
    """The files of `app.ssh.far` as one program, as a literal in one line."""
    body: list[ast.stmt] = []
    for name in _AGENT_FILES:
        tree = ast.parse(Path(__file__).parent.joinpath("far", f"{name}.py").read_bytes())
        # In one program they have each other's names, and what tells the future comes first.
        body += [
            _bare(one) for one in tree.body if not (isinstance(one, ast.ImportFrom) and _is_of_ours(one))
        ]
    future = ast.parse("from __future__ import annotations").body
    return ascii(ast.unparse(ast.Module([*future, *body], [])))


def _bare(one: ast.stmt) -> ast.stmt:
    """Without what is said to whoever reads it."""
    for node in ast.walk(one):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body[:1] = [] if len(node.body) > 1 else [ast.Pass()]
    return one


def _is_of_ours(one: ast.ImportFrom) -> bool:
    return (one.module or "").startswith(("app.", "__future__"))


def may_share(job: Mapping[str, Any]) -> bool:
    """May the process for many jobs start it? What that one has to wait for all of its jobs wait for: a directory or a
    program of the job's own choice may be on a file system that hangs."""
    name = (job.get("argv") or [""])[0]
    size = len(job.get("script") or "") + len(job.get("stdin") or "")
    return (
        ("/" not in name or name.startswith(_SYSTEM))
        and not job.get("cwd")
        and job["output_limit"] <= AGENT_OUTPUT
        and size <= AGENT_LONGEST
    )


def told(
    ground: Ground, job: Mapping[str, Any], digest: str, secrets: Sequence[str], longest_secret: int
) -> dict[str, Any]:
    """What `app.ssh.far.job` has to know to start a job that `may_share`; the rest as in `described`."""
    given = launch.environment_of(dict(job), "", ground.node)
    paths = {name: given.pop(name) for name in ("MUSTER_INPUT", "MUSTER_OUTPUT")}
    limit = job["output_limit"]
    found = {
        **{name: job.get(name) for name in ("id", "argv", "stdin", "timeout", "grace")},
        "digest": digest or "-",
        "limit": limit,
        "longest_end": longest_end(limit, longest_secret),
        "has_secrets": bool(secrets),
        "env": given,
        "paths": paths,
        "cwd": job.get("workdir") or None,
        "files": [["input.json", launch.input_text(dict(job)), 0o600]],
    }
    if job.get("script") is None:
        return found
    shell = shells.shell_of(job["shell"]) or shells.Shell(())
    files = shells.files_for(job["shell"], job["file"], os.fsencode(job["script"]), job["env"])
    found["files"] += [[name, os.fsdecode(data), job["mode"]] for name, data in files]
    return {**found, "programs": shell.programs, "words": shell.words, "run": files[-1][0]}


def remove(base: str, job_ids: Sequence[str]) -> bytes:
    """The program that removes what was kept of jobs that are over."""
    names = b" ".join(quoted(f"jobs/{job_id}") for job_id in job_ids)
    return b"cd %s && rm -rf -- %s\n" % (quoted(base), names)


def leftovers(base: str) -> bytes:
    """The program that names the jobs that have been over for more than a day."""
    return b"cd %s && find jobs/*/_exit -prune -type f -mtime +0 2>/dev/null\n" % quoted(base)


def _ticks(timeout: float | None, tick: float) -> tuple[int, float]:
    """After how many ticks a shorter one is the last before the timeout, and its length."""
    if timeout is None:
        return -1, tick
    full = int(timeout / tick)
    return full, max(0.001, timeout - full * tick)


def _put(text: str) -> bytes:
    if "\0" not in text:
        return b"M_put " + quoted(text)
    escaped = text.replace("\\", "\\\\").replace("%", "%%").replace("\0", "\\000")
    # What begins with `-` would be an option of printf.
    return b"printf " + quoted(f"\\055{escaped[1:]}" if escaped.startswith("-") else escaped)


def _files(job: Mapping[str, Any]) -> list[bytes]:
    lines = [b"M_put %s >input.json" % quoted(launch.input_text(dict(job)))]
    if job.get("script") is not None:
        found = shells.files_for(job["shell"], job["file"], os.fsencode(job["script"]), job["env"])
        for name, data in found:
            lines.append(
                b"%s >%s" % (_put(os.fsdecode(data)), name.encode()) + _mode(job["mode"], name.encode())
            )
    return lines


def _mode(mode: int, name: bytes) -> bytes:
    """Gives the file its mode, unless it has it: by the umask, or because it was there to be written to."""
    if mode == 0o600:
        return b""
    chmod = b"chmod %o %s" % (mode, name)
    return b" && { [ -x %s ] || %s; }" % (name, chmod) if mode == 0o700 else b" && " + chmod


def _directory(job: Mapping[str, Any]) -> list[bytes]:
    workdir = job.get("workdir")
    cwd = job.get("cwd") or workdir
    if cwd is None:
        return [b'cd "$M_job/work"']
    is_inside = not os.path.isabs(cwd)
    if is_inside and not workdir:
        raise NotStarted("cwd", f"the working directory {cwd!r} must be an absolute path")
    if is_inside:
        cwd = f"{workdir}/{cwd}"
    if "\0" in cwd:
        raise NotStarted("refused", "the job holds text that the system cannot take: embedded null byte")
    place = quoted(cwd)
    return [
        b"if ! cd -- %s 2>/dev/null; then" % place,
        b"if ! [ -e %s ]; then M_refuse cwd_missing -; elif ! [ -d %s ]; then M_refuse cwd_file -; fi"
        % (place, place),
        b"M_refuse cwd_denied -\nfi",
        *(_inside(workdir) if is_inside and workdir else ()),
    ]


def _inside(workdir: str) -> list[bytes]:
    """That the directory which was entered is not outside of the workspace, whatever links lead there."""
    return [
        b"M_real=$(cd -- %s && pwd -P)" % quoted(workdir),
        b'case $(pwd -P)/ in "$M_real"/*) ;; *) M_refuse cwd_outside - ;; esac',
    ]


def _environment(ground: Ground, job: dict[str, Any], secrets: Sequence[str]) -> tuple[bytes, list[bytes]]:
    """The lines that make the script's environment, and words for `env` where a shell cannot set a variable."""
    given = launch.environment_of(job, "", ground.node)
    exported, words = [], []
    for name, value in given.items():
        if name in ("MUSTER_INPUT", "MUSTER_OUTPUT"):
            exported.append(b'export %s="$M_job"/%s' % (name.encode(), quoted(value)))
        elif _NAME.fullmatch(name) and name not in _SHELLS_OWN:
            exported.append(b"export %s=%s" % (name.encode(), quoted(value)))
        elif any(secret and secret in value for secret in secrets):
            message = f"the variable {name} cannot be given a secret over SSH: use another name"
            raise NotStarted("refused", message)
        else:
            words.append(quoted(f"{name}={value}"))
    lines = [
        b": ${PATH:=%s}; export PATH" % shells.SEARCH_PATH.encode(),
        b"M_find env; M_env=$M_program" if words else b":",
        b"{ M_bare; } 2>/dev/null",
        b"{ %s\n} 2>/dev/null" % b"\n".join(exported),
    ]
    return b"\n".join(lines), words


def _program(job: Mapping[str, Any], words: Sequence[bytes]) -> list[bytes]:
    before = b'"$M_env" ' + b" ".join(words) + b" " if words else b""
    argv = job.get("argv")
    if argv is not None:
        name, *rest = map(quoted, argv)
        after = b"".join(b" " + word for word in rest)
        return [
            b"M_find %s" % name,
            b"case $? in 1) M_refuse not_found 127 ;; 2) M_refuse not_executable 126 ;; esac",
            b'M_become %s"$M_program"%s' % (before, after),
        ]
    shell = shells.shell_of(job["shell"])
    if shell is None:
        return [b"M_refuse no_shell -"]
    found = b" || ".join(b"M_find %s" % quoted(program) for program in shell.programs)
    after = b"".join(quoted(word) + b" " for word in shell.words)
    file = shells.names_for(job["shell"], job["file"])[-1]
    return [
        b"%s || M_refuse no_shell -" % found,
        b'M_become %s"$M_program" %s"$M_job"/%s' % (before, after, file.encode()),
    ]
