"""Options as rows of a table: which field an option fills, how it may be spelled, what it means.

Types and defaults are read from the record that the options fill (``Problem``, ``Point``), so that the command line
and the Python interface cannot drift apart. One pass over the arguments reads underscores in an option's name as
hyphens and every further spelling as the first one; the commands know no other.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Annotated, Any, get_type_hints

import typer

from serveopt.solver.point import MODES, QUANTS
from serveopt.solver.problem import BACKENDS, COST_MODELS, SERVING_MODES, SPACES

Strings = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Flag:
    """One option; the first of its spellings is the one that help and messages use."""

    field: str
    names: Strings
    help: str
    panel: str
    choices: Strings = ()


BACKEND_NAMES = ("--backend", "--backend-name")
MODEL_FLAGS = (
    Flag("model", ("--model", "--model-path"), "Catalogue name, local directory or Hugging Face name.", "Question"),
    Flag("system", ("--system", "--system-name"), "GPU system, such as h200_sxm.", "Question"),
    Flag(
        "backend_version",
        ("--backend-version", "--perf-db-version"),
        "Version of the measured data: an exact one, current, previous or next.",
        "Question",
    ),
    Flag("isl", ("--isl",), "Input tokens per request.", "Question"),
    Flag("osl", ("--osl",), "Output tokens per request.", "Question"),
    Flag("prefix_len", ("--prefix", "--prefix-len"), "Input tokens that are already in the KV cache.", "Question"),
)

QUANT_PANEL = "Quantisation; default: the checkpoint's own"
QUANT_NAMES = (
    ("gemm_quant", ("--gemm-quant-mode", "--gemm-quant"), "GEMM quantisation."),
    ("kv_quant", ("--kvcache-quant-mode", "--kv-quant"), "KV cache quantisation."),
    ("fmha_quant", ("--fmha-quant-mode", "--fmha-quant"), "Attention quantisation."),
    ("moe_quant", ("--moe-quant-mode", "--moe-quant"), "Expert quantisation."),
    ("comm_quant", ("--comm-quant-mode", "--comm-quant"), "Communication quantisation."),
)
QUANT_FLAGS = tuple(Flag(name, names, text, QUANT_PANEL, QUANTS[name]) for name, names, text in QUANT_NAMES)

LIMIT_FLAGS = (
    Flag(
        "free_gpu_memory_fraction",
        ("--free-gpu-memory-fraction",),
        "Share of free GPU memory that the KV cache may take; default: the backend's.",
        "Limits",
    ),
    Flag(
        "max_seq_len", ("--max-seq-len",), "Longest sequence that the KV cache must hold; default: isl + osl.", "Limits"
    ),
)

DATA_FLAGS = (
    Flag("attention_backend", ("--attention-backend",), "Attention kernel lane; default: the backend's.", "Pricing"),
    Flag(
        "cost_model",
        ("--cost-model",),
        "Pricing rules; default: measured, and reference with --points or --space reference.",
        "Pricing",
        COST_MODELS,
    ),
    Flag(
        "systems_paths",
        ("--systems-paths",),
        "Comma list of data directories; 'default' is the built-in one, the first match wins.",
        "Pricing",
    ),
)

DECODE_SYSTEM = Flag(
    "decode_system", ("--decode-system",), "GPU system of the decode workers; default: --system.", "Question"
)

SEARCH_FLAGS = (
    *MODEL_FLAGS,
    Flag("backend", BACKEND_NAMES, "Serving engine; auto: all three.", "Question", (*BACKENDS, "auto")),
    Flag("total_gpus", ("--total-gpus",), "GPUs of the cluster.", "Question"),
    DECODE_SYSTEM,
    Flag("ttft_ms", ("--ttft", "--ttft-ms"), "Limit of the time to first token, ms.", "Question"),
    Flag("tpot_ms", ("--tpot", "--tpot-ms"), "Limit of the time per output token, ms.", "Question"),
    Flag("serving_mode", ("--serving-mode",), "Which ways of serving to search; auto: both.", "Search", SERVING_MODES),
    Flag("space", ("--space",), "All candidates, or the reference tool's grids.", "Search", SPACES),
    Flag("top_n", ("--top-n",), "Rows kept per serving mode.", "Search"),
    Flag(
        "strict_sla", ("--strict-sla",), "Only configurations inside the limits may enter the Pareto front.", "Search"
    ),
    Flag(
        "max_gpus_per_replica",
        ("--max-gpus-per-replica",),
        "GPUs that one replica may span; default: at most 128.",
        "Limits",
    ),
    Flag("max_prefill_batch", ("--max-prefill-batch",), "Largest batch of a prefill worker.", "Limits"),
    Flag("max_batch", ("--max-batch",), "Largest batch per attention-dp rank; default: what memory holds.", "Limits"),
    Flag(
        "max_ctx_tokens",
        ("--max-ctx-tokens",),
        "Most context tokens in one step; default: max(8192, 2 isl).",
        "Limits",
    ),
    *LIMIT_FLAGS,
    *QUANT_FLAGS,
    Flag("threads", ("--threads",), "Threads of the sweep; default: one per core.", "Search"),
    *DATA_FLAGS,
)

LAYOUT_NAMES = (
    ("tp", ("tp", "tp-size"), "Tensor parallel degree."),
    ("pp", ("pp", "pp-size"), "Pipeline parallel degree."),
    ("attn_dp", ("dp", "attn-dp", "attention-dp-size"), "Attention data parallel degree."),
    ("moe_tp", ("etp", "moe-tp", "moe-tp-size"), "Expert tensor parallel degree."),
    ("moe_ep", ("ep", "moe-ep", "moe-ep-size"), "Expert parallel degree."),
    ("cp", ("cp", "cp-size"), "Context parallel degree."),
)
BATCH_NAME = ("batch", ("bs", "batch-size", "batch"), "Batch per attention-dp rank.")
WORKERS_NAME = ("workers", ("workers", "num-workers"), "Workers of a replica.")


def _role_flags(role: str, mark: str) -> Iterator[Flag]:
    """The layout of one role of a disaggregated point: ``--p-tp`` and ``--prefill-tp``, ..."""
    for name, spellings, text in (*LAYOUT_NAMES, BATCH_NAME, WORKERS_NAME):
        names = tuple(f"--{prefix}-{spelling}" for prefix in (mark, role) for spelling in spellings)
        yield Flag(f"{role}_{name}", names, text, f"Disaggregated: {role} workers")


POINT_FLAGS = (
    *MODEL_FLAGS,
    Flag("backend", BACKEND_NAMES, "Serving engine.", "Question", BACKENDS),
    Flag("mode", ("--estimate-mode", "--mode"), "What to price.", "Question", MODES),
    *(Flag(name, tuple(f"--{word}" for word in words), text, "Worker") for name, words, text in LAYOUT_NAMES),
    Flag("batch", ("--batch-size", "--bs", "--batch"), "Batch per attention-dp rank.", "Worker"),
    Flag("ctx_tokens", ("--ctx-tokens",), "Context tokens of one step, aggregated; default: isl.", "Worker"),
    *_role_flags("prefill", "p"),
    *_role_flags("decode", "d"),
    DECODE_SYSTEM,
    *LIMIT_FLAGS,
    *QUANT_FLAGS,
    *DATA_FLAGS,
)

FIRST_SPELLING = {name: flag.names[0] for flag in (*SEARCH_FLAGS, *POINT_FLAGS) for name in flag.names[1:]}


def normalise_args(args: Sequence[str]) -> list[str]:
    """Arguments under the first spelling of every option, without the word ``cli`` that older scripts put first.

    >>> normalise_args(["cli", "default", "--model_path=my_model", "--total_gpus", "8"])
    ['default', '--model=my_model', '--total-gpus', '8']
    """
    words = list(args[1:] if args[:1] == ["cli"] else args)
    for index, word in enumerate(words):
        if word == "--":
            break
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            name = name.replace("_", "-")
            words[index] = FIRST_SPELLING.get(name, name) + equals + value
    return words


def parameters(record: type, flags: Sequence[Flag], required: bool = True) -> list[inspect.Parameter]:
    """Keyword parameters of a command whose values fill the fields of the dataclass ``record``.

    Without ``required``, a field that has no default may be left out and is None then.
    """
    hints = get_type_hints(record)
    defaults = {field.name: field.default for field in fields(record)}
    found = []
    for flag in flags:
        hint, default = hints[flag.field], defaults[flag.field]
        if default is MISSING and not required:
            hint, default = hint | None, None
        found.append(_parameter(flag, hint, default))
    return found


def field_values(flags: Sequence[Flag], values: dict[str, Any]) -> dict[str, Any]:
    """The part of a command's values that ``flags`` fill; comma lists become tuples."""
    chosen = {flag.field: values[flag.field] for flag in flags}
    if "systems_paths" in chosen:
        chosen["systems_paths"] = split_paths(chosen["systems_paths"])
    return chosen


