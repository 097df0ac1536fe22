#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# fuzz.sh --have | fuzz SECONDS WORD | fuzz-corpus SECONDS WORD: what `make fuzz` and `make fuzz-corpus` run.
# Every target in build/fuzz/tests whose name has WORD, as many at once as there are cores. A finding is kept in
# build/fuzz/findings, shown, and makes the exit status 1.
set -eu
B=build/fuzz

if [ "$1" = --have ]; then
    echo 'int LLVMFuzzerTestOneInput(const unsigned char *d, unsigned long n) { return d && n > 1u << 30; }' |
        ${FUZZ_CC:-clang} -x c - -fsanitize=fuzzer,address,undefined -o /dev/null 2>/dev/null && exit 0
    echo "make fuzz needs clang with libFuzzer and the sanitizers' runtimes: apt-get install clang libclang-rt-dev" >&2
    exit 1
fi

mode=$1 seconds=$2 word=${3:-}
mkdir -p $B/findings $B/corpus $B/logs
export ASAN_OPTIONS=allocator_may_return_null=1:detect_leaks=1 UBSAN_OPTIONS=print_stacktrace=1

targets=
for source in tests/fuzz/fuzz_*.c; do
    name=$(basename "$source" .c)
    case $name in *"$word"*) targets="$targets ${name#fuzz_}" ;; esac
done

if [ "$mode" = fuzz-corpus ]; then
    for name in $targets; do
        rm -rf "$B/minimal/$name"
        mkdir -p "$B/minimal/$name" "$B/corpus/$name"
        $B/tests/fuzz_"$name" -merge=1 -timeout=20 "$B/minimal/$name" "tests/fuzz/corpus/$name" "$B/corpus/$name" \
            >"$B/logs/merge_$name.log" 2>&1
        echo "$name: $(ls "$B/minimal/$name" | wc -l) inputs, $(du -sb "$B/minimal/$name" | cut -f1) bytes in $B/minimal/$name"
    done
    exit 0
fi

run() {
    mkdir -p "$B/corpus/$1" "tests/fuzz/corpus/$1"
    # Sessions are long: from the start, not only when shorter ones teach nothing more.
    if $B/tests/fuzz_"$1" -len_control=$([ "$1" = frontend ] && echo 0 || echo 100) -max_total_time="$seconds" -timeout=60 -rss_limit_mb=3000 -max_len=8192 -print_final_stats=1 \
        -artifact_prefix="$B/findings/$1-" "$B/corpus/$1" "tests/fuzz/corpus/$1" >"$B/logs/fuzz_$1.log" 2>&1; then
        echo "ok   $1: $(sed -n 's/stat::number_of_executed_units: *//p' "$B/logs/fuzz_$1.log") runs in $seconds s"
    else
        echo "FAIL $1: see $B/logs/fuzz_$1.log"
        grep -m3 -E 'ERROR|runtime error|Assertion|^fuzz_|SUMMARY|Test unit written' "$B/logs/fuzz_$1.log" || true
        : >"$B/failed"
    fi
}

rm -f "$B/failed"
running=
for name in $targets; do
    run "$name" &
    running="$running $!"
    while [ "$(echo $running | wc -w)" -ge "$(nproc)" ]; do
        set -- $running
        wait "$1"
        shift
        running=$*
    done
done
wait
[ ! -e "$B/failed" ]
