"""A process that has imported what tfbatch does, and forks a child for each run of its command line.

A run then takes a tenth of a second, not two: hundreds of them can be killed, each at another place.
Each child runs the real `main`, and ends as a process of its own does. It imports onnxruntime by
itself, which starts a thread at once and joins it at the end: a thread outlives no fork.
"""

import ctypes
import gc
import json
import os
import signal
import socket
import sys
from typing import Any

import tokenizers  # noqa: F401
from tfbatch import cli, execution  # noqa: F401
from tfbatch.reporting import report  # noqa: F401
from tfbatch.tasks import load_task, task_names

PR_SET_PTRACER = 0x59616D61
ANY_PROCESS = ctypes.c_ulong(-1)


def serve(listener: socket.socket) -> None:
    """Fork a keeper for each connection, which forks a child; returns in the child."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # keepers need no burial
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            break
        connection.close()
    listener.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    request = json.loads(connection.makefile().readline())
    child = os.fork()
    if child:
        keep(child, connection)
    become(request, connection)


def keep(child: int, connection: socket.socket) -> None:
    """Say which process the child is, and how it ended."""
    connection.sendall(f"{child}\n".encode())
    _, status = os.waitpid(child, 0)
    connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def become(request: dict[str, Any], connection: socket.socket) -> None:
    """Be what was asked for, from the word to begin on."""
    ctypes.CDLL(None).prctl(PR_SET_PTRACER, ANY_PROCESS)  # strace is no parent of ours
    for descriptor, name in ((0, os.devnull), (1, request["out"]), (2, request["err"])):
        flags = os.O_RDONLY if descriptor == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        opened = os.open(name, flags, 0o644)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv = ["tfbatch", *request["words"]]
    connection.recv(1)
    connection.close()


if __name__ == "__main__":
    for name in task_names():
        load_task(name)
    gc.freeze()  # what the collector does not touch is not copied in every child
    with socket.socket(fileno=int(sys.argv[1])) as listener:
        serve(listener)
    cli.main()
