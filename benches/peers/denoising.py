"""Noise taken off photographs, by this crate and by others: PSNR, SSIM and seconds, on the same noise.

    python3 benches/peers/denoising.py --data FOLDER --program target/release/mlcsc

FOLDER holds grey pictures (PNG), such as Set12. White noise of 15, 25 and 50 grey levels is added, neither rounded nor clipped; each
denoiser is told its strength. PSNR is 10·log₁₀(255² / mean squared error) of what comes out, unrounded. Peers: BM3D by its authors
(package `bm3d`), and non-local means, total variation and wavelets of scikit-image. Total variation has no setting for a strength of
noise: its weight is the best of several for each strength, chosen on the pictures themselves.

This crate's seconds are of whole processes, reading and writing included.

Writes `denoising.json` and `denoising.md` beside this file, and crops side by side where `--crops` says. Needs `pip install bm3d scikit-image`.
"""

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
from skimage.io import imread, imsave
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

HERE = Path(__file__).parent


def by_program(program, folder):
    def denoise(noisy, sigma):
        source, out = folder / "noisy.npy", folder / "out.npy"
        np.save(source, noisy.astype(np.float32))
        command = [program, "restore", "--data", source, "--noise", sigma, "--out", out]
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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--program", default="target/release/mlcsc")
    parser.add_argument("--crops", type=Path, help="picture for crops at 25 grey levels: clean, noisy, this crate, BM3D")
    parser.add_argument("--sigmas", type=lambda text: [int(part) for part in text.split(",")], default=[15, 25, 50])
    options = parser.parse_args()
    pictures = {path.stem: imread(path).astype(np.float64) for path in sorted(options.data.glob("*.png"))}
    folder = Path(tempfile.mkdtemp(prefix="denoising-"))
    contenders = {
        "this crate, `mlcsc restore`": by_program(options.program, folder),
        "BM3D": by_bm3d,
        "non-local means": by_means,
        "wavelets, BayesShrink": by_wavelets,
    }
    contenders |= {f"total variation, weight {weight} σ": by_variation(weight) for weight in (0.8, 1.1, 1.5)}
    results, crops = [], []
    for sigma in options.sigmas:
        rows = {name: [] for name in contenders}
        for index, (name, clean) in enumerate(pictures.items()):
            noisy = clean + sigma * np.random.default_rng([sigma, index]).standard_normal(clean.shape)
            line = [clean, noisy]
            for contender, denoise in contenders.items():
                clock = time.perf_counter()
                out = np.asarray(denoise(noisy, sigma), dtype=np.float64)
                seconds = time.perf_counter() - clock
                psnr = peak_signal_noise_ratio(clean, out, data_range=255)
                ssim = structural_similarity(clean, out, data_range=255)
                rows[contender].append((psnr, ssim, seconds, clean.size))
                line.append(out)
            if sigma == 25 and index in (1, 8, 10):
                crops.append(np.hstack([picture[60:188, 100:228] for picture in line[:4]]))
        best = max((name for name in rows if name.startswith("total")), key=lambda name: np.mean([row[0] for row in rows[name]]))
        for contender, found in rows.items():
            if contender.startswith("total") and contender != best:
                continue
            values = np.array(found)
            large = values[values[:, 3] == values[:, 3].max()]
            results.append(
                {
                    "sigma": sigma, "denoiser": contender, "psnr": values[:, 0].mean(), "ssim": values[:, 1].mean(),
                    "seconds_of_the_largest": float(np.median(large[:, 2])), "psnrs": dict(zip(pictures, values[:, 0].round(2))),
                }
            )
            print(sigma, contender, f"{values[:, 0].mean():.2f} dB, {values[:, 1].mean():.4f}, {np.median(large[:, 2]):.2f} s", flush=True)
    (HERE / "denoising.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    largest = max(picture.size for picture in pictures.values())
    lines = [
        f"**{len(pictures)} pictures, white noise; mean PSNR in dB, mean SSIM; median seconds of pictures of {largest:,} pixels, two cores.**",
        "",
        "| denoiser |" + "".join(f" σ = {sigma} |" for sigma in options.sigmas),
        "|---|" + "---|" * len(options.sigmas),
    ]
    names = dict.fromkeys("total variation, best weight" if row["denoiser"].startswith("total") else row["denoiser"] for row in results)
    for name in names:
        cells = [
            f" {row['psnr']:.2f}, {row['ssim']:.4f}; {row['seconds_of_the_largest']:.1f} s |"
            for row in results
            if row["denoiser"] == name or (name.startswith("total") and row["denoiser"].startswith("total"))
        ]
        lines.append(f"| {name} |" + "".join(cells))
    if crops and options.crops:
        imsave(options.crops, np.clip(np.vstack(crops), 0, 255).round().astype(np.uint8), check_contrast=False)
    (HERE / "denoising.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