def split_paths(systems_paths: str) -> Strings:
    """The directories of a comma list; the built-in one where it is empty.

    >>> split_paths("mine, default,")
    ('mine', 'default')
    """
    return tuple(part.strip() for part in systems_paths.split(",") if part.strip()) or ("default",)


def flag_name(field: str) -> str:
    """The option that fills ``field``, as messages name it.

    >>> flag_name("ttft_ms"), flag_name("total_gpus"), flag_name("save_dir")
    ('--ttft', '--total-gpus', '--save-dir')
    """
    spelled = {flag.field: flag.names[0] for flag in (*POINT_FLAGS, *SEARCH_FLAGS)}
    return spelled.get(field, "--" + field.replace("_", "-"))


def _parameter(flag: Flag, hint: Any, default: Any) -> inspect.Parameter:
    if hint == tuple[str, ...]:
        hint, default = str, ",".join(default)
    option = typer.Option(
        flag.names[0],
        help=flag.help + _also(flag),
        rich_help_panel=flag.panel,
        metavar="|".join(flag.choices) if 0 < len(flag.choices) < 5 else None,
        autocompletion=_completion(flag.choices) if flag.choices else None,
    )
    start = inspect.Parameter.empty if default is MISSING else default
    return inspect.Parameter(
        flag.field, inspect.Parameter.KEYWORD_ONLY, default=start, annotation=Annotated[hint, option]
    )


def _also(flag: Flag) -> str:
    """The other spellings, as the help names them."""
    return f" (also {', '.join(flag.names[1:])})" if flag.names[1:] else ""


def _completion(choices: Strings) -> Callable[[str], list[str]]:
    def complete(incomplete: str) -> list[str]:
        return [choice for choice in choices if choice.startswith(incomplete)]

    return complete
