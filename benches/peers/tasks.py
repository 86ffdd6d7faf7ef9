"""The comparisons: who competes in each, on what, and how what they found is judged."""

import itertools
import json
import math
import statistics

import numpy as np

import evaluate
import inputs
from arena import Entry, describe, rows
from process import ContenderError

# Relative duality gap asked for, and what the judge in float64 lets pass: contenders compute it in float32.
GAP = 1e-4
PASSES = 1.1e-4


def describe_data(args):
    return "MNIST, Set12" if args.data else "drawn digits"


def digits_source(args):
    if args.data is None:
        return "digits"
    return str(args.data / "mnist" if (args.data / "mnist").is_dir() else args.data)


def images_folder(args, name):
    folder = args.data / "images" / name if args.data else None
    return folder if folder and folder.is_dir() else None


def key(args):
    """Part of file names that tells inputs of one source from those of another."""
    return "data" if args.data else "drawn"


def model(arena):
    """The model file, learned first where none was given, and what it looks like as arrays."""
    args = arena.args
    path = args.model
    if path is None:
        path = arena.inputs / f"model-{key(args)}{'-quick' if args.quick else ''}.safetensors"
        if not path.exists():
            print("learning a model of preset mnist ...", flush=True)
            request = {"command": "learn-model", "preset": "mnist", "source": digits_source(args),
                       "count": 6000 if args.quick else 12000, "epochs": 1, "path": str(path)}
            arena["ours"].ask(request, limit=3600)
    return exported(arena, path)


def exported(arena, path):
    folder = arena.inputs / path.stem
    about = arena["ours"].ask({"command": "export-model", "model": str(path), "folder": str(folder)})
    about.update(path=str(path), atoms=str(folder / "atoms.npy"))
    about["filters"] = [str(folder / f"W_{layer}.npy") for layer in range(1, len(about["strides"]) + 1)]
    return about


def drawn_model(arena, atoms):
    """A model of so many atoms that are drawn, each as large as a digit."""
    path = arena.inputs / f"drawn-{atoms}.safetensors"
    if not path.exists():
        arena["ours"].ask({"command": "draw-model", "atoms": atoms, "path": str(path)})
    return exported(arena, path)


def test_digits(arena, count):
    path = arena.inputs / f"test-{key(arena.args)}-{count}.npy"
    return inputs.digits(arena["ours"], digits_source(arena.args), "test", count, path)


def train_digits(arena, count):
    path = arena.inputs / f"train-{key(arena.args)}-{count}.npy"
    return inputs.digits(arena["ours"], digits_source(arena.args), "train", count, path)


# --- The machine -------------------------------------------------------------------------------------------------------------


def rates(arena):
    """Matrix products and memory bandwidth, as each of the libraries reaches them."""
    size, length = (1024, 1 << 22) if arena.args.quick else (4096, 1 << 26)
    products = [
        Entry("burn", "ours", {"task": "matrix-product", "size": size}),
        Entry("PyTorch", "pytorch", {"task": "matrix-product", "size": size}),
        Entry("numpy", "pytorch", {"task": "numpy-matrix-product", "size": size}),
    ]
    triads = [
        Entry("Rust", "ours", {"task": "triad", "len": length}),
        Entry("torch", "pytorch", {"task": "triad", "len": length}),
    ]
    arena.race(products)
    if arena.args.device is not None:
        # That one is of the host's memory.
        triads = []
    arena.race(triads)
    for entry in products + triads:
        arena.forget(entry)
    gigaflops = {entry.label: 2e-9 * size**3 / statistics.median(entry.seconds) for entry in products if entry.seconds}
    # Two arrays read, one written; that writing reads first is not counted.
    bandwidth = {entry.label: 12e-9 * length / statistics.median(entry.seconds) for entry in triads if entry.seconds}
    return {"gigaflops": gigaflops, "gigabytes_per_second": bandwidth, "product_size": size}


# --- Lasso -------------------------------------------------------------------------------------------------------------------


