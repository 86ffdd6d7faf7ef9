"""results.json and the tables of README.md."""

import json
import re

# Tasks of hours whose cases are measured some at a time: those of earlier runs stay, each with what its run depended on.
ACCUMULATED = {"convolution"}
BEGIN, END = "<!-- tables: written by run.py -->", "<!-- end of tables -->"
TITLES = {
    "lasso": "Lasso",
    "omp": "Orthogonal matching pursuit",
    "convolution": "Convolutional lasso",
    "epoch": "An epoch of learning",
    "unrolled": "Unrolled pursuits",
}


def write_report(folder, results):
    """Adds results to those that the folder holds and writes them as tables into its README.md."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "results.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    for name, result in results.items():
        known[name] = accumulated(known.get(name, []), result) if name in ACCUMULATED else [result]
    known = {name: known[name] for name in TITLES if name in known}
    path.write_text(json.dumps(known, indent=1, ensure_ascii=False) + "\n")
    tables = "\n".join(section(name, runs) for name, runs in known.items())
    page = folder / "README.md"
    text = page.read_text() if page.exists() else f"# Results\n\n{BEGIN}\n{END}\n"
    pattern = re.escape(BEGIN) + ".*?" + re.escape(END)
    page.write_text(re.sub(pattern, lambda _: f"{BEGIN}\n\n{tables}\n{END}", text, flags=re.DOTALL))
    print("\n".join(section(name, [result]) for name, result in results.items()), flush=True)


def accumulated(runs, result):
    """The runs before, less the cases that the new one measured again, and the new one."""
    again = {case["case"] for case in result["cases"]}
    kept = [{**run, "cases": [case for case in run["cases"] if case["case"] not in again]} for run in runs]
    return [run for run in kept if run["cases"]] + [result]


def section(name, runs):
    return "\n".join([f"### {TITLES[name]}", "", *("\n".join(tables(run)) for run in runs)])


def tables(result):
    """What the run depended on, and its cases."""
    machine = result["machine"]
    rates = ", ".join(f"{who} {rate:.0f}" for who, rate in result["gigaflops"].items())
    bandwidth = ", ".join(f"{who} {rate:.0f}" for who, rate in result["gigabytes_per_second"].items())
    versions = ", ".join(f"{who} {version}" for who, version in sorted(result["versions"].items()))
    quick = " **A quick run: says whether it works, not how fast.**" if result["quick"] else ""
    lines = [
        f"{result['data']}; {result['rounds']} rounds, {result['minutes']} minutes.{quick} "
        f"{machine['processor']}, {machine['cores']} cores, {machine['vectors']}; matrix product in GFLOP/s: {rates}; "
        f"triad in GB/s: {bandwidth}; {versions}, Python {machine['python']}, {machine['rustc']}.",
    ]
    for case in result["cases"]:
        lines += ["", f"**{case['case']}**", "", *table(case), ""]
    return lines


def table(case):
    rates = case["unit"] != "s"
    lines = [
        f"| | {case['unit'] if rates else 'seconds, median'} | spread | times ours | checked | chosen |",
        "|---|---|---|---|---|---|",
    ]
    for row in case["rows"]:
        if "median" not in row:
            ratio = f"> {row['at_least']:.1f}" if "at_least" in row else ""
            lines.append(f"| {row['contender']} | – | | {ratio} | | {row.get('failure', 'not run')} |")
            continue
        spread = f"{min(row['seconds']):.3g}–{max(row['seconds']):.3g} s"
        value = f"{row['rate']:.4g}" if rates else f"{row['median']:.3g}"
        ratio = f"{row['ratio']:.2f} ({min(row['ratios']):.2f}–{max(row['ratios']):.2f})" if "ratio" in row else ""
        if "work" in row and row["work"] < max(other.get("work", 0) for other in case["rows"]):
            spread += f", {row['work']} of them"
        lines.append(f"| {row['contender']} | {value} | {spread} | {ratio} | {checked(row)} | {row['tuned']} |")
    return lines


# What the judge found, in words.
CHECKS = {
    "largest_gap": "gap ≤ {:.1e}",
    "missed": "{} signals miss it",
    "largest_excess": "above the best ≤ {:.1e}",
    "excess": "objective {:+.1e}",
    "data_term": "data term {:.5g}",
    "nonzeros": "{:.1f} non-zeros",
    "epoch_seconds": "epoch {:.3g} s",
    "test_objective": "test objective {:.5g}",
    "largest_difference": "codes differ ≤ {:.1e}",
    "gradient_difference": "gradients differ {:.1e}",
}


def checked(row):
    parts = [words.format(row[name]) for name, words in CHECKS.items() if name in row]
    if row.get("agrees") is False:
        parts.insert(0, "**disagrees**")
    return ", ".join(parts)
