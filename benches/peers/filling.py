"""Pixels filled in, blur undone, pictures enlarged, by this crate and by others: PSNR and seconds, on the same inputs.

    python3 benches/peers/filling.py --data FOLDER --program target/release/mlcsc [--pictures 01,02,05] [--tasks missing-50,blur]

FOLDER holds grey pictures (PNG), such as Set12. PSNR is 10·log₁₀(255² / mean squared error) of what comes out, unrounded, over all pixels. Tasks:

- `missing-50`, `missing-80`: so many in a hundred pixels are lost at random; `text`, `scratch`: those under letters or bent lines;
- `salt-10`, `salt-30`: so many are black or white; nobody is told which;
- `blur`: by a normal distribution of 1.6 pixels, with noise of √2 grey levels; `blur-9`: by 9×9 equal weights, with noise of 0.55;
- `part-line`, `part-box`: a part of a larger picture that was blurred as a whole, by 9 equal weights along a diagonal or 7×7 equal ones, noise of 1.5;
- `up-2`, `up-3`: reduced so many times, by the cubic with antialiasing.

Peers: biharmonic inpainting, median filter and cubic interpolation of scikit-image and SciPy; SPORCO's convolutional sparse coding with a mask (decoupled,
and simulated with a gradient penalty), its ℓ1 data term for impulses and its total variation for blur, with its own dictionary and the settings
of its examples; where a setting has no example, the best of several on the pictures themselves. Medians of seconds are of whole processes for this crate.

Writes data, a page and pictures of a chart of our own, side by side, to `experiments/inpainting`. Rows of contenders or tasks that were not asked for
stay. Needs `pip install scikit-image sporco pillow`.
"""

import argparse
import json
import subprocess
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from chart import chart, side_by_side
from scipy.ndimage import convolve, median_filter
from skimage.io import imread
from skimage.metrics import peak_signal_noise_ratio

OUT = Path(__file__).resolve().parents[2] / "experiments" / "inpainting"
warnings.filterwarnings("ignore")


def letters(shape):
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("L", shape[::-1], 255)
    draw = ImageDraw.Draw(image)
    text = "multi-layer convolutional sparse coding of pictures "
    for line in range(0, shape[0], 22):
        draw.text((-line % 40 - 40, line + 3), 4 * text, fill=0, font=ImageFont.load_default(14))
    return np.asarray(image) > 128


def lines(shape):
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    known = np.ones(shape, bool)
    for index, slope in enumerate((0.4, -0.7, 0.1)):
        middle = (0.3 + 0.2 * index) * shape[1] + slope * (rows - shape[0] / 2) + 6 * np.sin(rows / 17 + index)
        known &= np.abs(columns - middle) > 1.5
    return known


def reduced(clean, factor):
    """As this crate reduces: the cubic with a = −1/2, stretched by the factor, continued by reflection."""

    def axis(length):
        short = length // factor
        weights = np.zeros((short, length))
        for place in range(short):
            centre = (place + 0.5) * factor - 0.5
            for other in range(int(np.floor(centre - 2 * factor)), int(np.ceil(centre + 2 * factor)) + 1):
                near = abs(other - centre) / factor
                tap = 1.5 * near**3 - 2.5 * near**2 + 1 if near <= 1 else -0.5 * near**3 + 2.5 * near**2 - 4 * near + 2 if near < 2 else 0
                inside = other % (2 * length)
                weights[place, inside if inside < length else 2 * length - 1 - inside] += tap
        return weights / weights.sum(1, keepdims=True)

    return axis(clean.shape[0]) @ clean @ axis(clean.shape[1]).T


def gaussian(sigma):
    radius = int(np.ceil(4 * sigma))
    line = np.exp(-np.arange(-radius, radius + 1.0) ** 2 / (2 * sigma**2))
    return np.outer(line, line) / line.sum() ** 2


