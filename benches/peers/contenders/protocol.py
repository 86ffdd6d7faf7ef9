"""What every contender in Python speaks: one line of JSON per request on standard input, one per answer on standard output.

    {"command": "info"}                                       versions and threads
    {"command": "prepare", "name": N, "task": T, ...}         reads inputs; not timed
    {"command": "run", "name": N, "settings": {...}}          one repetition: {"seconds": ...}
    {"command": "write", "name": N, "path": P}                what the last repetition found
    {"command": "trace", "name": N, ...}                      iterations against accuracy (convolution only)
    {"command": "forget", "name": N}                          frees memory
    {"command": "memory"}                                     the most memory that the process has held, in bytes

A task is a class whose constructor takes the request, with `run(settings) -> dict or None` (`seconds` is added where it is
not in it), `write(path)` and, where it can, `trace(request) -> dict`.
"""

import gc
import json
import os
import resource
import sys
import time
import traceback


def serve(tasks, versions, threads=None, synchronize=lambda: None):
    """Answers until standard input ends. `tasks` maps names to classes; `synchronize` waits for what a device still does."""
    # Libraries print to standard output at times; answers go where they cannot.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    prepared = {}
    for line in sys.stdin:
        try:
            answer = handle(json.loads(line), tasks, versions, threads, prepared, synchronize)
        except Exception as error:  # Whatever it is, the other side is told.
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def handle(request, tasks, versions, threads, prepared, synchronize):
    command, name = request["command"], request.get("name")
    if command == "info":
        return {"versions": versions, "threads": threads}
    if command == "memory":
        return {"bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}
    if command == "prepare":
        prepared[name] = tasks[request["task"]](request)
        return {}
    if command == "forget":
        prepared.pop(name, None)
        gc.collect()
        return {}
    if command == "run":
        gc.collect()
        started = time.perf_counter()
        answer = prepared[name].run(request.get("settings", {})) or {}
        synchronize()
        return {"seconds": time.perf_counter() - started, **answer}
    if command == "write":
        prepared[name].write(request["path"])
        return {}
    if command == "trace":
        return prepared[name].trace(request)
    raise ValueError(f"no such command: {command}")

