"""Files that come in and go out. Every file of a user, and of a model folder, is opened here.

In: a regular file within its size, read without ever waiting; a link to nothing is not an absent file. Out: never over
a file that was read, over another output, a device, a folder or a link.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Literal

from descant.errors import DescantError, OptionError

NO_WAITING = os.O_NONBLOCK if os.name == "posix" else 0
Fault = Literal["missing", "not_a_file", "too_large", "unreadable"]
Refuse = Callable[[Fault, str], DescantError]  # the kind of fault and a message -> the error to raise


def is_there(path: Path) -> bool:
    """True if the name is taken, be it by a file that cannot be read or by a link to nothing."""
    return os.path.lexists(path)


def read_file(path: str | Path, limit: int, refuse: Refuse, too_large: str = "Is it the right file?") -> bytes:
    """The bytes of a file of at most ``limit``. Raises what ``refuse`` makes; too_large: the advice for a larger one.

    The file is opened before it is looked at, so that nothing can be put in its place, and without waiting: a pipe, a
    device and a log of the kernel are refused at once.
    """
    try:
        descriptor = os.open(Path(path).expanduser(), os.O_RDONLY | NO_WAITING)
        try:
            status = os.fstat(descriptor)
            check_regular(path, status, refuse)
            with open(descriptor, "rb", closefd=False) as file:
                data = file.read(limit + 1) if status.st_size <= limit else b""
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        if is_there(Path(path)):
            raise refuse("unreadable", f"{path} is a link to a file that is not there. Fetch the file again.") from None
        raise refuse("missing", f"there is no file {path} (now in {Path.cwd()}). Check the path.") from None
    except (OSError, ValueError, RuntimeError) as error:  # no rights; a NUL in the name; no home folder
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise refuse("unreadable", f"{path} cannot be read: {why}. Check the path and its rights.") from None
    size = max(status.st_size, len(data or b""))
    if size > limit:
        raise refuse("too_large", f"{path} has {size:,} bytes; at most {limit:,} are read. {too_large}")
    return data


def check_regular(path: str | Path, status: os.stat_result, refuse: Refuse) -> None:
    """Refuse what is no regular file."""
    if stat.S_ISREG(status.st_mode):
        return
    kind = "a directory" if stat.S_ISDIR(status.st_mode) else "a pipe or device"
    raise refuse("not_a_file", f"{path} is {kind}; expected a file.")


def check_file(path: Path, refuse: Refuse) -> None:
    """Refuse a path that a library is to open by itself, unless it is a regular file."""
    try:
        check_regular(path, path.stat(), refuse)
    except (OSError, ValueError) as error:
        raise refuse("unreadable", f"{path} cannot be read: {error}. Fetch the file again.") from None


def check_output(path: Path, option: str, inputs: Iterable[str | Path] = (), outputs: Iterable[Path] = ()) -> None:
    """Refuse to write to ``path``, before anything is made, unless it is a new or a regular file, a pipe or /dev/null.

    inputs, outputs: other files of the same command, none of which it may be. OptionError names ``option``.
    """

    def refused(why: str) -> OptionError:
        return OptionError(f"cannot write {option} {path}: {why}")

    try:
        if path.is_symlink():
            raise refused(f"it is a link to {path.readlink()}; name that file, or another one")
        if not path.parent.is_dir():
            raise refused(f"there is no folder {path.parent}; make it first")
        for other in [*inputs, *outputs]:
            if same_file(path, Path(other)):
                use = "is read" if other in [*inputs] else "is written to as well"
                raise refused(f"the same file {use}; name another file")
        if not path.exists():
            if not os.access(path.parent, os.W_OK):
                raise refused(f"the folder {path.parent} cannot be written to; name a file elsewhere")
            return
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise refused(f"it is a folder; name a file, such as {path / 'answer.wav'}")
        if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode) or path == Path(os.devnull)):
            raise refused("it is a device; name a file")
        if not os.access(path, os.W_OK):
            raise refused("there is no right to change it; name another file")
    except (OSError, ValueError) as error:
        raise refused(f"{error}; name another file") from None


def same_file(one: Path, other: Path) -> bool:
    """True if two paths are one file, be it by a link or by another way to write it."""
    with suppress(OSError, ValueError, RuntimeError):
        other = other.expanduser()
        if one.resolve() == other.resolve():
            return one != Path(os.devnull)
        return one.exists() and other.exists() and one.samefile(other)
    return False


def open_output(path: Path, option: str) -> BinaryIO:
    """A file to write to, emptied. It does not wait: a pipe that nobody reads is refused. OptionError names both."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | NO_WAITING, 0o666)
    except OSError as error:
        why = "nobody reads this pipe; start its reader first" if error.errno == errno.ENXIO else error.strerror
        raise OptionError(f"cannot write {option} {path}: {why}; name another file") from None
    if os.name == "posix":
        os.set_blocking(descriptor, True)
    return os.fdopen(descriptor, "wb")
