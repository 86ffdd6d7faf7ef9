"""Noise taken off photographs, by this crate and by others: PSNR, SSIM and seconds, on the same noise.

    python3 benches/peers/denoising.py --data FOLDER --program target/release/mlcsc

FOLDER holds grey pictures (PNG), such as Set12. White noise of 15, 25 and 50 grey levels is added, neither rounded nor clipped; each
denoiser is told its strength. PSNR is 10·log₁₀(255² / mean squared error) of what comes out, unrounded. Peers: BM3D by its authors
(package `bm3d`), and non-local means, total variation and wavelets of scikit-image. Total variation has no setting for a strength of
noise: its weight is the best of several for each strength, chosen on the pictures themselves, and so is the penalty of SPORCO's convolutional
sparse coding (its dictionary and its example's settings). scikit-learn learns a dictionary from the picture itself and codes its patches by
orthogonal matching pursuit. `--contenders` names some of them; their rows replace those that are there.

This crate's seconds are of whole processes, reading and writing included. `--ways` adds its other methods, by models that were learned from
Train400 by

    mlcsc train --data Train400 --patch 9 --window 27 --patches 2000000 --atoms 256 --kernel 9 --normalization center --method unrolled
        --task denoise --signed --lambda 0.2 --unrolled-iterations 4 --noise 25 --epochs 5 --out for_25
                                                                                     (model.safetensors, copied to for_25.safetensors)
    … --noise 5-50 --epochs 4 --out blind                                            (as it is, for a range of strengths)
    mlcsc train --data Train400 --patch 8 --patches 100000 --atoms 256 --kernel 8 --normalization center --epochs 1 --out blocks

Writes data, a page and pictures of a chart of our own, side by side, to `experiments/denoising`. Needs `pip install bm3d scikit-image sporco
scikit-learn`.
"""

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
from chart import chart, side_by_side
from skimage.io import imread
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

OUT = Path(__file__).resolve().parents[2] / "experiments" / "denoising"


def by_program(program, folder, flags=()):
    def denoise(noisy, sigma):
        source, out = folder / "noisy.npy", folder / "out.npy"
        np.save(source, noisy.astype(np.float32))
        command = [program, "restore", "--data", source, "--noise", sigma, "--out", out, *flags]
        subprocess.run([str(part) for part in command], check=True, capture_output=True)
        return np.load(out)

    return denoise


def by_bm3d(noisy, sigma):
    from bm3d import bm3d

    return bm3d(noisy, sigma)


def by_means(noisy, sigma):
    from skimage.restoration import denoise_nl_means

    # As scikit-image's example has it for a known strength.
    out = denoise_nl_means(noisy / 255, h=0.6 * sigma / 255, sigma=sigma / 255, patch_size=5, patch_distance=6, fast_mode=True)
    return 255 * out


def by_variation(weight):
    def denoise(noisy, sigma):
        from skimage.restoration import denoise_tv_chambolle

        return 255 * denoise_tv_chambolle(noisy / 255, weight=weight * sigma / 255)

    return denoise


def by_wavelets(noisy, sigma):
    from skimage.restoration import denoise_wavelet

    return 255 * denoise_wavelet(noisy / 255, sigma=sigma / 255, method="BayesShrink", mode="soft", rescale_sigma=True)


def by_sporco(penalty):
    def denoise(noisy, sigma):
        import sporco.signal as signal
        from sporco import util
        from sporco.admm import cbpdn

        # As its example for white noise has it: ℓ1 weighted by the noise's own correlations, a smooth component split off before.
        padded = np.pad(noisy / 255, 8, mode="symmetric").astype(np.float32)
        smooth, rough = signal.tikhonov_filter(padded, 5.0, 16)
        atoms = util.convdicts()["G:8x8x128"]
        weights = signal.irfftn(
            np.conj(signal.rfftn(atoms, rough.shape, (0, 1))) * signal.rfftn(rough[..., np.newaxis], None, (0, 1)), rough.shape, (0, 1)
        )
        weights = 1.0 / np.maximum(weights**2, 1e-8)
        strength = penalty * (sigma / 25.5) ** 2 * 4.8e-2
        options = {"MaxMainIter": 100, "HighMemSolve": True, "RelStopTol": 3e-3, "AuxVarObj": False, "L1Weight": weights}
        options |= {"AutoRho": {"Enabled": False}, "rho": 4e2 * strength}
        solver = cbpdn.ConvBPDN(atoms, rough, strength, cbpdn.ConvBPDN.Options(options), dimK=0)
        solver.solve()
        return 255 * (smooth + solver.reconstruct().squeeze())[8:-8, 8:-8]

    return denoise


