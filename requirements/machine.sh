#!/bin/sh
# Prints the Python to build .venv with, or says which package this machine lacks.
set -u

refuse() {
    echo "Lethe cannot be set up here: $1" >&2
    exit 1
}

[ "$(uname -s)" = Linux ] || refuse "it needs Linux (this is $(uname -s)); use the container image"
[ "$(uname -m)" = x86_64 ] || refuse "its data wheels are for x86-64 (this is $(uname -m)); use an x86-64 machine"

fits='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))'
found=
for name in python3 python3.14 python3.13 python3.12 python3.11; do
    if "$name" -c "$fits" 2>/dev/null; then
        found=$name
        break
    fi
done
if [ -z "$found" ]; then
    have=$(python3 --version 2>/dev/null || echo "no python3")
    refuse "it needs Python 3.11 to 3.14 and found $have; install python3 and python3-venv (Debian, Ubuntu), python3.12 (Fedora, RHEL) or python312 (openSUSE)"
fi

"$found" -c 'import venv, ensurepip' 2>/dev/null ||
    refuse "$found lacks venv; install python3-venv (Debian, Ubuntu: the one of your version, such as python3.12-venv)"

"$found" -c 'import platform, sys; name, version = platform.libc_ver(); sys.exit(name != "glibc" or tuple(map(int, version.split(".")[:2])) < (2, 28))' ||
    refuse "it needs glibc 2.28 or newer (Debian 10, Ubuntu 20.04, RHEL 8 and later; not musl)"

"$found" -c 'import ctypes; ctypes.CDLL("libz.so.1")' 2>/dev/null ||
    refuse "Postgres needs libz.so.1; install zlib1g (Debian, Ubuntu) or zlib (Fedora, RHEL, openSUSE)"

command -v "$found"