def sporco_masked(simulated):
    def fill(seen, known):
        from sporco import util
        from sporco.admm import cbpdn, tvl2

        pad, crop = 8, np.s_[8:-8, 8:-8]
        picture = np.pad(seen / 255, pad, mode="symmetric").astype(np.float32)
        mask = np.pad(known.astype(np.float32), pad, mode="constant")
        atoms = util.convdicts()["G:8x8x128"]
        if not simulated:
            options = tvl2.TVL2Denoise.Options({"MaxMainIter": 200, "DFidWeight": mask, "gEvalY": False, "AutoRho": {"Enabled": True}})
            smooth = tvl2.TVL2Denoise(picture * mask, 0.05, options).solve()
            options = {"MaxMainIter": 200, "HighMemSolve": True, "RelStopTol": 3e-2, "AuxVarObj": False, "RelaxParam": 1.8}
            options |= {"rho": 5e1 * 2e-2 + 1e-1, "AutoRho": {"Enabled": False, "StdResiduals": False}}
            solver = cbpdn.ConvBPDNMaskDcpl(atoms, mask * (picture - smooth), 2e-2, mask, opt=cbpdn.ConvBPDNMaskDcpl.Options(options))
            solver.solve()
            return 255 * (smooth + solver.reconstruct().squeeze())[crop]
        impulse = np.zeros(atoms.shape[:2] + (1,), np.float32)
        impulse[0, 0] = 1
        atoms = np.concatenate((impulse, atoms), axis=2)
        weights = np.ones((1,) * 4 + (atoms.shape[2],), np.float32)
        weights[..., 0] = 0
        # One more of each for the impulse that stands for what is hidden.
        weights = np.concatenate((weights, np.zeros_like(weights[..., :1])), axis=4)
        gradient = np.full(atoms.shape[2] + 1, 0.2, np.float32)
        gradient[0], gradient[-1] = 1, 0
        options = {"MaxMainIter": 200, "HighMemSolve": True, "RelStopTol": 5e-3, "AuxVarObj": False, "RelaxParam": 1.8}
        options |= {"rho": 5e1 * 1e-2 + 1e-1, "AutoRho": {"Enabled": False, "StdResiduals": False}, "L1Weight": weights, "GradWeight": gradient}
        options = cbpdn.ConvBPDNGradReg.Options(options)
        solver = cbpdn.AddMaskSim(cbpdn.ConvBPDNGradReg, atoms, picture, mask, 1e-2, 2e-1, opt=options)
        solver.solve()
        return 255 * solver.reconstruct().squeeze()[crop]

    return fill


def sporco_impulses(seen):
    from sporco import util
    from sporco.admm import cbpdn

    pad, crop = 8, np.s_[8:-8, 8:-8]
    picture = np.pad(seen / 255, pad, mode="symmetric").astype(np.float32)
    atoms = util.convdicts()["G:8x8x128"]
    impulse = np.zeros(atoms.shape[:2] + (1,), np.float32)
    impulse[0, 0] = 1
    atoms = np.concatenate((impulse, atoms), axis=2)
    weights = np.ones((1,) * 4 + (atoms.shape[2],), np.float32)
    weights[..., 0] = 0
    gradient = np.zeros(atoms.shape[2], np.float32)
    gradient[0] = 1
    options = {"MaxMainIter": 150, "RelStopTol": 5e-3, "AuxVarObj": False, "RelaxParam": 1.8, "rho": 1e1, "L1Weight": weights, "GradWeight": gradient}
    solver = cbpdn.ConvL1L1Grd(atoms, picture, 3e0, 2e1, opt=cbpdn.ConvL1L1Grd.Options(options))
    solver.solve()
    return 255 * solver.reconstruct().squeeze()[crop]


def variation(kernel, weight):
    def sharpen(seen):
        from sporco.admm import tvl2

        pad = 16
        picture = np.pad(seen / 255, pad, mode="symmetric").astype(np.float32)
        options = tvl2.TVL2Deconv.Options({"MaxMainIter": 200, "gEvalY": False})
        out = tvl2.TVL2Deconv(kernel.astype(np.float32), picture, weight, options).solve()
        return 255 * centred(out, kernel, pad)

    return sharpen


