"""A contender: a process of its own that answers one request at a time, so that only one of them computes at any moment."""

import json
import os
import select
import subprocess
import time


class ContenderError(Exception):
    """What a contender said, or that it said nothing."""


class Contender:
    def __init__(self, command, folder, log, environment=None):
        """`log` receives whatever the process prints beside its answers."""
        self.command = command
        self.log = open(log, "w")
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            bufsize=0,
            # Signals that libraries send to their workers' group reach nobody else.
            start_new_session=True,
        )
        self.pending = b""

    def ask(self, request, limit=900):
        """One request, its answer; an error if it is not there within `limit` seconds, after which the process is gone."""
        if self.process.poll() is not None:
            raise ContenderError(f"{self.command[-1]}: ended with {self.process.returncode}, see {self.log.name}")
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
        except BrokenPipeError:
            pass
        end = time.monotonic() + limit
        while b"\n" not in self.pending:
            left = end - time.monotonic()
            ready, _, _ = select.select([self.process.stdout], [], [], max(left, 0))
            piece = os.read(self.process.stdout.fileno(), 1 << 16) if ready else b""
            if not piece:
                self.close()
                reason = "ended" if ready else f"no answer within {limit:.0f} s"
                raise ContenderError(f"{self.command[-1]}, {request['command']}: {reason}, see {self.log.name}")
            self.pending += piece
        line, self.pending = self.pending.split(b"\n", 1)
        answer = json.loads(line)
        if "error" in answer:
            raise ContenderError(answer["error"])
        return answer

    def close(self):
        if self.process.poll() is None:
            self.process.stdin.close()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process.stdout.close()
        self.log.close()
