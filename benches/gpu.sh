#!/usr/bin/env bash
# What is to be known of this crate on a GPU, in under eight minutes once it is built.
#
#     benches/gpu.sh build [DEVICE]          builds tests, program and contender into target/gpu; no GPU needed
#     benches/gpu.sh run [DEVICE] [FOLDER]   runs them on the machine that has the GPU; neither cargo nor a network is needed there. Tests of the
#                                            command line run where the working tree has the path that it was built in
#
# DEVICE is cuda (the default), vulkan or wgpu. FOLDER holds mnist/ and images/, as for benches/peers/run.py; without it digits are drawn. PyTorch of
# the Python that is called python3 is the peer; where there is none, this crate's own figures stand alone. Every part is cut off after the
# seconds that it is given, so that a hanging one costs no other. All that is printed also goes to target/gpu/DEVICE.log.
#
# Building for cuda links LLVM, which CubeCL's build downloads from outside the registries; benches/llvm_of_debian.sh puts Debian's in its place.
set -uo pipefail

action=${1:-}
device=${2:-cuda}
data=${3:+$(realpath "$3")}
built=target/gpu
cd "$(dirname "$0")/.." || exit 1
case $device in
cuda | vulkan | wgpu) ;;
*) action= ;;
esac

build() {
    set -e
    [ "$device" != cuda ] || bash benches/llvm_of_debian.sh || echo "CubeCL's build will download LLVM"
    mkdir -p "$built"
    cargo build --release --features "autodiff,$device" --bin mlcsc --example peers_ours
    cp target/release/mlcsc target/release/examples/peers_ours "$built/"
    local test
    for test in lib suite; do
        local which=--lib
        [ "$test" = lib ] || which="--test $test"
        # The path of a test's program is in the last of cargo's messages about it.
        # shellcheck disable=SC2086
        cp "$(cargo test --release --features "$device" $which --no-run --message-format=json |
            sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)" "$built/test_$test"
    done
}

# part SECONDS NAME COMMAND…: one part, with how it ended.
part() {
    local limit=$1 name=$2 start=$SECONDS status=0
    shift 2
    printf '\n== %s\n' "$name"
    timeout --kill-after=5 "$limit" "$@" || status=$?
    case $status in 124 | 137) printf 'cut off after %d s\n' "$limit" ;; esac
    printf -- '-- %s: exit code %d, %d s\n' "$name" "$status" "$((SECONDS - start))"
}

# tests SECONDS NAME COMMAND…: of thousands of lines of tests what failed, and how many passed until they ended or were cut off.
tests() {
    local limit=$1 log=$built/$2.txt
    shift 2
    timeout --kill-after=5 "$limit" "$@" > "$log" 2>&1 || true
    printf '%d passed, %d failed\n' "$(grep -c '^test .* ok$' "$log")" "$(grep -c '^test .* FAILED$' "$log")"
    grep -E '^test .* FAILED$|^thread .* panicked|^test result' "$log" | tail -n 60
}

run() {
    local peers=(python3 benches/peers/run.py --this-python --built "$built/peers_ours" --device "$device" --eager --presets mnist)
    [ -z "$data" ] || peers+=(--data "$data")
    local digits=digits
    [ -z "$data" ] || digits=$data/mnist
    export -f tests
    printf 'device %s\n' "$device"
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2> /dev/null || echo 'no nvidia-smi'
    export BURN_DEVICE=$device MLCSC_TEST_DEVICES=$device
    part 30 'kernels' bash -c "tests 25 kernels $built/test_lib on_gpu cube:: few::"
    local without=()
    [ -x target/release/mlcsc ] || without=(--skip cli::)
    part 75 'tests' bash -c "tests 70 suite $built/test_suite --test-threads 8 ${without[*]}"
    rm -rf "$built/run-$device"
    part 50 'an epoch of digits, preset mnist' "$built/mlcsc" train --preset mnist --data "$digits" --epochs 1 --device "$device" \
        --out "$built/run-$device"
    part 60 'lassos and greedy pursuits, 60,000 digits' "${peers[@]}" --only lasso,omp --signals 60000 --rounds 3 --most-seconds 10
    local batch
    for batch in 256 4096 65536; do
        part 40 "FISTA, 20 iterations, $batch signals" "${peers[@]}" --only unrolled --batch "$batch" --rounds 5
    done
    part 40 'a step of a TopK auto-encoder, 768 to 16,384' python3 benches/peers/top_k.py --program "$built/mlcsc" --device "$device"
    part 40 'greedy pursuits over 16,384 atoms' "${peers[@]}" --only omp --omp-atoms 16384 --signals 20000 --rounds 2 --most-seconds 8
    part 40 'a photograph, 96 filters of 11×11' "${peers[@]}" --only convolution --images 512 --banks 96x11 --rounds 2
    part 15 'profile' bash -c profile
}

# What the device spends its time on in one batch of lassos, where NVIDIA's profiler is.
profile() {
    command -v nsys > /dev/null || { echo 'no nsys'; return; }
    nsys profile --force-overwrite true --output "$built/profile" --stats=true \
        "$built/mlcsc" encode --model "$built/run-$device" --data digits --count 4096 --device "$device" 2>&1 |
        grep -A 12 'cuda_gpu_kern_sum'
}
export -f profile
export built device

case $action in
build) build ;;
run)
    for file in mlcsc peers_ours test_lib test_suite; do
        [ -x "$built/$file" ] || { echo "no $built/$file: benches/gpu.sh build $device" >&2; exit 1; }
    done
    run 2>&1 | tee "$built/$device.log"
    ;;
*)
    echo 'usage: benches/gpu.sh build|run [cuda|vulkan|wgpu] [FOLDER]' >&2
    exit 2
    ;;
esac
