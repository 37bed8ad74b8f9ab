"""The confinement of a process that reads files of strangers: it computes, and talks through open pipes.

On Linux a seccomp filter lets through the system calls of computing alone (memory, threads of its own, clocks, reading
and writing open descriptors). Every other call fails with EPERM: no file, no socket, no program, no other process can
be reached, and no memory can be made executable. The filter cannot be taken off again. Elsewhere there is no such
confinement, and ``confine`` says so.

Sources: seccomp(2), bpf's classic instructions in linux/filter.h, the system call tables of the kernel.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from typing import Literal

Confinement = Literal["seccomp", "none"]

# (x86_64, aarch64); None: the architecture has no such call. The names are the kernel's.
ALLOWED_CALLS: dict[str, tuple[int | None, int | None]] = {
    "read": (0, 63),
    "write": (1, 64),
    "readv": (19, 65),
    "writev": (20, 66),
    "close": (3, 57),
    "lseek": (8, 62),
    "fstat": (5, 80),
    "poll": (7, None),
    "ppoll": (271, 73),
    "munmap": (11, 215),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "brk": (12, 214),
    "futex": (202, 98),
    "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123),
    "set_robust_list": (273, 99),
    "rseq": (334, 293),
    "nanosleep": (35, 101),
    "clock_nanosleep": (230, 115),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "gettimeofday": (96, 169),
    "getrandom": (318, 278),
    "getrusage": (98, 165),
    "getpid": (39, 172),
    "gettid": (186, 178),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    "restart_syscall": (219, 128),
    "exit": (60, 93),
    "exit_group": (231, 94),
}
CLONE = (56, 220)  # allowed for threads
CLONE3 = (435, 435)  # its flags lie in memory: "no such call" makes the C library take clone
MAPPING = ((9, 222), (10, 226))  # mmap, mprotect: allowed for memory that is not executable
PRLIMIT = (302, 261)  # allowed for this process: another's limits would be a weapon
SECCOMP = (317, 277)
MACHINES = {"x86_64": (0, 0xC000003E), "AMD64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column, AUDIT_ARCH

LOAD_WORD = 0x20  # BPF_LD | BPF_W | BPF_ABS
IF_EQUAL = 0x15
IF_AT_LEAST = 0x35
IF_BITS = 0x45
RETURN_CODE = 0x06
AT_NUMBER = 0  # offsets in struct seccomp_data
AT_ARCHITECTURE = 4
AT_ARGUMENTS = 16
ALLOW_VERDICT = 0x7FFF0000
FAIL_VERDICT = 0x00050000  # and the errno
X32_BIT = 0x40000000
CLONE_THREAD = 0x00010000
EXECUTABLE_BIT = 4  # PROT_EXEC
SET_NO_NEW_PRIVILEGES = 38  # prctl
SET_MODE_FILTER = 1  # seccomp
ALL_THREADS = 1  # SECCOMP_FILTER_FLAG_TSYNC
INSTRUCTION = struct.Struct("<HBBI")


class Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


def filter_of(column: int, architecture: int) -> bytes:
    """The filter's instructions for one architecture."""

    def one(code: int, value: int, when: int = 0, otherwise: int = 0) -> bytes:
        return INSTRUCTION.pack(code, when, otherwise, value)

    def argument(place: int) -> bytes:
        return one(LOAD_WORD, AT_ARGUMENTS + 8 * place)  # its lower half: both machines are little-endian

    refuse = one(RETURN_CODE, FAIL_VERDICT | errno.EPERM)
    allow = one(RETURN_CODE, ALLOW_VERDICT)
    steps = [
        one(LOAD_WORD, AT_ARCHITECTURE),
        one(IF_EQUAL, architecture, 1, 0) + refuse,
        one(LOAD_WORD, AT_NUMBER),
        one(IF_AT_LEAST, X32_BIT, 0, 1) + refuse,
    ]
    for numbers in ALLOWED_CALLS.values():
        if (number := numbers[column]) is not None:
            steps.append(one(IF_EQUAL, number, 0, 1) + allow)
    steps.append(one(IF_EQUAL, CLONE3[column], 0, 1) + one(RETURN_CODE, FAIL_VERDICT | errno.ENOSYS))
    steps.append(one(IF_EQUAL, CLONE[column], 0, 4) + argument(0) + one(IF_BITS, CLONE_THREAD, 0, 1) + allow + refuse)
    steps.append(one(IF_EQUAL, PRLIMIT[column], 0, 4) + argument(0) + one(IF_EQUAL, 0, 0, 1) + allow + refuse)
    for call in MAPPING:
        steps.append(
            one(IF_EQUAL, call[column], 0, 4) + argument(2) + one(IF_BITS, EXECUTABLE_BIT, 1, 0) + allow + refuse
        )
    return b"".join([*steps, refuse])


def confine() -> Confinement:
    """Confine this process, all its threads, from now on. Returns what holds: "none" where the system has no seccomp,
    or does not let it be used."""
    known = MACHINES.get(platform.machine())
    if sys.platform != "linux" or known is None or sys.byteorder != "little":
        return "none"
    instructions = filter_of(*known)
    memory = ctypes.create_string_buffer(instructions, len(instructions))
    program = Program(len(instructions) // INSTRUCTION.size, ctypes.addressof(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        return "none"
    number = ctypes.c_long(SECCOMP[known[0]])
    if libc.syscall(number, ctypes.c_long(SET_MODE_FILTER), ctypes.c_long(ALL_THREADS), ctypes.byref(program)):
        return "none"
    return "seccomp" if _holds() else "none"


def _holds() -> bool:
    """True if the confinement can be felt: the root directory cannot be opened."""
    try:
        os.close(os.open("/", os.O_RDONLY))
    except PermissionError:
        return True
    return False
