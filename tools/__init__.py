"""The tools are scripts in folders by trade, not a package: this file is here for `python3 -m unittest discover` alone.

Each folder is searched with itself on the path, as when one of its scripts runs: a new test_*.py needs no entry anywhere.
"""

import unittest
from pathlib import Path


def load_tests(loader, tests, pattern):
    for folder in sorted({path.parent for path in Path(__file__).parent.glob("*/test*.py")}):
        tests.addTests(unittest.TestLoader().discover(str(folder), pattern or "test*.py", str(folder)))
    return tests
