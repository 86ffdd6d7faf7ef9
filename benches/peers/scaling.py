#!/usr/bin/env python3
"""How time and memory of this crate grow: with signals, atoms, images, batches, on one thread and on all.

    python3 benches/peers/scaling.py [--data FOLDER] [--quick] [--only signals,atoms,images,files,batches]

Every point is a process of its own, so that its memory is that point's. Pictures and scaling.json are written beside this file.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import run

HERE = Path(__file__).resolve().parent
SWEEPS = {
    # What is counted, sizes, relative duality gap asked for.
    "signals": ("signals over 1024 atoms", [1000, 3000, 10000, 30000, 60000], 1e-4),
    "atoms": ("atoms, for 2000 signals", [256, 512, 1024, 2048, 4096], 1e-4),
    "images": ("side of the image, 32 filters 8x8", [128, 256, 512, 1024], 1e-2),
    # The program, which reads, codes and writes batch by batch; "signals" calls the library with all of them at once.
    "files": ("signals from a file to a file, over 1024 atoms", [1000, 3000, 10000, 30000, 60000], 1e-4),
    "batches": ("signals of a batch, for 4096 signals", [1, 4, 16, 64, 256, 1024, 4096], 1e-4),
}
QUICK = {"signals": [100, 200], "atoms": [64, 128], "images": [48, 96], "batches": [16, 64],
         "files": [100, 200]}
BEGIN, END = "<!-- scaling: written by scaling.py -->", "<!-- end of scaling -->"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, help="as of run.py; default: drawn digits")
    parser.add_argument("--only", default=",".join(SWEEPS), help="some of " + ",".join(SWEEPS))
    parser.add_argument("--quick", action="store_true", help="small sizes: whether it works")
    parser.add_argument("--out", type=Path, help="folder of the results; default: beside this file")
    parser.add_argument("--work", type=Path, default=run.ROOT / "target/peers")
    parser.add_argument("--environment", type=Path, help="as of run.py")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--most-seconds", type=float, default=120, help="length of a repetition that ends a sweep")
    args = parser.parse_args()
    args.only = args.only.split(",")
    if set(args.only) - set(SWEEPS):
        parser.error(f"--only: expected some of {','.join(SWEEPS)}")
    args.work = args.work.resolve()
    args.work.mkdir(parents=True, exist_ok=True)
    args.environment = (args.environment or args.work / "environment").resolve()
    args.out = (args.out or (args.work / "quick" if args.quick else HERE)).resolve()
    return args


def own_memory(process):
    """Bytes that are no pages of files; 0 where the process has just ended."""
    try:
        found = re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    except OSError:
        found = None
    return 1024 * int(found[1]) if found else 0


def main():
    args = arguments()
    python = run.make_environment(args.environment)
    if Path(sys.prefix).resolve() != args.environment:
        os.execv(python, [str(python), str(Path(__file__).resolve()), *sys.argv[1:], "--environment",
                          str(args.environment)])
    import numpy as np

    import inputs
    import tasks
    from process import Contender

    ours = [str(run.build())]
    folder = args.work / "inputs"
    folder.mkdir(exist_ok=True)
    # Nothing is computed in this one but drawn.
    helper = Contender(ours, HERE, args.work / "scaling-log.txt")
    sizes = QUICK if args.quick else {name: values for name, (_, values, _) in SWEEPS.items()}
    largest = 2 * max(sizes["signals"] + sizes["atoms"])
    digits = np.load(inputs.digits(helper, tasks.digits_source(args), "train", largest,
                                   folder / f"scaling-{tasks.key(args)}-{largest}.npy"))

    def dictionary(atoms):
        """Digits of unit norm as atoms: as alike as those of a dictionary that was learned from digits."""
        chosen = digits[len(digits) - atoms :]
        norms = np.sqrt((chosen**2).sum((1, 2, 3), keepdims=True))
        return inputs.saved(folder / f"scaling-atoms-{atoms}.npy", chosen / norms)

    def dense(signals, atoms, batch=None):
        # More signals than there are digits are digits again.
        chosen = digits[np.arange(signals) % (len(digits) - atoms)]
        path = dictionary(atoms)
        weights = inputs.relative_weights(np.load(path).reshape(atoms, -1), chosen, 0.2)
        return {"dictionary": str(path), "signals": str(inputs.saved(folder / "scaling-signals.npy", chosen)),
                "lambda": str(inputs.saved(folder / "scaling-weights.npy", weights)), "batch": batch}

    def image(side):
        photographs = tasks.images_folder(args, "Set12")
        known = [image for image in (inputs.images(photographs) if photographs else {}).values()
                 if image.shape == (512, 512)]
        # A photograph, repeated where it is too small.
        picture = np.tile(known[0], (2, 2))[:side, :side] if known else inputs.mosaic(digits, side)
        picture = (picture - picture.mean())[None, None].astype(np.float32)
        filters = inputs.saved(folder / "scaling-filters.npy", inputs.gabor(32, 8))
        return {"dictionary": str(filters), "signals": str(inputs.saved(folder / "scaling-image.npy", picture)),
                "lambda": str(inputs.saved(folder / "scaling-weight.npy", np.array([0.1], np.float32)))}

    program = str(Path(ours[0]).parents[1] / "mlcsc")

    def from_file_to_file(signals, threads, settings):
        """What one run of the program takes, start, reading and writing included."""
        problem = dense(signals, min(1024, max(sizes["signals"])))
        model, codes = folder / "scaling-model.safetensors", folder / "scaling-codes.safetensors"
        shape = "x".join(str(extent) for extent in digits.shape[1:])
        subprocess.run([program, "import", "--filters", problem["dictionary"], "--strides", "1", "--input-shape", shape,
                        "--out", str(model)], check=True, capture_output=True)
        command = [program, "encode", "--model", str(model), "--data", problem["signals"], "--split", "all",
                   "--lambda-relative", "0.2", "--gap", str(settings["gap"]), "--out", str(codes), "--json"]
        start, most = time.monotonic(), 0
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                   env={**os.environ, "RAYON_NUM_THREADS": str(threads)})
        while process.poll() is None:
            # Pages of the files that it maps are the system's, which takes them back when it likes.
            most = max(most, own_memory(process.pid))
            time.sleep(0.002)
        seconds = time.monotonic() - start
        if process.returncode:
            raise SystemExit(f"{' '.join(command)}: ended with {process.returncode}")
        said = json.loads(process.stdout.read())
        return {"seconds": seconds, "bytes": most, "algorithm": said["algorithm"],
                "iterations": said["mean_iterations"], "nonzeros": said["mean_nonzeros"]}

    problems = {
        "signals": lambda signals: dense(signals, min(1024, max(sizes["atoms"]))),
        "atoms": lambda atoms: dense(min(2000, max(sizes["signals"])), atoms),
        "images": image,
        "batches": lambda batch: dense(min(4096, max(sizes["signals"])), min(1024, max(sizes["atoms"])), batch),
    }
    path = args.out / "scaling.json"
    args.out.mkdir(parents=True, exist_ok=True)
    results = json.loads(path.read_text()) if path.exists() else {}
    cores = len(os.sched_getaffinity(0))
    for sweep in args.only:
        points = []
        for size in sizes[sweep]:
            # Larger ones would take longer still.
            if points and points[-1]["seconds"] > args.most_seconds:
                print(f"{sweep}: ends before {size}", flush=True)
                break
            problem = problems[sweep](size) if sweep in problems else None
            settings = {"gap": SWEEPS[sweep][2]}
            for threads in sorted({1, cores}):
                if problem is None:
                    answers = [from_file_to_file(size, threads, settings) for _ in range(args.repetitions)]
                    seconds = statistics.median(answer["seconds"] for answer in answers)
                    points.append({"size": size, "threads": threads, **answers[0], "seconds": seconds})
                    print(sweep, points[-1], flush=True)
                    continue
                contender = Contender(ours, HERE, args.work / "scaling-log.txt", {"RAYON_NUM_THREADS": str(threads)})
                contender.ask({"command": "prepare", "name": sweep, "task": "basis-pursuit", **problem})
                asked = {"command": "run", "name": sweep, "settings": settings}
                answers = [contender.ask(asked, limit=3600)]
                # A long one is its own mean.
                if answers[0]["seconds"] < args.most_seconds / 4:
                    answers += [contender.ask(asked) for _ in range(args.repetitions - 1)]
                point = {"size": size, "threads": threads,
                         "seconds": statistics.median(answer["seconds"] for answer in answers),
                         "bytes": contender.ask({"command": "memory"})["bytes"], "iterations": answers[0]["iterations"],
                         "nonzeros": answers[0]["nonzeros"], "algorithm": answers[0]["algorithm"]}
                contender.close()
                points.append(point)
                print(sweep, point, flush=True)
        results[sweep] = {"machine": run.machine(), "data": tasks.describe_data(args), "points": points}
        for quantity, words, unit in (("seconds", "seconds", 1), ("bytes", "peak memory in MB", 1e-6)):
            of = {threads: [(point["size"], unit * point[quantity]) for point in points if point["threads"] == threads]
                  for threads in sorted({1, cores})}
            curves = [(f"{threads} thread{'s' if threads > 1 else ''}", curve) for threads, curve in of.items()]
            name = "time" if quantity == "seconds" else "memory"
            helper.ask({"command": "plot", "path": str(args.out / f"scaling_{sweep}_{name}.svg"),
                        "horizontal": SWEEPS[sweep][0], "vertical": words, "curves": curves})
        path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    helper.close()
    write_page(args.out / "README.md", results)


def write_page(page, results):
    lines = []
    for sweep, result in results.items():
        points = result["points"]
        machine = result["machine"]
        gap = f"to a relative duality gap of {SWEEPS[sweep][2]:g}"
        lines += [f"### {sweep.capitalize()}", "",
                  f"{SWEEPS[sweep][0]}, {gap}; {result['data']}; {machine['processor']}, {machine['cores']} cores.", "",
                  "| size | threads | seconds | peak memory, MB | non-zeros | algorithm |", "|---|---|---|---|---|---|"]
        lines += [f"| {point['size']} | {point['threads']} | {point['seconds']:.3g} | {point['bytes'] / 1e6:.0f} | "
                  f"{point['nonzeros']:.1f} | {point['algorithm']} |" for point in points]
        lines += ["", f"![time](scaling_{sweep}_time.svg) ![memory](scaling_{sweep}_memory.svg)", ""]
    text = page.read_text() if page.exists() else f"{BEGIN}\n{END}\n"
    if BEGIN not in text:
        text += f"\n## Scaling\n\n{BEGIN}\n{END}\n"
    written = f"{BEGIN}\n\n" + "\n".join(lines) + END
    page.write_text(re.sub(re.escape(BEGIN) + ".*?" + re.escape(END), lambda _: written, text, flags=re.DOTALL))


if __name__ == "__main__":
    main()
