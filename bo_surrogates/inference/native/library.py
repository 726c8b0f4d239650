"""Compile a kernel on this machine, once, and load it.

The shared library is kept in the user's cache (`$XDG_CACHE_HOME` or `~/.cache`, `bo-surrogates`),
under a name made of a hash of the source, the compiler, its options and the processor's features: a
folder shared by different machines holds one library for each. A library is written under another
name and renamed, so that processes may race for it. What is loaded is code: the folder belongs to
the user alone (mode 0700), and another's is not used.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

SWITCH = "BO_SURROGATES_NATIVE"
"""Environment variable: "0" to do without the compiled kernel."""

SOURCE = Path(__file__).parent / "source"
KERNEL = SOURCE / "kernel.cpp"
RECURSION = SOURCE / "recursion.cpp"
COMPILERS = ("c++", "g++", "clang++")
OPTIONS = (
    "-O3", "-std=c++17", "-shared", "-fPIC", "-pthread",
    # Neither changes a result: nobody reads errno or the floating-point flags.
    "-fno-math-errno", "-fno-trapping-math",
    # A product and a sum become one instruction, where there is one.
    "-ffp-contract=fast",
)  # fmt: skip
# What the processor has; without, any of its family runs the result.
PROCESSOR = ("-mcpu=native",) if platform.machine() in ("arm64", "aarch64") else ("-march=native",)
COMPILE_SECONDS = 300

log = logging.getLogger(__name__)


class UnavailableError(Exception):
    """There is no compiled kernel; the message says why, and what to do."""


@cache
def library() -> ctypes.CDLL | None:
    """The kernel of small networks, built if need be; None, and one line in the log, without."""
    return available(KERNEL, "networks are evaluated by torch")


def available(source: Path, otherwise: str) -> ctypes.CDLL | None:
    """A kernel, built if need be; None, and one line in the log, where there is none.

    Args:
        source: Its file; it and what is beside it are compiled.
        otherwise: What happens without it, for the log.
    """
    if os.environ.get(SWITCH, "1").strip().lower() in ("0", "off", "false", "no"):
        log.info("%s is off: %s", SWITCH, otherwise)
        return None
    try:
        return load(find_compiler(), source=source)
    except UnavailableError as reason:
        log.warning(
            "%s, several times slower than by the compiled kernel: %s"
            " (%s=0 in the environment silences this)", otherwise, reason, SWITCH,
        )  # fmt: skip
        return None


def find_compiler() -> list[str]:
    """The command of a C++ compiler: `$CXX` if that is set, else the first found of `COMPILERS`.

    Raises:
        UnavailableError: There is none.
    """
    if sys.platform == "win32":
        raise UnavailableError("on Windows there is none; use WSL")
    given = shlex.split(os.environ.get("CXX", ""))
    for command in [given] if given else [[name] for name in COMPILERS]:
        if path := shutil.which(command[0]):
            return [path, *command[1:]]
    raise UnavailableError(
        f"CXX names {given[0]!r}, which is not found; mend or unset it"
        if given
        else f"no C++ compiler found (tried {', '.join(COMPILERS)}); install one (Debian, Ubuntu: "
        "g++; Fedora: gcc-c++; macOS: xcode-select --install) or set CXX"
    )


def load(
    compiler: Sequence[str], processor: Sequence[str] = PROCESSOR, source: Path = KERNEL
) -> ctypes.CDLL:
    """Compile a kernel, or find it compiled, and load it.

    Args:
        compiler: Command, and options to add.
        processor: Options that say which processor to compile for; if the compiler refuses them, it
            is asked again without.
        source: The kernel's file.

    Raises:
        UnavailableError: The source does not compile or the result does not load.
    """
    path = cache_folder() / f"{_key(compiler, processor, source)}.so"
    fresh = not path.exists()
    if fresh:
        _compile(compiler, processor, source, path)
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        if fresh:
            raise UnavailableError(f"the compiled kernel does not load: {error}") from error
    path.unlink(missing_ok=True)  # damaged on the disk
    return load(compiler, processor, source)


def cache_folder() -> Path:
    """Where compiled kernels are kept, private to the user; made if need be.

    Raises:
        UnavailableError: There is no place to write to.
    """
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    places = [
        Path(home) / "bo-surrogates",
        Path(tempfile.gettempdir()) / f"bo-surrogates-{_user()}",
    ]
    problems = []
    for place in places:
        try:
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = place.lstat()
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != _user():
                raise PermissionError(f"{place} is not this user's folder")
            if status.st_mode & 0o077:
                place.chmod(0o700)
            if not os.access(place, os.W_OK | os.X_OK):
                raise PermissionError(f"{place} is not writable")
        except OSError as error:
            problems.append(str(error))
        else:
            return place
    raise UnavailableError(
        f"no folder to keep it in ({'; '.join(problems)}); set XDG_CACHE_HOME to one of yours"
    )


def _user() -> int:
    return os.getuid() if hasattr(os, "getuid") else 0


def _key(compiler: Sequence[str], processor: Sequence[str], source: Path = KERNEL) -> str:
    """Changes with whatever could change the compiled code."""
    program = Path(compiler[0]).resolve()
    about = program.stat()
    digest = hashlib.sha256()
    for path in sorted(source.parent.iterdir()):
        if path.suffix in (".cpp", ".hpp"):
            digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    facts = (
        source.name, program, about.st_size, about.st_mtime_ns, *compiler[1:], *OPTIONS, *processor,
    )  # fmt: skip
    digest.update("\0".join(map(str, (*facts, _features()))).encode())
    return digest.hexdigest()[:32]


def _features() -> str:
    """What distinguishes this processor from others that run the same programs."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    names = ("model name", "flags", "Features", "CPU part")
    return "\n".join(dict.fromkeys(line for line in lines if line.startswith(names)))


def _compile(compiler: Sequence[str], processor: Sequence[str], source: Path, path: Path) -> None:
    log.info("compiling %s, once for this machine: some seconds", source.name)
    descriptor, name = tempfile.mkstemp(suffix=".so", prefix=".building-", dir=path.parent)
    os.close(descriptor)
    messages = ""
    try:
        for options in dict.fromkeys([tuple(processor), ()]):
            command = [
                compiler[0], *OPTIONS, *options, *compiler[1:],
                str(source), "-o", name,
            ]  # fmt: skip
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", timeout=COMPILE_SECONDS
            )
            if done.returncode == 0:
                os.replace(name, path)
                return
            messages = messages or done.stderr.strip()
    except (OSError, subprocess.TimeoutExpired) as error:
        messages = str(error)
    finally:
        Path(name).unlink(missing_ok=True)
    raise UnavailableError(
        f"{shlex.join(compiler)} cannot compile it; set CXX to GCC >= 9 or Clang >= 12. It said: "
        + (messages[:500] or "nothing")
    )