def ladder(additions, name, values):
    return [(additions, {name: value}) for value in values]


def lasso(arena):
    args, about = arena.args, model(arena)
    signals_path = test_digits(arena, args.signals)
    signals, atoms = np.load(signals_path), np.load(about["atoms"])
    flat = signals.reshape(len(signals), -1)
    count = len(signals)
    cases = []
    for fraction in (0.1, 0.3):
        weights_path = inputs.saved(
            arena.inputs / f"weights-{fraction}.npy", inputs.relative_weights(atoms, flat, fraction)
        )
        weights = np.load(weights_path)
        shared = {"atoms": about["atoms"], "signals": str(signals_path), "lambda": str(weights_path)}
        sample, small = min(count, 100 if args.quick else 1000), min(count, 200)
        tolerances = [10.0**-power for power in np.arange(2, 9.1, 0.5)]
        doubles = ["float32", "float64"]
        lars = [({"dtype": dtype, "products": products}, {}) for dtype in doubles for products in ("SPAMS", "numpy")]
        descent = [rung for dtype in doubles for rung in ladder({"dtype": dtype}, "tolerance", tolerances)]
        fista = [
            ({"block": block, "check_every": check_every}, {})
            for block, check_every in itertools.product((250, 1000), (20,))
        ]
        torch_request = {**shared, "task": "lasso", "gap": GAP}
        entries = [
            Entry("mlcsc", "ours", {"task": "basis-pursuit", "dictionary": about["path"], "signals": str(signals_path),
                                    "lambda": str(weights_path)}, settings={"gap": GAP}, count=count),
            Entry("SPAMS, LARS, Cholesky", "spams", {**shared, "task": "lars", "cholesky": True}, lars,
                  sample=small, count=count),
            Entry("SPAMS, LARS, inverse", "spams", {**shared, "task": "lars", "cholesky": False}, lars,
                  sample=small, count=count),
            Entry("SPAMS, coordinate descent", "spams", {**shared, "task": "coordinate-descent"}, descent,
                  sample=small, count=count),
            Entry("PyTorch, FISTA", "pytorch", {**torch_request, "compiled": False}, fista, sample=sample, count=count),
            Entry("PyTorch, FISTA, compiled", "pytorch", {**torch_request, "compiled": True}, fista,
                  sample=sample, count=count),
            Entry("scikit-learn, LARS", "scikit-learn", {**shared, "task": "lars"}, sample=min(count, 40), count=count),
            Entry("scikit-learn, coordinate descent", "scikit-learn", {**shared, "task": "coordinate-descent"},
                  ladder({}, "tolerance", tolerances[2:]), sample=min(count, 40), count=count),
        ]

        entries = arena.invited(entries)

        def lacking(codes):
            used = len(codes)
            gaps = evaluate.lasso(atoms, flat[:used], weights[:used], codes)[1]
            return None if gaps.max() <= PASSES else f"largest gap {gaps.max():.1e}"

        for entry in entries[1:]:
            arena.tune(entry, lacking)
            print(f"lasso {fraction}: {entry.label}: {entry.tuned or entry.failure}", flush=True)
        arena.race(entries)
        best = np.full(count, np.inf)
        objectives = {}
        for entry in entries:
            if entry.failure or not entry.seconds:
                continue
            codes = arena.codes(entry)
            used = len(codes)
            objective, gaps, nonzeros = evaluate.lasso(atoms, flat[:used], weights[:used], codes)
            objectives[entry.label] = objective
            best[:used] = np.minimum(best[:used], objective)
            entry.checks = {"largest_gap": gaps.max(), "mean_gap": gaps.mean(), "nonzeros": nonzeros.mean()}
            missed = int((gaps > PASSES).sum())
            if missed:
                entry.checks["missed"] = missed
        for entry in entries:
            if entry.label in objectives:
                objective = objectives[entry.label]
                excess = objective / best[: len(objective)] - 1
                entry.checks["largest_excess"] = excess.max()
                # Gap asked for and rounding of float32.
                entry.checks["agrees"] = bool(excess.max() <= PASSES and entry.checks["largest_gap"] <= PASSES)
            arena.forget(entry)
        table = rows(entries, lambda entry: entry.count)
        cases.append({"case": f"λ = {fraction} λ_max, {count} signals, {len(atoms)} atoms", "unit": "signals/s",
                      "rows": plain(table)})
    return cases