def centred(out, kernel, pad):
    # SPORCO's kernels begin at their corner.
    rows, columns = (size // 2 for size in kernel.shape)
    return np.roll(out, (rows, columns), (0, 1))[pad:-pad, pad:-pad]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--program", default="target/release/mlcsc")
    parser.add_argument("--pictures", default="01,02,05", help="names without ending, or all")
    parser.add_argument("--tasks", default="missing-50,missing-80,text,scratch,salt-10,salt-30,blur,blur-9,part-line,part-box,up-2,up-3")
    parser.add_argument("--contenders", default="", help="only contenders with one of these in their name: A|B")
    options = parser.parse_args()
    pictures = {path.stem: imread(path).astype(np.float64) for path in sorted(options.data.glob("*.png"))}
    if options.pictures != "all":
        pictures = {name: pictures[name] for name in options.pictures.split(",")}
    folder = Path(tempfile.mkdtemp(prefix="filling-"))
    results = []
    for task in options.tasks.split(","):
        kind, _, number = task.partition("-")
        found = {}
        for index, (name, clean) in enumerate(pictures.items()):
            random = np.random.default_rng([index, len(task)])
            known, flags, seen, others = None, [], clean, {}
            if kind in ("missing", "text", "scratch"):
                known = {"text": letters, "scratch": lines}.get(kind, lambda shape: random.random(shape) >= int(number) / 100)(clean.shape)
                seen = np.where(known, clean, 0)
                np.save(folder / "known.npy", known.astype(np.float32))
                flags = ["--mask", folder / "known.npy"]
                from skimage.restoration import inpaint_biharmonic

                others["biharmonic, scikit-image"] = lambda seen: 255 * inpaint_biharmonic(seen / 255, ~known)
                others["mask decoupling, SPORCO"] = lambda seen: sporco_masked(False)(seen, known)
                others["mask simulation with gradient penalty, SPORCO"] = lambda seen: sporco_masked(True)(seen, known)
            elif kind == "salt":
                chance = random.random(clean.shape)
                share = int(number) / 100
                seen = np.where(chance < share / 2, 0, np.where(chance < share, 255, clean))
                flags = ["--salt-and-pepper"]
                for size in (3, 5, 7):
                    others[f"median of {size}×{size}, SciPy"] = lambda seen, size=size: median_filter(seen, size, mode="reflect")
                others["ℓ1 data term, SPORCO"] = sporco_impulses
            elif kind == "blur":
                kernel = np.full((9, 9), 1 / 81) if number else gaussian(1.6)
                sigma = 0.55 if number else 2**0.5
                seen = convolve(clean, kernel, mode="reflect") + sigma * random.standard_normal(clean.shape)
                np.save(folder / "kernel.npy", kernel.astype(np.float32))
                flags = ["--blur", folder / "kernel.npy", "--noise", sigma]
                for weight in (1e-4, 3e-4, 1e-3, 3e-3, 1e-2):
                    others[f"total variation {weight}, SPORCO"] = variation(kernel, weight)
            elif kind == "part":
                kernel = np.eye(9) / 9 if number == "line" else np.full((7, 7), 1 / 49)
                part = np.s_[48:-48, 48:-48]
                seen = (convolve(clean, kernel, mode="reflect") + 1.5 * random.standard_normal(clean.shape))[part]
                clean = clean[part]
                np.save(folder / "kernel.npy", kernel.astype(np.float32))
                flags = ["--blur", folder / "kernel.npy", "--noise", 1.5]
                for weight in (1e-4, 3e-4, 1e-3, 3e-3, 1e-2):
                    others[f"total variation {weight}, SPORCO"] = variation(kernel, weight)
            elif kind == "up":
                factor = int(number)
                clean = clean[: clean.shape[0] // factor * factor, : clean.shape[1] // factor * factor]
                seen = reduced(clean, factor)
                flags = ["--upscale", factor]
                from PIL import Image

                others["bicubic, Pillow"] = lambda seen: np.asarray(
                    Image.fromarray(seen.astype(np.float32)).resize(clean.shape[::-1], Image.BICUBIC)
                )
            np.save(folder / "seen.npy", seen.astype(np.float32))
            command = [options.program, "restore", "--data", folder / "seen.npy", *flags, "--out", folder / "out.npy"]

            def by_program(_):
                subprocess.run([str(part) for part in command], check=True, capture_output=True)
                return np.load(folder / "out.npy")

            for contender, restore in {"this crate, `mlcsc restore`": by_program, **others}.items():
                if not any(part in contender for part in options.contenders.split("|")):
                    continue
                clock = time.perf_counter()
                out = np.asarray(restore(seen), np.float64)
                seconds = time.perf_counter() - clock
                found.setdefault(contender, []).append((peak_signal_noise_ratio(clean, out, data_range=255), seconds))
                print(task, name, contender, f"{found[contender][-1][0]:.2f} dB, {seconds:.1f} s", flush=True)
        rows = {contender: np.array(values) for contender, values in found.items()}
        # Of a peer with several settings the best.
        for start in ("median", "total variation"):
            same = [contender for contender in rows if contender.startswith(start)]
            for contender in sorted(same, key=lambda contender: rows[contender][:, 0].mean())[:-1]:
                del rows[contender]
        for contender, values in rows.items():
            mean, seconds = values[:, 0].mean(), float(np.median(values[:, 1]))
            results.append({"task": task, "by": contender, "psnr": mean, "seconds": seconds, "psnrs": dict(zip(pictures, values[:, 0].round(2)))})
    short = lambda row: row["by"].split(" of ")[0].split(" 0.0")[0].split(" 0.1")[0].split(" 1e")[0].split(" 3e")[0]
    key = lambda row: (row["task"], short(row), tuple(row["psnrs"]))
    if (OUT / "results.json").exists():
        done = {key(row) for row in results}
        results = [row for row in json.loads((OUT / "results.json").read_text()) if key(row) not in done] + results
    order = parser.get_default("tasks").split(",")
    results.sort(key=lambda row: (order.index(row["task"]), len(row["psnrs"]) < 2, -row["psnr"]))
    (OUT / "results.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    text = [
        "# Missing pixels, salt and pepper, blur, loss of size",
        "",
        "`python3 benches/peers/filling.py --data FOLDER --program target/release/mlcsc`; FOLDER holds Set12. Tasks and peers are told there. Mean PSNR",
        "in dB and median seconds, two cores, whole processes for this crate. SPORCO's masks ran beside other work, which may have doubled their seconds.",
        "",
        "| task | by | pictures | PSNR | seconds |",
        "|---|---|---|---|---|",
    ]
    text += [f"| {row['task']} | {row['by']} | {', '.join(row['psnrs'])} | {row['psnr']:.2f} | {'–' if row['seconds'] is None else format(row['seconds'], '.1f')} |" for row in results]
    text += ["", "A chart of our own, each line what was seen, this crate, a peer:", "", "![chart](chart.png)", ""]
    clean, pages = chart(), []
    random = np.random.default_rng(5)

    def ours(seen, *flags):
        np.save(folder / "seen.npy", seen.astype(np.float32))
        command = [options.program, "restore", "--data", folder / "seen.npy", *flags, "--out", folder / "out.npy"]
        subprocess.run([str(part) for part in command], check=True, capture_output=True)
        return np.load(folder / "out.npy")

    from PIL import Image
    from skimage.restoration import inpaint_biharmonic

    known = random.random(clean.shape) >= 0.8
    np.save(folder / "known.npy", known.astype(np.float32))
    seen = np.where(known, clean, 0)
    pages.append((seen, ours(seen, "--mask", folder / "known.npy"), 255 * inpaint_biharmonic(seen / 255, ~known), "80% missing", "biharmonic"))
    kernel = gaussian(1.6)
    seen = convolve(clean, kernel, mode="reflect") + 2**0.5 * random.standard_normal(clean.shape)
    pages.append((seen, ours(seen, "--blur", "gaussian:1.6", "--noise", 2**0.5), variation(kernel, 1e-3)(seen), "blur of 1.6", "total variation"))
    small = reduced(clean, 2)
    larger = np.asarray(Image.fromarray(small.astype(np.float32)).resize(clean.shape[::-1], Image.BICUBIC))
    seen = np.asarray(Image.fromarray(small.astype(np.float32)).resize(clean.shape[::-1], Image.NEAREST))
    pages.append((seen, ours(small, "--upscale", 2), larger, "half the size", "bicubic"))
    side_by_side([page[:3] for page in pages], OUT / "chart.png")
    for *_, what, peer in pages:
        page = next(page for page in pages if page[3] == what)
        ours_psnr, peers = (peak_signal_noise_ratio(clean, np.asarray(out, float), data_range=255) for out in page[1:3])
        text.append(f"- {what}: this crate {ours_psnr:.2f} dB, {peer} {peers:.2f} dB")
    (OUT / "README.md").write_text("\n".join(text) + "\n")


if __name__ == "__main__":
    main()
