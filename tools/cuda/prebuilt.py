#!/usr/bin/env python3
"""Brings kernels/prebuilt/ up to date: the compressed PTX of every kernels/*.cu, for machines with a driver but without nvcc.

    tools/cuda/prebuilt.py [--nvcc NVCC] [--all | --check [--built FOLDER]]

Compiles the sources that SOURCES there tells to have changed, with --all every one. With --check nothing is written: the
committed files are compared with a fresh build of everything, and the first line that differs is named; with --built that is
what cargo has built with NVCC set, the build script's OUT_DIR. Needs the nvcc that tools/cuda/install_nvcc.sh installs: another
release writes other PTX.
"""

import argparse
import gzip
import os
import re
import sys
import tempfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from itertools import zip_longest
from pathlib import Path

from cuda_toolkit import FLAGS, KERNELS, PREBUILT, PTX_ARCH, ROOT, compile_ptx, fail, find_nvcc, pinned_version, portable, version

SOURCES = PREBUILT / "SOURCES"
HEAD = f"""\
# What each PTX here was made from: the files of kernels/ that nvcc read, with their CRC-32; args.h as far as the others see it.
# nvcc {pinned_version()} {" ".join(FLAGS)} -arch={PTX_ARCH}
"""


def visible(args, words):
    """args.h as files with these words see it: without comments, blank lines, and structs that nothing names."""
    parts = [("", [])]  # (name of the struct, "" between structs; its lines)
    for line in args.splitlines():
        line = line.split("//")[0].rstrip()
        if not line:
            continue
        if opened := re.fullmatch(r"struct (.*) \{", line):
            parts.append((opened[1], []))
        parts[-1][1].append(line)
        if line == "};":
            parts.append(("", []))
    kept = []
    for name, lines in reversed(parts):  # a struct holds earlier ones only
        if not name or name in words:
            words = words.union(*map(words_of, lines))
            kept.append(lines)
    return "\n".join(line for lines in reversed(kept) for line in lines)


def words_of(text):
    return set(re.findall(r"[A-Za-z0-9_]+", text))


def digest(files, folder=KERNELS):
    """`FILE=CRC ...` of files of kernels/, as build/stale.rs reads it; CRC is - where there is no such file."""
    texts = {f: (folder / f).read_text() if (folder / f).is_file() else None for f in sorted(files)}
    words = set().union(*(words_of(text) for f, text in texts.items() if f != "args.h" and text is not None))
    seen = {f: visible(text, words) if f == "args.h" and text is not None else text for f, text in texts.items()}
    return " ".join(f"{f}={'-' if text is None else format(zlib.crc32(text.encode()), '08x')}" for f, text in seen.items())


def recorded(text):
    """{stem: digest} of SOURCES; nothing where the compiler or its flags were others."""
    if not text.startswith(HEAD):
        return {}
    return dict(line.split(": ", 1) for line in text[len(HEAD) :].splitlines())


def unchanged(stem, line, folder=KERNELS):
    """Whether the PTX of a source was made from the files as they are."""
    return line is not None and digest([entry.split("=")[0] for entry in line.split()], folder) == line and stem + ".cu=" in line


def difference(name, committed, fresh):
    """One line that says where two texts part, or None."""
    for number, (old, new) in enumerate(zip_longest(committed.split("\n"), fresh.split("\n")), 1):
        if old != new:
            show = lambda line: "the end of the file" if line is None else f"`{line.strip()}`"
            return f"{name} is out of date: line {number} is {show(old)}, a fresh build has {show(new)}"
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nvcc")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--all", action="store_true")
    action.add_argument("--check", action="store_true")
    parser.add_argument("--built", type=Path)
    options = parser.parse_args()
    if options.built and not options.check:
        fail("--built is what --check compares with: give both")
    sources = sorted(KERNELS.glob("*.cu"))
    record_before = SOURCES.read_text() if SOURCES.is_file() else ""
    lines = {} if options.all or options.check else recorded(record_before)
    target = lambda source: PREBUILT / f"{source.stem}.ptx.gz"
    stale = [s for s in sources if not (unchanged(s.stem, lines.get(s.stem)) and target(s).is_file())]
    nvcc = None
    if stale and not options.built:
        nvcc = find_nvcc(options.nvcc)
        if version(nvcc) != pinned_version():
            fail(f"{nvcc} is {version(nvcc)}, the prebuilt PTX is by {pinned_version()}: run tools/cuda/install_nvcc.sh")

    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool:

        def build(source):
            ptx, read = Path(folder) / f"{source.stem}.ptx", Path(folder) / f"{source.stem}.d"
            compile_ptx(nvcc, source, ptx, "-MD", "-MF", read)
            files = [Path(word) for word in read.read_text().partition(":")[2].replace("\\\n", " ").split()]
            files = {file.resolve() for file in files}
            return portable(ptx.read_text()), digest(f.name for f in files if f.parent == KERNELS)

        def built_by_cargo(source):
            image, line = options.built / target(source).name, recorded(record_before).get(source.stem)
            if not image.is_file():
                fail(f"{image} is not there: was NVCC set when cargo built it?")
            # What it reads is what SOURCES says: another header would stand in a text, which has another checksum then.
            files = [entry.split("=")[0] for entry in (line or f"{source.name}=").split()]
            return gzip.decompress(image.read_bytes()).decode(), digest(files)

        built = list(pool.map(built_by_cargo if options.built else build, stale))
    texts = [text for text, _ in built]
    lines.update({source.stem: line for source, (_, line) in zip(stale, built)})
    record = HEAD + "".join(f"{source.stem}: {lines[source.stem]}\n" for source in sources)
    fresh = {target(source): text for source, text in zip(stale, texts)}
    left_over = sorted(set(PREBUILT.glob("*")) - {target(source) for source in sources} - {SOURCES})

    problems = []
    for path, text in fresh.items():
        name = str(path.relative_to(ROOT))
        try:
            committed = gzip.decompress(path.read_bytes()).decode()
        except (OSError, EOFError, ValueError, zlib.error) as problem:
            committed = None
            problems.append(f"{name}: {problem}" if options.check else None)
        if options.check:
            problems.append(difference(name, committed, text) if committed is not None else None)
        elif committed != text:
            # An unchanged file keeps its bytes even where zlib would now compress it differently.
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
            print(f"wrote {name}")
    if options.check:
        problems.append(difference(str(SOURCES.relative_to(ROOT)), record_before, record))
    elif record_before != record:
        SOURCES.write_text(record)
        print(f"wrote {SOURCES.relative_to(ROOT)}")
    for path in left_over:
        name = str(path.relative_to(ROOT))
        if options.check:
            problems.append(f"{name} belongs to no kernels/*.cu")
        else:
            path.unlink()
            print(f"removed {name}")

    problems = [p for p in problems if p]
    if problems:
        print("\n".join(problems + ["run tools/cuda/prebuilt.py and commit what it writes"]), file=sys.stderr)
        sys.exit(1)
    how = "compared with cargo's" if options.built else "compiled"
    size = sum(target(source).stat().st_size for source in sources)
    print(f"{len(sources)} files, {size / 1e3:.0f} kB, as nvcc {pinned_version()} builds them; {len(stale)} {how}")


if __name__ == "__main__":
    main()