def plain(table):
    """Numbers that JSON knows."""
    return json.loads(json.dumps(table, default=float))


# --- Orthogonal matching pursuit ---------------------------------------------------------------------------------------------


def omp(arena):
    args = arena.args
    about = drawn_model(arena, args.omp_atoms) if args.omp_atoms else model(arena)
    signals_path = test_digits(arena, args.signals)
    signals, atoms = np.load(signals_path), np.load(about["atoms"])
    flat = signals.reshape(len(signals), -1)
    count = len(signals)
    cases = []
    for nonzeros in (10, 30):
        shared = {"atoms": about["atoms"], "signals": str(signals_path), "task": "omp", "nonzeros": nonzeros}
        entries = [
            Entry("mlcsc", "ours", {"task": "orthogonal-matching-pursuit", "dictionary": about["path"],
                                    "signals": str(signals_path), "nonzeros": nonzeros}, count=count),
            Entry("SPAMS", "spams", shared, [({"dtype": dtype}, {}) for dtype in ("float32", "float64")],
                  sample=min(count, 400), count=count),
            Entry("scikit-learn, Gram", "scikit-learn", shared, sample=min(count, 100), count=count),
        ]

        entries = arena.invited(entries)

        def lacking(codes):
            used = np.count_nonzero(codes, 1).mean()
            return None if used > nonzeros / 2 else f"{used:.1f} non-zeros"

        for entry in entries[1:]:
            arena.tune(entry, lacking)
        arena.race(entries)
        data = {}
        for entry in entries:
            if not entry.failure and entry.seconds:
                data[entry.label], used = evaluate.residuals(atoms, flat, arena.codes(entry))
                entry.checks = {"data_term": data[entry.label].mean(), "nonzeros": used.mean()}
            arena.forget(entry)
        common = min(len(values) for values in data.values())
        for entry in entries:
            if entry.label in data:
                # Greedy choices between equals fall differently in other precisions: means, not signals, are compared.
                entry.checks["excess"] = data[entry.label][:common].mean() / data[entries[0].label][:common].mean() - 1
                entry.checks["agrees"] = bool(abs(entry.checks["excess"]) <= 1e-3)
                # Another rule: it may find less, or more, but not nothing.
                if entry.library == "spams":
                    entry.checks["agrees"] = bool(abs(entry.checks["excess"]) <= 0.2)
        table = rows(entries, lambda entry: entry.count)
        cases.append({"case": f"{nonzeros} non-zeros, {count} signals, {len(atoms)} atoms", "unit": "signals/s",
                      "rows": plain(table)})
    return cases


# --- Convolution -------------------------------------------------------------------------------------------------------------


def bank(arena, count, kernel):
    """Filters learned from photographs where there are some, else waves."""
    args = arena.args
    folder = images_folder(args, "Train400")
    path = arena.inputs / f"filters-{key(args) if folder else 'waves'}-{count}x{kernel}.npy"
    if path.exists():
        return path
    if folder is None:
        return inputs.saved(path, inputs.gabor(count, kernel))
    print(f"learning {count} filters {kernel}x{kernel} ...", flush=True)
    request = {"command": "learn-filters", "source": str(folder), "atoms": count, "kernel": kernel, "path": str(path)}
    arena["ours"].ask(request, limit=3600)
    return path


