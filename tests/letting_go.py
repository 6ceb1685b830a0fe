"""What ends in another thread than the one that made it, and a signal after that."""

import subprocess
import sys

_CODE = """
import signal, sys, threading
MAKE
thread = threading.Thread(target=made.clear)
thread.start()
thread.join()
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have had it ignored
try:
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""


def interrupted_after(make: str, *arguments: object) -> bool:
    """Tell whether Ctrl-C still is a KeyboardInterrupt in a process that let go of the list `made` in another thread.

    make: code that makes the list, of `sys.argv[1:]`, the arguments. Python runs its handlers on the signal stack,
    which OpenVINO replaces by one that it unmaps where the last network ends.
    """
    command = [sys.executable, "-X", "faulthandler", "-c", _CODE.replace("MAKE", make), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout[-1000:]}\n{done.stderr[-2000:]}"
    return done.stdout == "interrupted\n"
