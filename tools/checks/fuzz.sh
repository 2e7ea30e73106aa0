#!/bin/sh
# Coverage-guided fuzzing with libFuzzer, target by target, on a stable toolchain: neither nightly nor cargo-fuzz is needed, since the
# flags that instrument a program are stable; `cargo fuzz run` works as well where it is installed.
#
#     tools/checks/fuzz.sh SECONDS [TARGET...]
#
# Inputs that are worth keeping go to fuzz/work/TARGET, what ended a target to fuzz/artifacts/TARGET; the latter belongs into
# fuzz/corpus/TARGET once it is mended, where `cargo test --test hostile` reads it for ever. Exit code 1 when there is any.
set -eu
[ $# -ge 1 ] || { echo "usage: $0 SECONDS [TARGET...]" >&2; exit 2; }
seconds=$1
shift
cd "$(dirname "$0")/../../fuzz"
[ $# -gt 0 ] || set -- $(ls corpus)
host=$(rustc -vV | sed -n 's/^host: //p')
coverage="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4"
coverage="$coverage -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table"
coverage="$coverage -Cllvm-args=-sanitizer-coverage-trace-compares"
# With --target build scripts are built without the flags.
bins=""
for target in "$@"; do bins="$bins --bin $target"; done
RUSTFLAGS="$coverage -Ccodegen-units=1 --cfg fuzzing ${RUSTFLAGS:-}" cargo build --release --target "$host" $bins
failed=0
for target in "$@"; do
    mkdir -p "work/$target" "artifacts/$target"
    echo "=== $target: $seconds s"
    # One thread: libFuzzer watches what each input reaches.
    RAYON_NUM_THREADS=1 "target/$host/release/$target" "work/$target" "corpus/$target" \
        -max_total_time="$seconds" -timeout=20 -rss_limit_mb=1024 -max_len=65536 -print_final_stats=1 \
        -artifact_prefix="artifacts/$target/" >"work/$target.log" 2>&1 || { failed=1; echo "$target: see fuzz/work/$target.log"; }
    grep -E "stat::number_of_executed_units|stat::peak_rss_mb|cov: [0-9]+" "work/$target.log" | tail -n 3
done
exit "$failed"
