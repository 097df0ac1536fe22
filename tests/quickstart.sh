#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# quickstart.sh BUILD_DIR: the whole way once, on the sample model: compress, serve, ask, measure, stop. Ends what it started.
set -eu
build=$1
work=$(mktemp -d)
tersed=
stop() {
    if [ -n "$tersed" ]; then kill "$tersed" 2>/dev/null && wait "$tersed" || true; fi
    rm -rf "$work"
}
trap stop EXIT
trap 'exit 1' INT TERM
sample=tests/data
export TERSE_ENDPOINT="ipc://$work/tersed.sock"

title() { printf '\n== %s\n' "$1"; }
show() { printf '$ %s\n' "$*"; }
run() {
    show "$@"
    PATH="$build:$PATH" "$@"
}
# A number out of a line of JSON.
field() { "${PYTHON:-python3}" -c 'import json, sys; print("%.0f" % json.loads(sys.stdin.read().splitlines()[-1])[sys.argv[1]])' "$1"; }

# Digits that the network was not trained on: every other one to calibrate with, the rest to measure with.
"${PYTHON:-python3}" - "$sample/digits_test.npz" "$work" <<'PYTHON'
import sys
import numpy
digits = numpy.load(sys.argv[1])
numpy.savez(sys.argv[2] + "/digits_even.npz", image=digits["image"][::2])
numpy.savez(sys.argv[2] + "/digits_odd.npz", image=digits["image"][1::2], labels=digits["labels"][1::2])
PYTHON

title "Compress: an ONNX file becomes a .terse file, and what that costs is measured on digits it never saw"
run terse compress $sample/digits.onnx -o "$work/digits.terse" --low-rank 0.95 --quantize int8 \
    --calibrate "$work/digits_even.npz" --validate "$work/digits_odd.npz"
PATH="$build:$PATH" terse compress $sample/digits.onnx -o "$work/digits_before.terse" >/dev/null

title "Serve: one daemon, the model once in memory, a worker on each core"
show tersed --model digits=digits.terse --model digits_before=digits_before.terse "&"
"$build/tersed" --model "digits=$work/digits.terse" --model "digits_before=$work/digits_before.terse" \
    --listen "$TERSE_ENDPOINT" 2>"$work/log" &
tersed=$!
PATH="$build:$PATH" run terse status --connect-ms 20000 --wait-ms 20000

title "Ask: three handwritten digits through the C client (client/examples/classify.c)"
"${PYTHON:-python3}" - "$sample/digits_test.npz" "$work/three" <<'PYTHON'
import sys
import numpy
digits = numpy.load(sys.argv[1])
with open(sys.argv[2], "w") as file:
    for image in digits["image"][:3]:
        print(*image.astype(int).ravel(), file=file)
for rows in zip(*(image[0] for image in digits["image"][:3])):
    print("   " + "   ".join("".join(" .:-=+*#%@"[min(9, int(v) * 9 // 16)] * 2 for v in row) for row in rows))
print("their labels are", *digits["labels"][:3])
PYTHON
show classify digits '< three digits'
"$build/classify" digits <"$work/three"

title "Measure: before and after, one request at a time and many"
printf '%-16s %10s %12s %12s %16s\n' "model" "bytes" "p50 us" "p99 us" "64 at once, /s"
for model in digits_before digits; do
    one=$("$build/terse" bench $model -c 1 -d 2 --json)
    many=$("$build/terse" bench $model -c 64 -d 2 --json)
    printf '%-16s %10s %12s %12s %16s\n' $model "$(wc -c <"$work/$model.terse")" "$(echo "$one" | field p50_us)" \
        "$(echo "$one" | field p99_us)" "$(echo "$many" | field rate)"
done
kill "$tersed" && wait "$tersed" || true
tersed=

title "Batch: 64 requests at once with max_batch 1, 8 and 32"
printf '%-16s %12s %12s %16s\n' "max_batch" "requests/s" "p50 us" "mean batch"
for batch in 1 8 32; do
    "$build/tersed" --model "digits=$work/digits.terse" --max-batch $batch --listen "$TERSE_ENDPOINT" 2>"$work/log" &
    tersed=$!
    "$build/terse" status --connect-ms 20000 --wait-ms 20000 >/dev/null
    many=$("$build/terse" bench digits -c 64 -d 2 --json)
    printf '%-16s %12s %12s %16s\n' $batch "$(echo "$many" | field rate)" "$(echo "$many" | field p50_us)" \
        "$(echo "$many" | field mean_batch)"
    kill "$tersed" && wait "$tersed" || true
    tersed=
done
printf '\nEverything is stopped again. README.md goes on from here.\n'
