"""The description of the machine in result files."""

import os
import subprocess
import sys

import pytest

from benchmarks import machine

LINE = "7f0c6a200000-7f0c6a228000 r--p 00000000 fe:01 1835 "
GLIBC = LINE + "/usr/lib/x86_64-linux-gnu/libc.so.6\n"


@pytest.mark.parametrize(
    ("maps", "name"),
    [
        (GLIBC, "glibc"),
        (LINE + "/lib/x86_64-linux-gnu/libc-2.31.so\n", "glibc"),
        (GLIBC + LINE + "/usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4.5.10\n", "tcmalloc"),
        (GLIBC + LINE + "/usr/lib/x86_64-linux-gnu/libtcmalloc.so.4\n", "tcmalloc"),
        (LINE + "/opt/conda/lib/libjemalloc.so.2\n" + GLIBC, "jemalloc"),
        (GLIBC + LINE + "/usr/lib/libmimalloc.so.2.0\n", "mimalloc"),
        (LINE + "/lib/ld-musl-x86_64.so.1\n", "unknown"),
        # A folder or another library with a similar name is not an allocator.
        (GLIBC + LINE + "/home/me/libtcmalloc/libother.so\n", "glibc"),
        (GLIBC + LINE + "/usr/lib/notlibjemalloc.so\n", "glibc"),
    ],
)
def test_the_loaded_allocator_is_found(maps, name, tmp_path):
    path = tmp_path / "maps"
    path.write_text(maps)
    assert machine.allocator(path) == name


def test_the_allocator_is_unknown_without_a_list_of_libraries(tmp_path):
    assert machine.allocator(tmp_path / "missing") == "unknown"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc/self/maps of Linux")
def test_the_allocator_of_a_new_process():
    code = "from benchmarks import machine; print(machine.describe('cpu')['allocator'])"
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    printed = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert printed.stdout.strip() in ("glibc", "unknown")
