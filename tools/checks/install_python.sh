#!/bin/sh
# Installs what the checks need of Python into a virtual environment, and prints the path of its python.
#
#     "$(tools/checks/install_python.sh DIRECTORY)" -m ruff check
set -eu
[ $# -eq 1 ] || { echo "usage: $0 DIRECTORY" >&2; exit 2; }
[ -x "$1/bin/python" ] || python3 -m venv "$1"
# No browser is ever downloaded: check_report.py drives the one it is given.
PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD=1 "$1/bin/python" -m pip install --quiet --disable-pip-version-check \
    --requirement "$(dirname "$0")/requirements.txt" >&2
echo "$1/bin/python"
