"""System calls that a sandboxed child may make, by name, with their numbers on x86-64 and aarch64 (-1: not there)."""

from typing import Final

ALLOWED: Final = {
    "brk": (12, 214),
    "mmap": (9, 222),
    "munmap": (11, 215),
    "mprotect": (10, 226),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "futex": (202, 98),
    "set_robust_list": (273, 99),
    "rseq": (334, 293),
    "membarrier": (324, 283),
    "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    "clock_gettime": (228, 113),
    "gettimeofday": (96, 169),
    "clock_nanosleep": (230, 115),
    "restart_syscall": (219, 128),
    "getpid": (39, 172),
    "gettid": (186, 178),
    "getuid": (102, 174),
    "geteuid": (107, 175),
    "getgid": (104, 176),
    "getegid": (108, 177),
    "close": (3, 57),
    "getrandom": (318, 278),
    "getrusage": (98, 165),
    "sysinfo": (99, 179),
    "uname": (63, 160),
    "exit": (60, 93),
    "exit_group": (231, 94),
}

# Answered EPERM rather than by death: libraries ask these in passing, and go on without an answer.
REFUSED: Final = {
    "read": (0, 63),
    "open": (2, -1),
    "openat": (257, 56),
    "stat": (4, -1),
    "fstat": (5, 80),
    "newfstatat": (262, 79),
    "statx": (332, 291),
    "access": (21, -1),
    "faccessat": (269, 48),
    "readlink": (89, -1),
    "readlinkat": (267, 78),
    "lseek": (8, 62),
    "ioctl": (16, 29),
}

WRITE: Final = (1, 64)  # allowed to one descriptor
CLONE: Final = (56, 220)  # allowed for threads, where a decoder cannot do without
CLONE3: Final = (435, 435)  # its flags are out of sight: "does not exist", so that clone is tried
