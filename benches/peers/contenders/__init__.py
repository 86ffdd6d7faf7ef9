"""One module a library; each runs as a process of its own that answers requests (see protocol.py)."""
