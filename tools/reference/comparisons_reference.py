#!/usr/bin/env python3
"""What SciPy and statsmodels make of counts, for tests/fixtures/comparisons.json: Wilson intervals, McNemar's test exact and mid-p, the
one-sided sign test, Holm's adjustment, and Newcombe's interval of a paired difference from statsmodels' Wilson limits.

python tools/reference/comparisons_reference.py tests/fixtures/comparisons.json
"""

import argparse
import json
import math
import random
from pathlib import Path

from scipy.stats import binom, binomtest
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint


def newcombe(a, b, c, d):
    """Square-and-add with correlation (Newcombe 1998, method 10)."""
    n = a + b + c + d
    p, q = (a + b) / n, (a + c) / n
    (l1, u1), (l2, u2) = (proportion_confint(k, n, method="wilson") for k in (a + b, a + c))
    product = a * d - b * c
    if product > 0:
        product = max(product - n / 2, 0)
    root = math.sqrt((a + b) * (c + d) * (a + c) * (b + d))
    phi = product / root if root else 0.0
    reach = lambda x, y: math.sqrt(max(x * x - 2 * phi * x * y + y * y, 0.0))
    return p - q, p - q - reach(p - l1, u2 - q), p - q + reach(u1 - p, q - l2)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    draw = random.Random(0)
    counts = [(0, 1), (1, 1), (0, 100), (37, 100), (100, 100), (512, 1000), (4710, 10000), (3, 16), (427, 500)]
    counts += [(k, n) for n in (draw.randint(2, 5000) for _ in range(20)) for k in [draw.randint(0, n)]]
    pairs = [(10, 25), (0, 7), (48, 30), (121, 80), (3, 3), (1, 0), (0, 1), (250, 251), (700, 900)]
    pairs += [(draw.randint(0, 60), draw.randint(1, 60)) for _ in range(20)]
    tables = [(1, 1, 7, 12), (20, 12, 2, 16), (0, 0, 0, 9), (9, 0, 0, 0), (50, 10, 3, 37), (5, 0, 0, 5), (0, 5, 5, 0)]
    tables += [tuple(draw.randint(0, 40) for _ in range(3)) + (draw.randint(1, 40),) for _ in range(20)]
    lists = [[0.04, 0.01, 0.03, 0.5], [0.5], [0.001] * 3, [1.0, 0.0, 0.2]]
    lists += [[draw.random() ** 3 for _ in range(draw.randint(1, 30))] for _ in range(10)]
    two = lambda b, c: mcnemar([[0, b], [c, 0]], exact=True).pvalue
    mid = lambda b, c: min(1.0, 2 * binom.cdf(min(b, c), b + c, 0.5) - binom.pmf(min(b, c), b + c, 0.5))
    found = {
        "wilson": [[k, n, *proportion_confint(k, n, method="wilson")] for k, n in counts],
        "mcnemar": [[b, c, float(min(1.0, two(b, c))), float(mid(b, c))] for b, c in pairs],
        "sign": [[b, c, float(binomtest(b, b + c, 0.5, alternative="greater").pvalue)] for b, c in pairs],
        "newcombe": [[*table, *newcombe(*table)] for table in tables],
        "holm": [[p, [float(q) for q in multipletests(p, method="holm")[1]]] for p in lists],
    }
    rows = ",\n".join(f' "{name}": [\n  ' + ",\n  ".join(json.dumps(row) for row in rows) + "\n ]" for name, rows in found.items())
    out.write_text("{\n" + rows + "\n}\n")


if __name__ == "__main__":
    main()
