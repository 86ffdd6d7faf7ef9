"""Dictionaries for activations, learned by this crate and by others in equal time; greedy coding side by side.

    python3 benches/peers/activations.py --data FOLDER --program target/release/mlcsc
    python3 benches/peers/activations.py --data FOLDER --program target/release/mlcsc --only coding

FOLDER holds `train.npy` and `test.npy`, `[n, d]` each. All learn `--atoms` atoms from the former on all cores; asked is what is left
of the variance of the latter at `--nonzeros` non-zeros a signal after each of `--seconds` of learning. This crate is started
anew for every time, reading and start included, with as many epochs as that time allows; the others go on from time to time, and
the moments in which they are looked at don't count.

Each dictionary is coded greedily, the atom that leaves the shortest residual coming next: this crate's by this crate (orthogonal
least squares), non-negative or with signs as they were learned; those of SPAMS and scikit-learn with signs by SPAMS, whose rule is
the same. The auto-encoder is coded by its own encoder, and its dictionary by SPAMS too.

Coding is timed over `--coding-atoms` atoms that this crate has learned: this crate by both rules, SPAMS, and SAELens's matching
pursuit.

Writes `activations.json`, `activations.svg` and `activations.md` beside this file. Needs `pip install sae-lens==6.54.12 spams-bin
scikit-learn matplotlib`.
"""

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

HERE = Path(__file__).parent


def unexplained(signals, made):
    """Part of the variance that is not explained."""
    return float(((signals - made) ** 2).sum() / ((signals - signals.mean(0)) ** 2).sum())


def by_spams(signals, atoms, nonzeros):
    """Codes `[n, m]` by SPAMS: the atom that leaves the shortest residual comes next."""
    import spams

    columns = np.asfortranarray(signals.T.astype(np.float32))
    return spams.omp(columns, np.asfortranarray(atoms.T.astype(np.float32)), L=nonzeros, eps=0.0, numThreads=-1).T


