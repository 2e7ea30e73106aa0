#!/bin/bash
# Joins the parts of a run, and makes its pictures, checks and page on one GPU: as the end of a sweep of one process.
#SBATCH --job-name=rampart-merge
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=8
#SBATCH --time=1:00:00
exec rampart merge "$1"
