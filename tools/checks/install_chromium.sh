#!/bin/sh
# Prints the path of a Chromium for tools/checks/check_report.py; where there is none, installs Debian's package (as root).
set -eu
found() { command -v chromium || command -v chromium-browser || command -v google-chrome; }
found && exit
[ "$(id -u)" -eq 0 ] && command -v apt-get > /dev/null || {
  echo "install_chromium: found no Chromium; install one, or run this as root on Debian or Ubuntu" >&2
  exit 1
}
apt-get update -qq >&2
DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends chromium >&2
found
