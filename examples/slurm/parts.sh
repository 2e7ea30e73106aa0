#!/bin/bash
# A sweep in 64 parts, one GPU each, sixteen at a time. `rampart submit --dry-run` writes such a script for a config and a folder of yours.
#
#   id=$(sbatch --parsable examples/slurm/parts.sh sweep.toml runs/imagenet)
#   sbatch --dependency=afterok:$id --kill-on-invalid-dep=yes examples/slurm/merge.sh runs/imagenet
#
# Of an array that was sent again in part only, the number of parts stays that of the run: hence `--shard I/64`, not `auto`.
#SBATCH --job-name=rampart
#SBATCH --array=1-64%16
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=8
#SBATCH --time=4:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@120
config=$1 out=$2

# Two minutes before its time is up, Slurm tells this shell (USR1): the program leaves off after its batch, and the task goes back into the
# queue. One that is cancelled leaves off, too, and stays away; one that is preempted Slurm itself puts back.
part= again=
trap 'told=1 again=1; kill -USR1 $part' USR1
trap 'told=1; kill -USR1 $part' TERM
rampart sweep --config "$config" --out "$out" --device cuda --shard "$SLURM_ARRAY_TASK_ID/64" --if-running wait --on-preempt 75 &
part=$! told=
wait $part; code=$?
# A signal ends the waiting, not the program.
while [ -n "$told" ] && [ $code -gt 128 ]; do told=; wait $part; code=$?; done
if [ $code = 75 ] && [ -n "$again" ]; then scontrol requeue "$SLURM_JOB_ID"; fi
exit $code