def by_patches(noisy, sigma):
    from sklearn.decomposition import MiniBatchDictionaryLearning
    from sklearn.feature_extraction.image import extract_patches_2d
    from sklearn.linear_model import orthogonal_mp_gram

    # 256 atoms of the picture's own patches; orthogonal matching pursuit to the noise level of every second patch along both axes.
    random = np.random.RandomState(0)
    own = extract_patches_2d(noisy, (8, 8), max_patches=20_000, random_state=random).reshape(-1, 64)
    own -= own.mean(1, keepdims=True)
    learner = MiniBatchDictionaryLearning(256, alpha=1.2 * sigma, max_iter=20, batch_size=256, random_state=random)
    atoms = learner.fit(own).components_
    places = [(row, column) for row in range(0, noisy.shape[0] - 7, 2) for column in range(0, noisy.shape[1] - 7, 2)]
    patches = np.stack([noisy[row : row + 8, column : column + 8].ravel() for row, column in places])
    means = patches.mean(1, keepdims=True)
    patches -= means
    norms = (patches**2).sum(1)
    codes = orthogonal_mp_gram(atoms @ atoms.T, atoms @ patches.T, tol=(1.15 * sigma) ** 2 * 64, norms_squared=norms)
    found = codes.T @ atoms + means
    out, count = np.zeros_like(noisy), np.zeros_like(noisy)
    for (row, column), patch in zip(places, found):
        out[row : row + 8, column : column + 8] += patch.reshape(8, 8)
        count[row : row + 8, column : column + 8] += 1
    return np.where(count > 0, out / np.maximum(count, 1), noisy)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--program", default="target/release/mlcsc")
    parser.add_argument("--pictures", default="all", help="names without ending, as 01,02")
    parser.add_argument("--sigmas", type=lambda text: [int(part) for part in text.split(",")], default=[15, 25, 50])
    parser.add_argument("--ways", nargs="*", default=[], metavar="METHOD=[MODEL]", help="other methods of this crate: patches=, network=M.safetensors")
    parser.add_argument("--contenders", default="", help="only contenders with one of these in their name: A|B")
    options = parser.parse_args()
    pictures = {path.stem: imread(path).astype(np.float64) for path in sorted(options.data.glob("*.png"))}
    if options.pictures != "all":
        pictures = {name: pictures[name] for name in options.pictures.split(",")}
    folder = Path(tempfile.mkdtemp(prefix="denoising-"))
    contenders = {
        "this crate, `mlcsc restore`": by_program(options.program, folder),
        "BM3D": by_bm3d,
        "non-local means": by_means,
        "wavelets, BayesShrink": by_wavelets,
        "patches, scikit-learn": by_patches,
    }
    for option in options.ways:
        method, model = option.split("=")
        of_model = f", {Path(model).stem}" if model else ""
        contenders[f"this crate, `--method {method}`{of_model}"] = by_program(options.program, folder, ["--method", method] + (["--model", model] if model else []))
    contenders |= {f"convolutional, SPORCO, penalty {penalty}": by_sporco(penalty) for penalty in (0.5, 1.0)}
    contenders |= {f"total variation, weight {weight} σ": by_variation(weight) for weight in (0.8, 1.1, 1.5)}
    contenders = {name: denoise for name, denoise in contenders.items() if any(part in name for part in options.contenders.split("|"))}
    results = []
    for sigma in options.sigmas:
        rows = {name: [] for name in contenders}
        for index, (name, clean) in enumerate(pictures.items()):
            noisy = clean + sigma * np.random.default_rng([sigma, index]).standard_normal(clean.shape)
            for contender, denoise in contenders.items():
                clock = time.perf_counter()
                out = np.asarray(denoise(noisy, sigma), dtype=np.float64)
                seconds = time.perf_counter() - clock
                psnr = peak_signal_noise_ratio(clean, out, data_range=255)
                ssim = structural_similarity(clean, out, data_range=255)
                rows[contender].append((psnr, ssim, seconds, clean.size))
        # Of a peer with several settings the best.
        for start in ("total variation", "convolutional, SPORCO"):
            same = [contender for contender in rows if contender.startswith(start)]
            for contender in sorted(same, key=lambda contender: np.mean([row[0] for row in rows[contender]]))[:-1]:
                del rows[contender]
        for contender, found in rows.items():
            values = np.array(found)
            large = values[values[:, 3] == values[:, 3].max()]
            results.append(
                {
                    "sigma": sigma, "denoiser": contender, "psnr": values[:, 0].mean(), "ssim": values[:, 1].mean(),
                    "seconds_of_the_largest": float(np.median(large[:, 2])), "psnrs": dict(zip(pictures, values[:, 0].round(2))),
                }
            )
            print(sigma, contender, f"{values[:, 0].mean():.2f} dB, {values[:, 1].mean():.4f}, {np.median(large[:, 2]):.2f} s", flush=True)
    short = lambda row: row["denoiser"].split(", penalty")[0].split(", weight")[0]
    key = lambda row: (row["sigma"], short(row), tuple(row["psnrs"]))
    if (OUT / "results.json").exists() and options.contenders:
        done = {key(row) for row in results}
        results = [row for row in json.loads((OUT / "results.json").read_text()) if key(row) not in done] + results
    (OUT / "results.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    sigmas = sorted({row["sigma"] for row in results})
    text = [
        "# Noise taken off photographs",
        "",
        "`python3 benches/peers/denoising.py --data FOLDER --program target/release/mlcsc`; FOLDER holds Set12, twelve grey pictures that the",
        "dictionary was not learned from. White noise, told to everybody; mean PSNR in dB, mean SSIM; median seconds of pictures of the largest size",
        "(512×512, where all pictures are there), two cores, whole processes for this crate. What stands behind a method is its model, learned from",
        "Train400 by the commands in the script: `for_25` by noise of 25 alone, `blind` by noise of 5 to 50, `blocks` without noise.",
    ]
    for names in dict.fromkeys(tuple(row["psnrs"]) for row in results):
        alone = " (peers that take minutes for a picture)" if len(names) == 1 else ""
        text += ["", f"Pictures {', '.join(names)}{alone}:", "", "| by |" + "".join(f" σ = {sigma} |" for sigma in sigmas), "|---|" + "---|" * len(sigmas)]
        rows = [row for row in results if tuple(row["psnrs"]) == names]
        for name in dict.fromkeys(short(row) for row in rows):
            cells = ""
            for sigma in sigmas:
                row = next((row for row in rows if row["sigma"] == sigma and short(row) == name), None)
                cells += f" {row['psnr']:.2f}, {row['ssim']:.4f}; {row['seconds_of_the_largest']:.1f} s |" if row else " |"
            text.append(f"| {name} |" + cells)
    clean = chart()
    noisy = clean + 25 * np.random.default_rng(25).standard_normal(clean.shape)
    ours, peer = by_program(options.program, folder)(noisy, 25), by_bm3d(noisy, 25)
    side_by_side([[clean, noisy], [ours, peer]], OUT / "chart.png")
    told = ", ".join(f"{peak_signal_noise_ratio(clean, out, data_range=255):.2f} dB" for out in (noisy, ours, peer))
    text += ["", "A chart of our own, noise of 25 grey levels: clean, noisy; this crate, BM3D. PSNR of the last three: " + told + ".", "", "![chart](chart.png)"]
    (OUT / "README.md").write_text("\n".join(text) + "\n")


if __name__ == "__main__":
    main()
