#!/usr/bin/env bash
# Learning by several processes on MPI, on one machine: the model of one process to rounding, the same to the last bit at equal numbers of
# processes, whether or not the run was interrupted and resumed, and one line where something is wrong. It wants a program built with the
# feature mpi, and its name; and, if there is one, that of a program without. As root in a container it needs no more than Debian's
# openmpi-bin.
#
#     cargo build --features mpi && bash tests/mpi.sh target/debug/mlcsc [PROGRAM WITHOUT MPI]
set -euo pipefail

mlcsc=$(realpath "$1")
without=${2:+$(realpath "$2")}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
# Ranks share the cores.
export RAYON_NUM_THREADS=1 OMPI_MCA_btl_vader_single_copy_mechanism=none
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

# Interrupted, Open MPI waits for so many seconds, tells its processes to end, waits again, and kills them.
launch=(mpirun --quiet --oversubscribe --mca odls_base_sigkill_timeout 4)

# on N COMMAND…: so many processes.
on() {
    local processes=$1
    shift
    "${launch[@]}" -n "$processes" "$@"
}

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

# apart A B: the largest difference of two files of floats, as exported filters.
apart() {
    cmp -s <(head -c 128 "$1") <(head -c 128 "$2") || fail "$1 and $2 have different shapes"
    paste <(od -An -v -t f4 -w4 -j 128 "$1") <(od -An -v -t f4 -w4 -j 128 "$2") |
        awk '{ d = $1 - $2; if (d < 0) d = -d; if (d > most) most = d } END { printf "%.3g\n", most + 0 }'
}

# configured COUNT EPOCHS FILE: a short run, with initial dictionaries that are hardly learned.
configured() {
    "$mlcsc" train --data digits --count "$1" --preset small --epochs "$2" --batch-size 100 --print-config |
        sed 's/"steps": 100/"steps": 5/' > "$3"
    grep -q '"steps": 5' "$3" || fail 'the configuration has other steps'
}

configured 420 2 short.json
train=(train --config short.json --no-report)

"$mlcsc" "${train[@]}" --out one > one.txt 2> /dev/null
for processes in 2 3; do
    on "$processes" "$mlcsc" "${train[@]}" --out "of$processes" --json > "of$processes.json" 2> "of$processes.txt"
    [ "$(grep -c '^training on' "of$processes.txt")" -eq 1 ] || fail "not one process of $processes spoke: $(cat "of$processes.txt")"
    [ "$(wc -l < "of$processes/metrics.jsonl")" -eq "$(wc -l < one/metrics.jsonl)" ] || fail "other records than of one process"
    for layer in 1 2 3; do
        found=$(apart "one/pictures/W_$layer.npy" "of$processes/pictures/W_$layer.npy")
        awk -v found="$found" 'BEGIN { exit !(found < 1e-4) }' || fail "filters of layer $layer with $processes processes: $found apart"
        echo "$processes processes, layer $layer: filters at most $found from those of one process"
    done
    grep -o '"exchanged": {[^}]*}' <(tr -d '\n' < "of$processes.json") | tr -s ' '
done

on 2 "$mlcsc" "${train[@]}" --out again > /dev/null 2> again.txt
cmp of2/model.safetensors again/model.safetensors || fail 'two runs of 2 processes differ'
echo '2 processes twice: the same model to the last bit'

# As by Ctrl-C: the launcher sends SIGTERM to every process.
# Long enough for the seconds that it waits, on fast machines too.
configured 2000 20 long.json
long=(train --config long.json --no-report)
on 2 "$mlcsc" "${long[@]}" --out whole > /dev/null 2> whole.txt
status=0
"${launch[@]}" -n 2 "$mlcsc" "${long[@]}" --out parts > /dev/null 2> parts.txt &
launcher=$!
for _ in $(seq 600); do
    [ "$(cat parts/metrics.jsonl 2> /dev/null | wc -l)" -ge 2 ] && break
    sleep 0.1
done
kill -INT "$launcher"
wait "$launcher" || status=$?
[ "$status" -ne 0 ] || fail 'an interrupted run ended as if it were done'
[ "$(grep -c '^error: interrupted' parts.txt)" -eq 1 ] || fail "not one line about the interruption: $(cat parts.txt)"
[ "$(ls parts/checkpoint* | wc -l)" -eq 1 ] || fail 'not one checkpoint'
grep '^error' parts.txt
on 2 "$mlcsc" train --resume --out parts --no-report > /dev/null 2> resumed.txt
cmp whole/model.safetensors parts/model.safetensors || fail 'a resumed run differs from one that was left alone'
echo '2 processes, interrupted and resumed: the model of a run that was left alone, to the last bit'

# refused SAID CODE COMMAND…: one line that says so, and that exit code.
refused() {
    local said=$1 code=$2 status=0
    shift 2
    on 3 "$@" > refused.out 2> refused.txt || status=$?
    [ "$status" -eq "$code" ] || fail "exit code $status instead of $code: $*: $(cat refused.txt)"
    [ "$(grep -c '^error' refused.txt)" -eq 1 ] && grep -q -- "$said" refused.txt || fail "not one line on $said: $(cat refused.txt)"
    [ ! -s refused.out ] || fail "something on stdout: $*"
    grep '^error' refused.txt
}

refused 'no such path' 2 "$mlcsc" train --data nowhere --out none
refused '--method' 2 "$mlcsc" "${train[@]}" --method unrolled --out none
refused 'number of processes' 2 "$mlcsc" train --model top-k --data digits --count 300 --out none
refused '--epochs' 2 "$mlcsc" train --epochs 0 --out none
refused 'a folder without a run' 2 "$mlcsc" "${train[@]}" --out one
if [ -n "$without" ]; then
    refused 'without the feature mpi' 2 "$without" "${train[@]}" --out none
fi
[ ! -e none ] || fail 'a run that was refused left a folder'

# One process that cannot read what the others can.
cat > one_fails.sh <<'S'
[ "$OMPI_COMM_WORLD_RANK" -ne 1 ] || cd elsewhere
exec "$@"
S
mkdir elsewhere
"$mlcsc" sample --model one/model.safetensors --count 200 --nonzeros 3 --out drawn > /dev/null
refused 'no such path' 2 bash one_fails.sh "$mlcsc" train --data drawn/signals.npy --out "$scratch/none" --epochs 1
# Processes that were given other signals than the first one, or other settings.
"$mlcsc" sample --model one/model.safetensors --count 200 --nonzeros 3 --seed 5 --out elsewhere/drawn > /dev/null
refused 'signals of rank 1' 1 bash one_fails.sh "$mlcsc" train --data drawn/signals.npy --out "$scratch/none" --epochs 1
"$mlcsc" sample --model one/model.safetensors --count 150 --nonzeros 3 --out elsewhere/drawn > /dev/null
refused 'signals of rank 1' 1 bash one_fails.sh "$mlcsc" train --data drawn/signals.npy --out "$scratch/none" --epochs 1
cat > one_differs.sh <<'S'
[ "$OMPI_COMM_WORLD_RANK" -ne 1 ] || set -- "$@" --epochs 3
exec "$@"
S
refused 'settings of rank 1' 1 bash one_differs.sh "$mlcsc" train --data drawn/signals.npy --out none
[ ! -e none ] || fail 'a run that was refused left a folder'
echo 'wrong input: one line, nothing written'
