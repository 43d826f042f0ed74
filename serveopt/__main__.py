"""Entry of ``serveopt`` and ``python -m serveopt``."""

import io
import sys


def main() -> None:
    """Never returns: leaves with the exit code of the command; 130 on Ctrl-C, even while modules load."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a character is no reason to fail
    try:
        from serveopt.cli.app import app

        app(prog_name="serveopt")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
