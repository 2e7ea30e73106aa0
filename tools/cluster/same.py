"""Whether two run directories hold the same, byte for byte, but for times and the command that began them."""

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "checks"))
from crash import Failed, page


def config(path):
    """Without when and by which command the run was begun."""
    return re.sub(r"^(date|command) = .*$", "", path.read_text(), flags=re.M)


def files(folder):
    """What people see of it."""
    all_files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    return sorted(name for name in all_files if not any(part.startswith(".") for part in name.parts))


def contents(folder, name):
    special = {"report.html": lambda: page(folder), "config.toml": lambda: config(folder / name)}
    return special.get(str(name), (folder / name).read_bytes)()


def compare(one, other):
    """How many files are the same; the first that is not is an error."""
    one, other = Path(one), Path(other)
    if files(one) != files(other):
        names = ", ".join(str(name) for name in sorted(set(files(one)) ^ set(files(other))))
        raise Failed(f"{one} and {other} do not hold the same files: {names}")
    # Phases take other times; which there are must not differ.
    names = [name for name in files(one) if str(name) != "timings.json"]
    for name in names:
        if contents(one, name) != contents(other, name):
            raise Failed(f"{name} of {other} differs from that of {one}")
    return len(names)
