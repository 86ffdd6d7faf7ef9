#!/usr/bin/env python3
"""This crate and its peers on the same inputs, in one run, in turn.

    python3 benches/peers/run.py [--data FOLDER] [--model FILE] [--only lasso,omp,convolution,epoch,unrolled] [--quick]

See README.md beside this file for what is compared and how; its tables are what this program wrote.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TASKS = ["lasso", "omp", "convolution", "epoch", "unrolled"]
LIBRARIES = ["spams", "pytorch", "scikit-learn"]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--data", type=Path, help="folder with mnist/ (IDX files) and images/Set12, images/Train400; default: drawn digits"
    )
    parser.add_argument("--model", type=Path, help="model of preset mnist; default: one is learned and kept in --work")
    parser.add_argument("--only", default=",".join(TASKS), help="some of " + ",".join(TASKS))
    parser.add_argument("--contenders", default=",".join(LIBRARIES), help="who competes in lasso and omp, some of " + ",".join(LIBRARIES))
    parser.add_argument("--quick", action="store_true", help="few signals, small images: whether it works, not how fast")
    parser.add_argument("--out", type=Path, help="folder of results.json and README.md; default: beside this file, with --device below --work")
    parser.add_argument("--work", type=Path, default=ROOT / "target/peers", help="inputs, logs, environment")
    parser.add_argument("--environment", type=Path, help="Python environment; made if missing; default: below --work")
    parser.add_argument("--this-python", action="store_true", help="use the Python that runs this, with whatever versions it has")
    parser.add_argument("--built", type=Path, help="this crate's contender, built before; default: it is built")
    parser.add_argument("--device", help="device of this crate, a GPU's: cuda, vulkan, wgpu; PyTorch then takes cuda")
    parser.add_argument("--rounds", type=int, help="repetitions of everybody; default 5, quick 2")
    parser.add_argument("--signals", type=int, help="digits of lasso and omp; default 10000, quick 600")
    parser.add_argument("--omp-atoms", type=int, help="omp over so many atoms that are drawn, in place of the model's")
    parser.add_argument("--batch", type=int, default=256, help="signals of unrolled; default 256")
    parser.add_argument("--eager", action="store_true", help="unrolled without torch.compile, which takes minutes")
    parser.add_argument("--presets", default="mnist,natural", help="models of unrolled; default mnist,natural")
    parser.add_argument("--most-seconds", type=float, help="length of a repetition beyond which fewer signals are given")
    parser.add_argument("--images", default=None, help="sizes of images, default 256,512, quick 64")
    parser.add_argument("--banks", default=None, help="filters x side, default 32x8,96x11, quick 16x8")
    args = parser.parse_args()
    args.only = args.only.split(",")
    args.presets = args.presets.split(",")
    args.contenders = args.contenders.split(",")
    unknown = set(args.only) - set(TASKS)
    if unknown:
        parser.error(f"--only: expected some of {','.join(TASKS)}, found {','.join(sorted(unknown))}")
    unknown = set(args.contenders) - set(LIBRARIES)
    if unknown:
        parser.error(f"--contenders: expected some of {','.join(LIBRARIES)}, found {','.join(sorted(unknown))}")
    unknown = set(args.presets) - {"mnist", "natural"}
    if unknown:
        parser.error(f"--presets: expected some of mnist,natural, found {','.join(sorted(unknown))}")
    if args.batch < 1:
        parser.error(f"--batch: expected at least 1, found {args.batch}")
    args.rounds = args.rounds or (2 if args.quick else 5)
    args.signals = args.signals or (600 if args.quick else 10000)
    args.most_seconds = args.most_seconds or (5.0 if args.quick else 60.0)
    args.images = [int(size) for size in (args.images or ("64" if args.quick else "256,512")).split(",")]
    banks = (args.banks or ("16x8" if args.quick else "32x8,96x11")).split(",")
    args.banks = [tuple(int(number) for number in bank.split("x")) for bank in banks]
    args.work = args.work.resolve()
    args.work.mkdir(parents=True, exist_ok=True)
    # The tables beside this file are those of the host.
    args.out = (args.out or (args.work / "quick" if args.quick else args.work / args.device if args.device else HERE)).resolve()
    args.environment = (args.environment or args.work / "environment").resolve()
    for name in ("data", "model", "built"):
        if getattr(args, name):
            setattr(args, name, getattr(args, name).resolve())
    return args


def python_of(environment):
    return environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def make_environment(folder):
    """A virtual environment with exactly the versions of requirements.txt, made or completed where it is not so already."""
    wanted = HERE / "requirements.txt"
    pins = dict(line.split("==") for line in wanted.read_text().split() if "==" in line)
    ask = "import importlib.metadata as m, sys; print(all(m.version(n) == v for n, v in {}.items()))".format(pins)
    python = python_of(folder)
    if python.exists():
        found = subprocess.run([python, "-c", ask], capture_output=True, text=True)
        if found.stdout.strip() == "True":
            return python
    else:
        venv.create(folder, with_pip=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", wanted], check=True)
    return python


def build(device):
    """This crate's contender and its program, optimised."""
    features = "autodiff" if device is None else f"autodiff,{device}"
    command = ["cargo", "build", "--release", "--features", features, "--example", "peers_ours", "--bin", "mlcsc"]
    subprocess.run(command, cwd=ROOT, check=True)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return target / "release/examples/peers_ours"


def output_of(*command):
    """What a program prints; nothing if there is no such program."""
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    except OSError:
        return ""


def machine(device):
    """What the numbers depend on besides the programs."""
    model = platform.processor() or platform.machine()
    flags = ""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                model = value.strip()
            if name.strip() == "flags":
                flags = value
    except OSError:
        pass
    vector = "AVX-512" if "avx512f" in flags else "AVX2" if "avx2" in flags else "other"
    if device is not None:
        model = f"{device} on {output_of('nvidia-smi', '--query-gpu=name,driver_version', '--format=csv,noheader')}, {model}"
    return {
        "processor": model,
        "vectors": vector,
        "cores": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "rustc": output_of("rustc", "--version"),
    }


def main():
    args = arguments()
    python = Path(sys.executable) if args.this_python else make_environment(args.environment)
    if not args.this_python and Path(sys.prefix).resolve() != args.environment:
        # Everything below needs numpy; go on in the environment that has it.
        forwarded = [*sys.argv[1:], "--environment", str(args.environment)]
        os.execv(python, [str(python), str(Path(__file__).resolve()), *forwarded])
    ours = args.built or build(args.device)

    import tasks
    from arena import Arena
    from report import write_report

    arena = Arena(args, HERE, ours, python)
    results = {}
    try:
        about = {"machine": machine(args.device), **tasks.rates(arena)}
        for name in args.only:
            started = time.monotonic()
            cases = getattr(tasks, name)(arena)
            arena.close()
            results[name] = {
                **about,
                "versions": arena.versions,
                "data": tasks.describe_data(args),
                "quick": args.quick,
                "rounds": args.rounds,
                "minutes": round((time.monotonic() - started) / 60, 1),
                "cases": cases,
            }
            # After every task, so that an interruption loses no more than one.
            write_report(args.out, results)
    finally:
        arena.close()


if __name__ == "__main__":
    main()