class Bench:
    def __init__(self, options):
        self.options = options
        self.train, self.test = (
            np.load(options.data / name).astype(np.float32) for name in ("train.npy", "test.npy")
        )
        self.mean = self.train.mean(0)
        self.folder = Path(tempfile.mkdtemp(prefix="activations-"))

    def run(self, *arguments):
        """The program's answer."""
        command = [str(part) for part in (self.options.program, *arguments, "--json")]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return json.loads(done.stdout.splitlines()[-1]) if done.stdout.startswith("{\"") else json.loads(done.stdout)

    def left_by(self, atoms):
        """What a dictionary leaves, coded with signs by SPAMS."""
        atoms = atoms / np.maximum(np.linalg.norm(atoms, axis=1, keepdims=True), 1e-12)
        return unexplained(self.test, by_spams(self.test - self.mean, atoms, self.options.nonzeros) @ atoms + self.mean)

    def learned(self, name, atoms, epochs, flags):
        """A model of this crate, and the seconds that it took."""
        out = self.folder / name
        command = ["train", "--data", self.options.data / "train.npy", "--atoms", atoms, "--epochs", epochs, *flags]
        clock = time.perf_counter()
        process = [str(part) for part in (self.options.program, *command, "--no-report", "--out", out)]
        subprocess.run(process, check=True, capture_output=True)
        return out, time.perf_counter() - clock

    def ours(self, flags, signed):
        points, an_epoch = [], None
        for seconds in [0, *self.options.seconds]:
            epochs = 1 if an_epoch is None else max(1, round(seconds / an_epoch))
            if points and epochs <= points[-1]["epochs"]:
                continue
            model, taken = self.learned(f"{len(points)}-{'-'.join(map(str, flags))}", self.options.atoms, epochs, flags)
            an_epoch = taken / epochs
            how = ["--pursuit", "ols", "--nonzeros", self.options.nonzeros, *([] if signed else ["--nonnegative"])]
            made = self.folder / "made.npy"
            asked = ["--data", self.options.data / "test.npy", "--split", "all", *how, "--out", made]
            self.run("reconstruct", "--model", model, *asked)
            fvu = unexplained(self.test, np.load(made).reshape(self.test.shape))
            points.append({"seconds": taken, "epochs": epochs, "fvu": fvu})
            print(f"  {points[-1]}", flush=True)
        return points

    def sae(self, rate):
        """SAELens's TopK auto-encoder by its own trainer."""
        import torch
        from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
        from sae_lens.config import SAETrainerConfig
        from sae_lens.training.sae_trainer import SAETrainer

        options, batch = self.options, 1024
        torch.manual_seed(0)
        generator = np.random.default_rng(0)

        def batches():
            while True:
                order = generator.permutation(len(self.train))
                for start in range(0, len(order) - batch + 1, batch):
                    yield torch.from_numpy(self.train[order[start : start + batch]])

        config = TopKTrainingSAEConfig(d_in=self.train.shape[1], d_sae=options.atoms, k=options.nonzeros)
        network = TopKTrainingSAE(config)
        with torch.no_grad():
            network.b_dec.copy_(torch.from_numpy(self.mean))
        trainer = SAETrainer(
            SAETrainerConfig(total_training_samples=10**12, train_batch_size_samples=batch, lr=rate, lr_end=rate, dead_feature_window=100),
            network,
            batches(),
        )
        points, spent = [], 0.0
        for seconds in options.seconds:
            clock, before = time.perf_counter(), spent
            while spent < seconds:
                trainer.step(next(trainer.data_provider))
                trainer.n_training_steps += 1
                spent = before + time.perf_counter() - clock
            with torch.no_grad():
                test = torch.from_numpy(self.test)
                fvu = unexplained(self.test, network.decode(network.encode(test)).numpy())
                atoms = network.W_dec.detach().numpy()
            by_omp = self.left_by(atoms)
            points.append({"seconds": spent, "steps": trainer.n_training_steps, "fvu": fvu, "fvu by SPAMS": by_omp})
            print(f"  {points[-1]}", flush=True)
        return points

    def scikit(self):
        from sklearn.decomposition import MiniBatchDictionaryLearning

        options, centred = self.options, self.train - self.mean
        generator = np.random.default_rng(0)
        learner = MiniBatchDictionaryLearning(
            n_components=options.atoms, batch_size=512, alpha=options.penalty, fit_algorithm="cd", random_state=0, n_jobs=-1
        )
        points, spent = [], 0.0
        for seconds in options.seconds:
            clock, before = time.perf_counter(), spent
            while spent < seconds:
                learner.partial_fit(centred[generator.choice(len(centred), 512, replace=False)])
                spent = before + time.perf_counter() - clock
            points.append({"seconds": spent, "fvu": self.left_by(learner.components_.astype(np.float32))})
            print(f"  {points[-1]}", flush=True)
        return points

    def spams(self):
        import spams

        options = self.options
        columns = np.asfortranarray((self.train - self.mean).T)
        points, spent, model, atoms = [], 0.0, None, None
        for seconds in options.seconds:
            clock = time.perf_counter()
            more = {} if model is None else {"D": atoms, "model": model}
            # A negative number of iterations are seconds.
            atoms, model = spams.trainDL(
                columns, return_model=True, K=options.atoms, lambda1=options.penalty, mode=2, iter=-int(max(1, seconds - spent)),
                batchsize=512, numThreads=-1, verbose=False, **more,
            )
            spent += time.perf_counter() - clock
            points.append({"seconds": spent, "fvu": self.left_by(np.ascontiguousarray(atoms.T))})
            print(f"  {points[-1]}", flush=True)
        return points

    def coding(self):
        """Signals a second, in turn."""
        import torch
        from safetensors.numpy import load_file
        from sae_lens.saes.matching_pursuit_sae import MatchingPursuitSAE, MatchingPursuitSAEConfig

        options = self.options
        nonzeros, count = options.nonzeros, options.coding_atoms
        model, _ = self.learned("coding", count, 1, ["--pursuit", "omp", "--nonzeros", nonzeros, "--signed"])
        filters = load_file(model / "model.safetensors")
        atoms = next(filters[name] for name in sorted(filters) if name.startswith("layers")).reshape(count, -1)
        # SAELens's pursuit is slow, and knows no signs.
        few, centred = options.few, self.test - self.mean
        pursuit = MatchingPursuitSAE(
            MatchingPursuitSAEConfig(d_in=atoms.shape[1], d_sae=count, max_iterations=nonzeros, residual_threshold=1e-6, apply_b_dec_to_input=False)
        )
        rounds = []
        with torch.no_grad():
            pursuit.W_dec.copy_(torch.from_numpy(atoms))
        for _ in range(options.rounds):
            row = {}
            ways = {
                "this crate, OMP": ["--pursuit", "omp"],
                "this crate, OLS": ["--pursuit", "ols"],
                "this crate, OMP, non-negative": ["--pursuit", "omp", "--nonnegative"],
            }
            for name, more in ways.items():
                found = self.run(
                    "encode", "--model", model, "--data", options.data / "test.npy", "--split", "all",
                    "--nonzeros", nonzeros, "--out", self.folder / "codes.safetensors", *more,
                )
                error = 2 * found["mean_data_term"] * len(centred) / float((centred**2).sum())
                row[name] = (found["signals_per_second"], error)
            clock = time.perf_counter()
            codes = by_spams(centred, atoms, nonzeros)
            taken = time.perf_counter() - clock
            row["SPAMS, OMP by residuals"] = (len(centred) / taken, float(((centred - codes @ atoms) ** 2).sum() / (centred**2).sum()))
            with torch.no_grad():
                clock = time.perf_counter()
                codes = pursuit.encode(torch.from_numpy(centred[:few])).numpy()
                taken = time.perf_counter() - clock
            error = float(((centred[:few] - codes @ atoms) ** 2).sum() / (centred[:few] ** 2).sum())
            row["SAELens, matching pursuit"] = (few / taken, error)
            print(f"  {row}", flush=True)
            rounds.append(row)
        own = "this crate, OMP"
        return {
            name: {
                "signals_per_second": median(row[name][0] for row in rounds),
                "this crate is faster": median(row[own][0] / row[name][0] for row in rounds),
                "residual": rounds[0][name][1],
            }
            for name in rounds[0]
        }