def photographs(arena):
    """Images by size: the first of Set12 that is as large, else cut or put together."""
    args = arena.args
    folder = images_folder(args, "Set12")
    known = inputs.images(folder) if folder else {}
    chosen = {}
    for size in args.images:
        fitting = [(name, image) for name, image in known.items() if image.shape == (size, size)]
        if not fitting:
            larger = [(name, image) for name, image in known.items() if min(image.shape) >= size]
            fitting = [(f"{name}, cut", image[:size, :size]) for name, image in larger]
        if not fitting:
            drawn = np.load(test_digits(arena, 2000))
            fitting = [("drawn digits", inputs.mosaic(drawn, size))]
        name, image = fitting[0]
        chosen[size] = name, (image - image.mean()).astype(np.float32)
    return chosen


TARGETS = ["1e-3", "1e-5"]
CONVOLUTION_WEIGHT = 0.1


def most_iterations(arena):
    """Iterations after which a run of ours ends whatever its gap: the crate's default, but for quick runs."""
    return 2000 if arena.args.quick else 10000


def convolution(arena):
    cases, kept = [], {}
    for (count, kernel), (size, (name, image)) in itertools.product(arena.args.banks, photographs(arena).items()):
        filters_path = bank(arena, count, kernel)
        image_path = inputs.saved(arena.inputs / f"image-{size}.npy", image)
        cases += one_image(arena, filters_path, image_path, f"{name} {size}x{size}, {count} filters {kernel}x{kernel}",
                           kept.setdefault((count, kernel), {}))
    return cases


