"""Aligned Markdown tables, and the machine in a line, for the scripts beside this file."""

import os
import platform
from collections.abc import Sequence

from serveopt.cli.benchmarks.machine import cores, cpu_model


def machine_line() -> str:
    """What a table of timings has to say of where they were taken."""
    load = f", load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{cores()} cores, {cpu_model()} ({platform.machine()}), Python {platform.python_version()}{load}"


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Nothing; prints an aligned Markdown table, words to the left and numbers to the right."""
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    for number, line in enumerate(lines):
        cells = [cell.rjust(width) for cell, width in zip(line, widths, strict=True)]
        cells[0] = line[0].ljust(widths[0])
        print(f"| {' | '.join(cells)} |")
        if number == 0:
            marks = ["-" * (width + 1) + ":" for width in widths]
            print(f"|{'|'.join(['-' * (widths[0] + 2), *marks[1:]])}|")
