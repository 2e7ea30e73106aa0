"""Writes tests/fixtures/statistics.json: bounds, quantiles and p values as SciPy computes them.

python tools/reference/statistics_reference.py tests/fixtures/statistics.json
"""

import json
import sys

from scipy import stats

COUNTS = [(1, 1), (9, 10), (53, 53), (549, 1000), (550, 1000), (900, 1000), (9900, 10_000), (5156, 10_000)]
COUNTS += [(50_490, 100_000), (99_999, 100_000), (700_000, 1_000_000)]
ALPHAS = [0.05, 0.001, 1e-6]
POINTS = [(0.3, 2.5, 7.0), (0.5, 1e5, 1e5), (0.991, 99_000, 1_001), (0.7, 7e5, 3e5)]
VOTES = [(10, 0), (60, 40), (550, 450), (5165, 4835), (50_400, 49_600), (300, 1)]


def lower(k, n, alpha):
    return float(stats.binomtest(k, n).proportion_ci(1 - 2 * alpha, "exact").low)


def main():
    bounds = [[k, n, alpha, lower(k, n, alpha)] for k, n in COUNTS for alpha in ALPHAS]
    found = {
        "lower": bounds,
        "radius": [[p, float(stats.norm.ppf(p))] for *_, p in bounds if p >= 0.5],
        "fair": [[a, b, float(stats.binomtest(a, a + b).pvalue)] for a, b in VOTES],
        "beta": [[x, a, b, float(stats.beta.cdf(x, a, b))] for x, a, b in POINTS],
    }
    with open(sys.argv[1], "w") as file:
        json.dump(found, file)
        file.write("\n")


if __name__ == "__main__":
    main()
