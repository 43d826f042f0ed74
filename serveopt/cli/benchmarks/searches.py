"""Whole searches of five standard problems, each as the fresh process that a user would start."""

import json
import sys
from collections.abc import Sequence
from typing import Any

from serveopt.cli.benchmarks.figures import FACT, LESS, NOTHING, PYTHON, Figure, least
from serveopt.cli.benchmarks.processes import Run, run

PART = "searches"
# short name -> model, system, GPUs, backend
PROBLEMS = {
    "q32": ("Qwen/Qwen3-32B-FP8", "h200_sxm", "32", "trtllm"),
    "q235": ("Qwen/Qwen3-235B-A22B-FP8", "h200_sxm", "64", "auto"),
    "dsv3": ("deepseek-ai/DeepSeek-V3", "b200_sxm", "64", "sglang"),
    "gptoss": ("openai/gpt-oss-120b", "b200_sxm", "4", "trtllm"),
    "kimi": ("nvidia/Kimi-K2.5-NVFP4", "gb200", "8", "trtllm"),
}


def title(name: str) -> str:
    """A standard problem in one line.

    >>> title("q32")
    'Qwen/Qwen3-32B-FP8, 32 h200_sxm, trtllm'
    """
    model, system, gpus, backend = PROBLEMS[name]
    return f"{model}, {gpus} {system}, {backend}"


def arguments(name: str) -> list[str]:
    """The words of ``serveopt default`` that ask a standard problem."""
    model, system, gpus, backend = PROBLEMS[name]
    return ["--model", model, "--system", system, "--total-gpus", gpus, "--backend", backend]


def measure_search(name: str, repeat: int, limits: Sequence[str] = ()) -> list[Figure]:
    """The figures of one standard problem; ``limits`` are further options of the search."""
    command = [sys.executable, "-m", "serveopt", "default", *arguments(name), "--format", "json", "--quiet", *limits]
    runs = [run(command) for _ in range(repeat)]
    return search_figures(name, runs, json.loads(runs[-1].stdout))


def search_figures(name: str, runs: Sequence[Run], answer: dict[str, Any]) -> list[Figure]:
    """The figures of repeated runs whose last result is ``answer``; what the system does not tell is left out."""
    found = [least((PART, name, "wall_s"), [each.wall_s for each in runs], PYTHON)]
    processor = [each.cpu_s for each in runs if each.cpu_s is not None]
    if processor:
        found.append(least((PART, name, "cpu_s"), processor, PYTHON))
    peaks = [each.peak_mib for each in runs if each.peak_mib is not None]
    if peaks:
        # The largest of all runs: a peak is a promise, not a race.
        spread = max(peaks) / min(peaks)
        found.append(Figure(PART, name, "peak_mib", max(peaks), LESS, NOTHING, spread, len(peaks)))
    best = max((row["tokens_s_gpu_cluster"] for mode in ("agg", "disagg") for row in answer[mode]), default=0.0)
    found.append(Figure(PART, name, "search_s", answer["search_ms"] / 1e3, FACT))
    found.append(Figure(PART, name, "candidates", answer["evaluated"], FACT))
    found.append(Figure(PART, name, "best_tokens_s_gpu", best, FACT))
    return found
