"""Who competes, and how: entries are tuned on a sample, then repeated in turn, and what they found is judged by somebody else."""

import statistics
import time
from dataclasses import dataclass, field

import numpy as np

from process import Contender, ContenderError

# Idle threads of the last contender stop spinning before the next one starts.
PAUSE = 0.3


@dataclass
class Entry:
    """One row of a table: a way to solve the case at hand."""

    label: str
    library: str
    request: dict
    # What is tried on a sample, the fastest that is good enough being kept: pairs of additions to the request and settings.
    variants: list = field(default_factory=lambda: [({}, {})])
    settings: dict = field(default_factory=dict)
    # Signals that it is tuned on, and signals that it is given.
    sample: int = 0
    count: int = 0
    # Seconds that a repetition will take, as far as tuning tells.
    predicted: float = 0.0
    seconds: list = field(default_factory=list)
    answers: dict = field(default_factory=dict)
    failure: str = ""
    tuned: str = ""
    checks: dict = field(default_factory=dict)


class Arena:
    def __init__(self, args, folder, ours, python):
        self.args, self.folder = args, folder
        modules = {"spams": "contenders.spams", "scikit-learn": "contenders.scikit_learn",
                   "pytorch": "contenders.pytorch", "sporco": "contenders.sporco"}
        self.commands = {"ours": [str(ours)], **{name: [str(python), "-m", module] for name, module in modules.items()}}
        # Devices, where they are not the host.
        self.environments = {}
        if args.device is not None:
            self.environments = {"ours": {"BURN_DEVICE": args.device}, "pytorch": {"PEERS_TORCH_DEVICE": "cuda"}}
        self.running, self.versions = {}, {}
        self.inputs = args.work / "inputs"
        self.found = args.work / "found"
        for path in (self.inputs, self.found, args.work / "logs"):
            path.mkdir(parents=True, exist_ok=True)

    def __getitem__(self, library):
        """The process of a library, started when it is first needed."""
        contender = self.running.get(library)
        if contender is None or contender.process.poll() is not None:
            log = self.args.work / "logs" / f"{library}.txt"
            contender = self.running[library] = Contender(
                self.commands[library], self.folder, log, self.environments.get(library)
            )
            self.versions.update(contender.ask({"command": "info"}, limit=300)["versions"])
        return contender

    def close(self):
        for contender in self.running.values():
            contender.close()
        self.running.clear()

    def prepare(self, entry, additions=None):
        request = {**entry.request, **(additions or {}), "command": "prepare", "name": entry.label}
        self[entry.library].ask(request)

    def once(self, entry, settings=None, limit=900):
        settings = entry.settings if settings is None else settings
        request = {"command": "run", "name": entry.label, "settings": settings}
        return self[entry.library].ask(request, limit)

    def codes(self, entry):
        """What the last repetition found."""
        path = self.found / "codes.npy"
        self[entry.library].ask({"command": "write", "name": entry.label, "path": str(path)})
        return np.load(path)

    def invited(self, entries):
        """This crate's entries, and those of the libraries that were asked for."""
        return [entry for entry in entries if entry.library == "ours" or entry.library in self.args.contenders]

    def forget(self, entry):
        try:
            if entry.library in self.running:
                self[entry.library].ask({"command": "forget", "name": entry.label})
        except ContenderError:
            pass

    def tune(self, entry, good_enough=None):
        """Keeps the fastest variant that is good enough on the sample; `good_enough(codes)` returns None or what is lacking.

        Where several variants share the same request, they are settings from loose to strict. The first that is good enough ends
        the search among them, and the one after it is taken: signals outside the sample may be harder.
        """
        best, lacking, passed = None, [], []
        previous = None
        for number, (additions, settings) in enumerate(entry.variants):
            if additions in passed:
                continue
            try:
                if additions != previous:
                    self.prepare(entry, {**additions, "count": entry.sample})
                    previous = additions
                first = self.once(entry, settings)["seconds"]
                lack = good_enough(self.codes(entry)) if good_enough else None
                if lack:
                    lacking.append(f"{describe(additions, settings)}: {lack}")
                    continue
                passed.append(additions)
                if number + 1 < len(entry.variants) and entry.variants[number + 1][0] == additions:
                    settings = entry.variants[number + 1][1]
                    first = self.once(entry, settings)["seconds"]
                seconds = first if first > 10 else min(self.once(entry, settings)["seconds"] for _ in range(2))
                if best is None or seconds < best[0]:
                    best = (seconds, additions, settings)
            except ContenderError as error:
                previous = None
                lacking.append(f"{describe(additions, settings)}: {error}")
        self.forget(entry)
        if best is None:
            entry.failure = "; ".join(lacking)[:400]
            return
        seconds, additions, settings = best
        entry.request, entry.settings = {**entry.request, **additions}, {**entry.settings, **settings}
        entry.tuned = describe(additions, settings)
        if entry.count and entry.sample:
            # As many signals as fit the time.
            predicted = seconds * entry.count / entry.sample
            if predicted > self.args.most_seconds:
                entry.count = max(entry.sample, int(entry.count * self.args.most_seconds / predicted))
            entry.predicted = seconds * entry.count / entry.sample

    def race(self, entries, warm=True):
        """Repeats all entries in turn: first to warm up, then as often as rounds are wanted."""
        entries = [entry for entry in entries if not entry.failure]
        for entry in entries:
            self.attempt(entry, lambda entry: self.prepare(entry, {"count": entry.count} if entry.count else {}))
        for number in range(-1 if warm else 0, self.args.rounds):
            for entry in entries:
                if entry.failure or (number < 0 and entry.predicted > 20):
                    continue
                time.sleep(PAUSE)

                def repeat(entry):
                    entry.answers = self.once(entry)
                    if number >= 0:
                        entry.seconds.append(entry.answers["seconds"])

                self.attempt(entry, repeat)

    def attempt(self, entry, action):
        try:
            action(entry)
        except ContenderError as error:
            entry.failure = str(error)[:400]


def describe(additions, settings):
    """Variants in words for the table."""
    parts = {**additions, **settings}
    return ", ".join(
        f"{key} {value:.2g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in parts.items()
        if value not in (None, {})
    )


def rows(entries, work=None):
    """Rows of the results: medians, spread, and ratios to the first entry, round by round.

    `work(entry)` is how much an entry did in a repetition, where entries did not do the same.
    """
    reference = entries[0]

    def costs(entry):
        amount = work(entry) if work else 1
        return [seconds / amount for seconds in entry.seconds]

    table = []
    for entry in entries:
        row = {"contender": entry.label, "library": entry.library, "tuned": entry.tuned, **entry.checks}
        if entry.failure:
            row["failure"] = entry.failure
        if entry.seconds and not entry.failure:
            row["seconds"] = entry.seconds
            row["median"] = statistics.median(entry.seconds)
            if work:
                row["work"] = work(entry)
                row["rate"] = 1 / statistics.median(costs(entry))
            if reference.seconds:
                ratios = [cost / base for cost, base in zip(costs(entry), costs(reference))]
                row["ratio"] = statistics.median(ratios)
                row["ratios"] = ratios
            more = {key: value for key, value in entry.answers.items() if key != "seconds"}
            if more:
                row["said"] = more
        table.append(row)
    return table