def page(results, options):
    lines = [
        f"**{options.atoms} atoms learned from {results['signals']} activations of {results['dimensions']} values: FVU of the test file at",
        f"{options.nonzeros} non-zeros, after so many seconds.**",
        "",
    ]
    for name, points in results.get("learning", {}).items():
        cells = " | ".join(f"{point['seconds']:.0f} s: {100 * point['fvu']:.2f}%" for point in points)
        lines.append(f"| {name} | {cells} |")
        if "fvu by SPAMS" in points[0]:
            cells = " | ".join(f"{point['seconds']:.0f} s: {100 * point['fvu by SPAMS']:.2f}%" for point in points)
            lines.append(f"| the same, coded by SPAMS's OMP | {cells} |")
    if lines[-1].startswith("|"):
        columns = max(line.count("|") for line in lines if line.startswith("|")) - 1
        first = next(index for index, line in enumerate(lines) if line.startswith("|"))
        lines[first:first] = ["| learned by |" + " |" * (columns - 1), "|" + "---|" * columns]
    if "coding" in results:
        lines += [
            "",
            f"**Coding at {options.nonzeros} non-zeros over {options.coding_atoms} atoms.** Residual: what is left of the signals' energy.",
            "",
            "| coded by | signals a second | this crate is faster | residual |",
            "|---|---|---|---|",
        ]
        for name, row in results["coding"].items():
            lines.append(
                f"| {name} | {row['signals_per_second']:.0f} | {row['this crate is faster']:.2f}× | {100 * row['residual']:.2f}% |"
            )
    return "\n".join(lines) + "\n"


def draw(results, options, path):
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "activations"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    for name, points in results["learning"].items():
        axes.plot([point["seconds"] for point in points], [100 * point["fvu"] for point in points], "o-", label=name)
    axes.set(xlabel="seconds of learning, two cores", ylabel=f"FVU at {options.nonzeros} non-zeros, %", xscale="log")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, metadata={"Date": None}, bbox_inches="tight")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--program", default="target/release/mlcsc")
    parser.add_argument("--atoms", type=int, default=2048)
    parser.add_argument("--coding-atoms", type=int, default=4096)
    parser.add_argument("--nonzeros", type=int, default=32)
    parser.add_argument("--seconds", type=lambda text: [float(part) for part in text.split(",")], default=[60.0, 120.0, 240.0])
    parser.add_argument("--penalty", type=float, default=1.0, help="λ of scikit-learn and SPAMS")
    parser.add_argument("--rate", type=float, default=1e-3, help="learning rate of SAELens")
    parser.add_argument("--few", type=int, default=1024, help="signals that SAELens's matching pursuit codes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["learning", "coding"])
    parser.add_argument("--contenders", metavar="PART", help="learn by those alone whose names hold this; the results of others are kept")
    options = parser.parse_args()
    bench = Bench(options)
    path = HERE / "activations.json"
    results = json.loads(path.read_text()) if options.only and path.exists() else {}
    results |= {"signals": len(bench.train), "dimensions": bench.train.shape[1], "nonzeros": options.nonzeros}
    if options.only != "learning":
        print("coding", flush=True)
        results["coding"] = bench.coding()
    if options.only != "coding":
        target = ["--target-nonzeros", options.nonzeros]
        contenders = {
            "this crate, non-negative": lambda: bench.ours(target, False),
            "this crate, signs": lambda: bench.ours([*target, "--signed"], True),
            "SAELens, TopK, its encoder": lambda: bench.sae(options.rate),
            "SPAMS, trainDL": bench.spams,
            "scikit-learn, MiniBatchDictionaryLearning": bench.scikit,
        }
        learning = results.setdefault("learning", {}) if options.contenders else results.update(learning={}) or results["learning"]
        for name, learn in contenders.items():
            if options.contenders is None or options.contenders in name:
                print(name, flush=True)
                learning[name] = learn()
                path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    text = page(results, options)
    (HERE / "activations.md").write_text(text)
    if "learning" in results:
        draw(results, options, HERE / "activations.svg")
    print(text)


if __name__ == "__main__":
    main()