def one_image(arena, filters_path, image_path, title, kept):
    """`kept` remembers, for a bank of filters, which variants were best on the first image."""
    filters, image = np.load(filters_path), np.load(image_path)
    weight = CONVOLUTION_WEIGHT
    judge = evaluate.Convolution(filters, image, weight)
    stacked = inputs.saved(image_path.with_suffix(".signals.npy"), image[None, None])
    weights_path = inputs.saved(image_path.with_suffix(".weight.npy"), np.array([weight], np.float32))
    ours = Entry("mlcsc", "ours", {"task": "basis-pursuit", "dictionary": str(filters_path), "signals": str(stacked),
                                   "lambda": str(weights_path)})
    arena.prepare(ours)

    def codes_of(entry):
        return arena.codes(entry).reshape(judge.code_shape())

    # The optimum: the lowest of long runs of three algorithms; ours gives, by its dual point, a bound from below.
    arena.once(ours, {"gap": 1e-6, "max_iterations": most_iterations(arena)}, limit=3600)
    optimum, gap = judge.certify(codes_of(ours))
    lower = optimum - gap
    shared = {"filters": str(filters_path), "image": str(image_path), "weight": weight, "task": "convolution"}
    for library, additions in (
        ("sporco", {"method": "admm", "options": {"AutoRho": {"Enabled": True}}}),
        ("pytorch", {"way": "contiguous", "compiled": False}),
    ):
        # Nothing is left to be found below an optimum that is certified well enough.
        if 1 - lower / optimum <= 3e-6:
            break
        long = Entry("long run", library, {**shared, **additions})
        try:
            arena.prepare(long)
            request = {"command": "trace", "name": long.label, "targets": ["-1"], "optimum": optimum,
                       "iterations": 5000, "most_seconds": 4 * arena.args.most_seconds}
            optimum = min(optimum, arena[library].ask(request, limit=3600)["objective"])
        except ContenderError as error:
            print(f"  long run of {library}: {error}", flush=True)
        arena.forget(long)
    bound = [lower]

    def excess_of(entry):
        """How far the entry's codes are above the optimum; their dual point may bound it better from below."""
        objective, gap = judge.certify(codes_of(entry))
        bound[0] = max(bound[0], objective - gap)
        return objective / optimum - 1

    certified = 1 - lower / optimum
    print(f"{title}: optimum {optimum:.6f}, certified within {certified:.1e}", flush=True)

    trials = {
        "SPORCO, ADMM": ("sporco", [{"method": "admm", "options": {"AutoRho": {"Enabled": True}}}] + [
            {"method": "admm", "options": {"rho": rho, "AutoRho": {"Enabled": False}}} for rho in (0.3, 1.0, 3.0)]),
        "SPORCO, PGM": ("sporco", [{"method": "pgm", "options": {"backtracking": backtracking}}
                                   for backtracking in (False, True)]),
        "PyTorch, FISTA": ("pytorch", [{"way": way, "compiled": compiled} for way, compiled in (
            ("contiguous", False), ("channels-last", False), ("two-convolutions", False), ("fft", False),
            ("contiguous", True), ("fft", True))]),
    }
    if arena.args.quick:
        trials = {label: (library, variants[:1]) for label, (library, variants) in trials.items()}
    # Iterations that every variant needs, found in a run that is looked at; the fastest is kept for each target.
    chosen = {}
    # Seconds that each was given at least, in all variants that ran.
    shortest = {}
    for label, (library, variants) in trials.items():
        for additions in kept.get(label, variants):
            entry = Entry(label, library, {**shared, **additions})
            try:
                arena.prepare(entry)
                request = {"command": "trace", "name": label, "targets": TARGETS, "optimum": optimum,
                           "most_seconds": arena.args.most_seconds}
                traced = arena[library].ask(request, limit=3600)
            except ContenderError as error:
                print(f"  {label}, {describe(additions, {})}: {error}", flush=True)
                continue
            print(f"  {label}, {describe(additions, {})}: {traced}", flush=True)
            shortest[label] = min(traced["seconds"], shortest.get(label, traced["seconds"]))
            for target in TARGETS:
                reached = traced["reached"].get(target)
                before = chosen.get((label, target))
                if reached and (before is None or reached["seconds"] < before[0]):
                    chosen[label, target] = reached["seconds"], reached["iterations"], additions
            arena.forget(entry)
        best = [chosen[label, target][2] for target in TARGETS if (label, target) in chosen]
        if best:
            kept[label] = [additions for index, additions in enumerate(best) if additions not in best[:index]]
    cases = []
    for target in TARGETS:
        excess = float(target)
        ours = loosest_gap(arena, ours, lambda: excess_of(ours) <= excess)
        entries = [ours, Entry("mlcsc, stopped by its certificate", "ours", ours.request,
                               settings={"gap": excess, "max_iterations": most_iterations(arena)})]
        for label, (library, _) in trials.items():
            entry = Entry(label, library, shared)
            if (label, target) in chosen:
                entry.predicted, iterations, additions = chosen[label, target]
                entry.request = {**shared, **additions}
                entry.settings = {"iterations": iterations}
                entry.tuned = f"{describe(additions, {})}, iterations {iterations}"
            else:
                given = f"not there after {arena.args.most_seconds:.0f} s"
                entry.failure = given if label in shortest else "failed in every variant"
            entries.append(entry)
        arena.race(entries)
        for entry in entries:
            if not entry.failure and entry.seconds:
                above = excess_of(entry)
                entry.checks = {"excess": above, "agrees": bool(above <= 1.1 * excess)}
        for entry in entries[1:]:
            arena.forget(entry)
        for entry in entries[2:]:
            if (entry.label, target) not in chosen and entry.label in shortest and entries[0].seconds:
                entry.checks["at_least"] = shortest[entry.label] / statistics.median(entries[0].seconds)
        certified = 1 - bound[0] / optimum
        known = certified <= excess
        doubt = "" if known else f" (the optimum itself is certified within {certified:.0e} only)"
        cases.append({"case": f"{title}, λ = {weight}: to {target} of the optimum{doubt}", "unit": "s",
                      "optimum": optimum, "certified": certified, "rows": plain(rows(entries))})
        ours = Entry("mlcsc", "ours", ours.request)
    arena.forget(ours)
    return cases


