"""Entry of ``serveopt`` and ``python -m serveopt``."""

import atexit
import gc
import io
import os
import sys

# Modules and compiled code make some 10^5 objects that live as long as the process: searching them for garbage
# again and again takes a tenth of the start-up time.
COLLECT_AFTER = 200_000


def main() -> None:
    """Never returns: leaves with the exit code of the command; 130 on Ctrl-C, even while modules load."""
    gc.set_threshold(COLLECT_AFTER)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a character is no reason to fail
    try:
        from serveopt.cli.app import app

        app(prog_name="serveopt")
        code = 0
    except KeyboardInterrupt:
        code = 130
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    leave(code)


def leave(code: int) -> None:
    """Never returns: ends the process without taking every module and compiled kernel apart, which takes 0.15 s."""
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        code = code or 141  # the reader has what it wanted
    except OSError:
        code = code or 1  # a full disk
    os._exit(code)


if __name__ == "__main__":
    main()
