#!/bin/sh
# Prints the path of sbatch for tools/cluster/slurm.py; where there is none, installs Debian's packages of Slurm and MUNGE (as root).
set -eu
found() { command -v slurmctld > /dev/null && command -v munged > /dev/null && command -v sbatch; }
PATH=$PATH:/usr/sbin:/sbin
found && exit
[ "$(id -u)" -eq 0 ] && command -v apt-get > /dev/null || {
  echo "install_slurm: found no Slurm; install slurm-wlm and munge, or run this as root on Debian or Ubuntu" >&2
  exit 1
}
apt-get update -qq >&2
DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends slurm-wlm munge >&2
found
