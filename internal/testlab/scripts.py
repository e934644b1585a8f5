"""Runs scripts of Python, each in a process of its own that has the libraries already.

Argument: the path of the socket to listen on. A connection brings a line of JSON, {"script": "...", "args": [...]}, and gets one:
{"status": n, "stdout": "...", "stderr": "..."}. It ends when its standard input does.
"""

import json
import os
import selectors
import socket
import sys
import tempfile
import traceback

# Loading these takes longer than most scripts; a fork has them at once. None of them starts a thread before it is used.
import duckdb  # noqa: F401
import fastavro  # noqa: F401
import pyarrow.compute  # noqa: F401
import pyarrow.csv  # noqa: F401
import pyarrow.dataset  # noqa: F401
import pyarrow.fs  # noqa: F401
import pyarrow.parquet  # noqa: F401
import pyiceberg.catalog.sql  # noqa: F401
import pyiceberg.io.pyarrow  # noqa: F401
import pyiceberg.table  # noqa: F401


def run(script):
    """Runs a script as python -c would, and returns its status."""
    try:
        exec(compile(script, "<script>", "exec"), {"__name__": "__main__"})
    except SystemExit as e:
        return e.code if isinstance(e.code, int) else int(e.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def answer(connection):
    with connection.makefile("rb") as f:
        question = json.loads(f.readline())
    sys.argv = ["-c", *question["args"]]
    files = tempfile.TemporaryFile(), tempfile.TemporaryFile()
    for fd, file in enumerate(files, 1):
        os.dup2(file.fileno(), fd)
    reply = {"status": run(question["script"])}
    sys.stdout.flush()
    sys.stderr.flush()
    for name, file in zip(("stdout", "stderr"), files):
        file.seek(0)
        reply[name] = file.read().decode()
    connection.sendall(json.dumps(reply).encode() + b"\n")


def reap():
    """Collects the processes that have ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen(100)
events = selectors.DefaultSelector()
events.register(listener, selectors.EVENT_READ)
events.register(sys.stdin, selectors.EVENT_READ)
while not any(key.fileobj is sys.stdin for key, _ in events.select()):
    connection, _ = listener.accept()
    if os.fork() == 0:
        listener.close()
        answer(connection)
        os._exit(0)
    connection.close()
    reap()
reap()