def loosest_gap(arena, entry, good_enough):
    """The entry with the loosest duality gap that is good enough: as the others are stopped by an oracle too."""
    gaps = [10 ** (-power / 4) for power in range(2, 25)]
    low, high = 0, len(gaps) - 1
    while low < high:
        middle = (low + high) // 2
        arena.once(entry, {"gap": gaps[middle], "max_iterations": most_iterations(arena)}, limit=3600)
        if good_enough():
            high = middle
        else:
            low = middle + 1
    settings = {"gap": gaps[high], "max_iterations": most_iterations(arena)}
    return Entry(entry.label, entry.library, entry.request, settings=settings, tuned=f"gap {gaps[high]:.1e}")


# --- An epoch of learning ----------------------------------------------------------------------------------------------------


def epoch(arena):
    args, about = arena.args, model(arena)
    batch, weight, gap = 256, 0.3, 1e-3
    wanted = 2560 if args.quick else 60000
    signals_path = train_digits(arena, wanted)
    count = len(np.load(signals_path, mmap_mode="r"))
    per_epoch = math.ceil(count / batch)
    shared = {"atoms": about["atoms"], "signals": str(signals_path), "weight": weight, "batch": batch}
    cascade = {"filters": about["filters"], "strides": about["strides"], "sizes": about["sizes"], "code": about["code"],
               "iterations": 20}
    entries = [
        Entry("mlcsc, default update", "ours", {"task": "learning", "dictionary": about["path"],
                                                "signals": str(signals_path)}),
        Entry("SPAMS, trainDL, dense dictionary", "spams", {**shared, "task": "learning"}),
        Entry("PyTorch, online learning, dense dictionary", "pytorch", {
            **shared, "task": "online-learning", "gap": gap, "forgetting": 0.7, "part": 0.25}),
        *(Entry(f"PyTorch, autograd through 20 iterations, atoms made from {order}", "pytorch", {
            **shared, **cascade, "task": "unrolled-learning", "order": order, "compiled": False})
          for order in ("below", "above")),
    ]
    slowest = 0.0
    for entry in entries:
        try:
            arena.prepare(entry)
            arena.once(entry, {"steps": 1})
            slowest = max(slowest, arena.once(entry, {"steps": 2})["seconds"] / 2)
        except ContenderError as error:
            entry.failure = str(error)[:400]
    # As many for everybody as the slowest can do in the time, so that what they learned can be compared.
    steps = max(1, min(int(args.most_seconds / 2 / max(slowest, 1e-9)), per_epoch // args.rounds))
    for entry in entries:
        entry.settings = {"steps": steps}
    arena.race(entries, warm=False)
    test = np.load(test_digits(arena, 2000))[: 100 if args.quick else 300].reshape(-1, about["signal"][2] * about["signal"][3])
    for entry in entries:
        if not entry.failure and entry.seconds:
            atoms = arena.codes(entry)
            atoms = atoms / np.maximum(np.linalg.norm(atoms, axis=1, keepdims=True), 1e-12)
            codes = evaluate.code(atoms, test, weight, 1e-3)
            objective, _, nonzeros = evaluate.lasso(atoms, test, np.full(len(test), weight), codes, nonnegative=True)
            entry.checks = {"epoch_seconds": statistics.median(entry.seconds) / steps * per_epoch,
                            "test_objective": objective.mean(), "nonzeros": nonzeros.mean()}
        arena.forget(entry)
    case = (f"{steps * args.rounds} steps of {batch} of {count} digits from the same atoms, λ = {weight}; "
            f"an epoch is {per_epoch} steps")
    return [{"case": case, "unit": "steps/s", "rows": plain(rows(entries, lambda entry: steps))}]


# --- Unrolled pursuits -------------------------------------------------------------------------------------------------------


def unrolled(arena):
    args = arena.args
    digits = np.load(test_digits(arena, max(args.signals, args.batch)))[: args.batch]
    size, image = next(iter(photographs(arena).items()))
    generator = np.random.default_rng(0)
    corners = generator.integers(0, size - 32, (args.batch, 2))
    patches = np.stack([image[1][y : y + 32, x : x + 32] for y, x in corners])[:, None]
    patches = patches - patches.mean((2, 3), keepdims=True)
    natural = arena.inputs / "natural.safetensors"
    arena["ours"].ask({"command": "random-model", "preset": "natural", "side": 32, "path": str(natural)})
    cases = []
    for preset, about, signals, weight in (
        ("mnist", model(arena), digits, 0.3), ("natural", exported(arena, natural), patches, 0.1)
    ):
        if preset not in args.presets:
            continue
        signals_path = inputs.saved(arena.inputs / f"unrolled-{preset}.npy", signals.astype(np.float32))
        for gradient in (False, True):
            cases.append(unrolled_case(arena, preset, about, signals_path, weight, gradient))
    return cases


def unrolled_case(arena, preset, about, signals_path, weight, gradient):
    iterations, step = 20, 1.0 / about["squared_norm_bound"]
    request = {"task": "unrolled", "filters": about["filters"], "strides": about["strides"], "sizes": about["sizes"],
               "code": about["code"], "signals": str(signals_path), "weight": weight, "iterations": iterations, "step": step,
               "gradient": gradient}
    ways = ["matrix", "gram", "filters", "cascade"]
    # A Gram matrix is out of the question where codes are large.
    if math.prod(about["code"]) > 5000:
        ways.remove("gram")
    eager = [
        ({"way": way, "order": order}, {})
        for way in ways
        for order in (("below",) if way == "cascade" else ("below", "above"))
    ]
    entries = [
        Entry("mlcsc", "ours", {"task": "unrolled", "dictionary": about["path"], "signals": str(signals_path),
                                "lambda": weight, "iterations": iterations, "gradient": gradient}),
        Entry("PyTorch, eager", "pytorch", {**request, "compiled": None}, eager),
    ]
    if not arena.args.eager:
        entries.append(Entry("PyTorch, compiled", "pytorch", request))
    signals, atoms = np.load(signals_path), np.load(about["atoms"])
    expected = evaluate.unrolled(atoms, signals.reshape(len(signals), -1), weight, step, iterations)
    for entry in entries[1:]:
        entry.sample = len(signals)
        if entry.label == "PyTorch, compiled":
            # What is best eager is compiled: one iteration, or all of them as one.
            best = {"way": "matrix", "order": "below", **entries[1].request}
            best = {name: best[name] for name in ("way", "order")}
            entry.variants = [({**best, "compiled": what}, {}) for what in ("step", "whole")]
        entry.variants = entry.variants[: 1 if arena.args.quick else None]
        arena.tune(entry)
        print(f"unrolled {preset}: {entry.label}: {entry.tuned or entry.failure}", flush=True)
    arena.race(entries)
    gradients, exactness = {}, {}
    for entry in entries:
        if not entry.failure and entry.seconds:
            codes = arena.codes(entry).reshape(expected.shape)
            entry.checks = {"largest_difference": np.abs(codes - expected).max() / np.abs(expected).max()}
            entry.checks["agrees"] = bool(entry.checks["largest_difference"] <= 1e-3)
            if gradient:
                exactness[entry.label] = entry.checks["largest_difference"]
                gradients[entry.label] = [
                    np.load(arena.found / f"codes.W_{layer}.npy").astype(np.float64).ravel()
                    for layer in range(1, len(about["filters"]) + 1)
                ]
        arena.forget(entry)
    # Gradients of whoever's codes are nearest to double precision are what the others are compared with.
    reference = gradients[min(exactness, key=exactness.get)] if gradients else None
    for entry in entries:
        if entry.label in gradients:
            pairs = zip(gradients[entry.label], reference)
            worst = max(np.linalg.norm(found - base) / np.linalg.norm(base) for found, base in pairs)
            entry.checks["gradient_difference"] = worst
            entry.checks["agrees"] = bool(entry.checks["agrees"] and worst <= 1e-2)
    what = "forwards and backwards" if gradient else "forwards"
    return {"case": f"preset {preset}, {len(signals)} signals, {iterations} iterations, {what}", "unit": "s",
            "rows": plain(rows(entries))}
