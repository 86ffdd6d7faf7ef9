"""Accuracy against iterations, for solvers that can be looked at while they run."""

import math
import time


def trace(judge, iterate, request):
    """Runs until the objective is close enough to the optimum or time is up; objectives are looked at now and then, untimed.

    Returns for every target the iterations that it took (or none) with the seconds of the iterations alone.
    """
    reached, state = {}, {"seconds": 0.0, "since": time.perf_counter(), "next": 4, "objective": math.inf}
    targets = {name: float(name) for name in request["targets"]}

    def look(iteration, codes):
        if iteration < state["next"]:
            return False
        state["seconds"] += time.perf_counter() - state["since"]
        state["next"] = iteration + max(1, iteration // 20)
        state["objective"] = judge.objective(codes())
        excess = state["objective"] / request["optimum"] - 1
        for name, target in targets.items():
            if excess <= target:
                reached.setdefault(name, {"iterations": iteration, "seconds": state["seconds"]})
        state["since"] = time.perf_counter()
        return len(reached) == len(targets) or state["seconds"] > request["most_seconds"]

    iterate(request.get("iterations", 100000), look)
    return {"reached": reached, "objective": state["objective"], "seconds": state["seconds"]}
