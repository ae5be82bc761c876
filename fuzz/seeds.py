#!/usr/bin/env python3
"""Makes a seed corpus for every target from traces of small programs: seeds.py [LIBRARY]

LIBRARY is target/release/libmtr.so unless it is given. Programs run to their end and are killed, in
both formats; the logs in tests/cases (of every glibc) are added. Each seed goes to corpus/TARGET.
"""

import glob
import hashlib
import os
import re
import struct
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.realpath(__file__))
ROOT = os.path.dirname(HERE)
# tests/programs, and their arguments.
PROGRAMS = [("record_kinds.c", []), ("odd_requests.c", []), ("fork_with_threads.c", ["2"]),
            ("one_after_another.c", []), ("mismatches.cpp", []), ("wrong_frees.c", []),
            ("short_threads.c", []), ("panics.rs", [])]
KILLED = 'perl -e \'my @a = (1..2000); fork; kill "KILL", $$\''
HEADER, NUMBERS, BLOCKS, UNUSED = 64, 64, 4096, b"\xff" * 8
LARGEST = 60_000


def save(target, seed):
    if len(seed) <= LARGEST:
        folder = os.path.join(HERE, "corpus", target)
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, hashlib.sha1(seed).hexdigest()), "wb") as file:
            file.write(seed)


def squeezed(log, tail):
    """A log and its tail as the target `tail` takes them: blocks without the NULs at their end."""
    size, count = struct.unpack_from("<II", tail, 16)
    is_trace = tail.startswith(b"MTRTAIL2")
    seed = struct.pack("<I", len(log)) + log + tail[:NUMBERS]
    for index in range(count):
        block = tail[BLOCKS + size * index:BLOCKS + size * (index + 1)].rstrip(b"\0")
        number = tail[NUMBERS + 8 * index:NUMBERS + 8 * index + 8] if not is_trace else UNUSED
        if is_trace and not block:
            break
        seed += number + struct.pack("<H", len(block)) + block
    return seed


def without_modules(trace):
    """The modules of it, and debug files of theirs, are not there: to read them would take all the
    time."""
    for folder in (b"/usr/", b"/lib/", b"/lib64/", b"/nix/"):
        trace = trace.replace(folder, b"/" + b"?" * (len(folder) - 2) + b"/")
    return re.sub(rb" [0-9a-f]{40} ", b" " + b"0" * 40 + b" ", trace)


def save_trace(path):
    with open(path, "rb") as file:
        bytes = file.read()
    tail = b""
    if os.path.exists(path + ".tail"):
        with open(path + ".tail", "rb") as file:
            tail = file.read()
        save("tail", squeezed(bytes, tail))
        # The same as if nothing had been written yet.
        save("tail", squeezed(b"", tail))
    save("report", without_modules(bytes))
    if bytes.startswith(b"mtr\x02"):
        save("compact_trace", bytes)
        save("compact_records", bytes[HEADER:])
    else:
        save("mtrace_text", b"\x40" + bytes)
    if bytes and not tail:
        fields = struct.pack("<8sQIIQi", b"MTRTAIL2", 0, 32768, 0, 1, 28).ljust(NUMBERS, b"\0")
        save("tail", struct.pack("<I", len(bytes)) + bytes + fields)


def run(command, work, library):
    for trace_format in ("compact", "mtrace"):
        with tempfile.TemporaryDirectory(dir=work) as folder:
            environment = os.environ | {"LD_PRELOAD": library, "MTR_TRACE_FORMAT": trace_format,
                                        "MTR_OUTPUT": os.path.join(folder, "t")}
            subprocess.run(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            for path in glob.glob(os.path.join(folder, "t*")):
                if not path.endswith(".tail"):
                    save_trace(path)


def main():
    library = os.path.realpath(sys.argv[1] if sys.argv[1:] else f"{ROOT}/target/release/libmtr.so")
    compilers = {".c": ["cc", "-pthread"], ".cpp": ["c++", "-pthread"], ".rs": ["rustc"]}
    with tempfile.TemporaryDirectory() as work:
        for source, arguments in PROGRAMS:
            stem, suffix = os.path.splitext(source)
            program = os.path.join(work, stem)
            command = compilers[suffix] + ["-o", program, f"{ROOT}/tests/programs/{source}"]
            if subprocess.run(command, stderr=subprocess.DEVNULL).returncode == 0:
                run([program, *arguments], work, library)
            else:
                print(f"not compiled: {source}")
        run(["sh", "-c", KILLED], work, library)
    for path in glob.glob(f"{ROOT}/tests/cases/**/*", recursive=True):
        if os.path.isfile(path) and not path.endswith(".md"):
            with open(path, "rb") as file:
                bytes = file.read()
            save("mtrace_text", b"\x40" + bytes)
            save("report", without_modules(bytes))
    for target in sorted(os.listdir(os.path.join(HERE, "corpus"))):
        print(f"{target}: {len(os.listdir(os.path.join(HERE, 'corpus', target)))} seeds")


if __name__ == "__main__":
    main()
