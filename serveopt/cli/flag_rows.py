"""The options of ``default`` and ``estimate`` as rows of a table: which field one fills, its spellings, its meaning."""

from collections.abc import Iterator
from dataclasses import dataclass

from serveopt.solver.options import COST_MODELS, DATABASE_MODES, MOE_BACKENDS, QUANTS
from serveopt.solver.point import MODES
from serveopt.solver.problem import BACKENDS, SERVING_MODES, SPACES
from serveopt.solver.variants import AXES

Strings = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Flag:
    """One option; the first of its spellings is the one that help and messages use."""

    field: str
    names: Strings
    help: str
    panel: str
    choices: Strings = ()
    off: Strings = ()  # spellings that switch it off


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
        "database_mode",
        ("--database-mode",),
        "silicon: only what was measured; hybrid: related measurements where it was not; empirical; sol.",
        "Pricing",
        DATABASE_MODES,
    ),
    Flag(
        "systems_paths",
        ("--systems-paths",),
        "Comma list of data directories; 'default' is the built-in one, the first match wins.",
        "Pricing",
    ),
)

SPECULATION_FLAGS = (
    Flag("nextn", ("--nextn",), "Speculative tokens per step; auto: the model's own.", "Speculation", ("N", "auto")),
    Flag(
        "nextn_accepted",
        ("--nextn-accepted",),
        "Speculative tokens accepted per step on average; it must be given with --nextn.",
        "Speculation",
    ),
)
EXPERT_PANEL = "Experts"
EXPERT_FLAGS = (
    Flag(
        "moe_backend",
        ("--moe-backend",),
        "megamoe: dispatch, experts and combine in one kernel.",
        EXPERT_PANEL,
        MOE_BACKENDS,
    ),
    Flag(
        "moe_load_alpha",
        ("--moe-load-alpha", "--alpha"),
        "Exponent of the power law of expert loads, 0: balanced; default: the family's.",
        EXPERT_PANEL,
    ),
    Flag("enable_eplb", ("--enable-eplb",), "Expert load balancer.", EXPERT_PANEL, off=("--no-enable-eplb",)),
    Flag("eplb_slots", ("--eplb-slots", "--wideep-num-slots"), "Expert slots of the load balancer.", EXPERT_PANEL),
    Flag(
        "enable_wide_ep",
        ("--enable-wide-ep", "--enable-wideep"),
        "Exchange tokens through a library; default: where experts span nodes.",
        EXPERT_PANEL,
        off=("--no-enable-wide-ep", "--no-enable-wideep"),
    ),
)
IMAGE_PANEL = "Images"
IMAGE_FLAGS = (
    Flag("image_height", ("--image-height",), "Height of an image in pixels; 0: text only.", IMAGE_PANEL),
    Flag("image_width", ("--image-width",), "Width of an image in pixels.", IMAGE_PANEL),
    Flag("num_images", ("--num-images", "--num-images-per-request"), "Images per request.", IMAGE_PANEL),
    Flag(
        "encoder_dp",
        ("--encoder-dp", "--enable-encoder-dp"),
        "Whole images on each rank of the vision encoder.",
        IMAGE_PANEL,
        off=("--no-encoder-dp", "--disable-encoder-dp"),
    ),
)
ENCODER_FLAGS = (
    Flag(
        "enable_epd",
        ("--enable-epd",),
        "Encode images on workers of their own.",
        IMAGE_PANEL,
        off=("--no-enable-epd",),
    ),
    Flag(
        "encoder_tp",
        ("--encoder-tp",),
        "GPUs of one encode worker; default: powers of two that divide the encoder.",
        IMAGE_PANEL,
    ),
    Flag("encoder_system", ("--encoder-system",), "GPU system of the encode workers; default: --system.", IMAGE_PANEL),
    Flag("max_encoder_batch", ("--max-encoder-batch",), "Most requests encoded together.", IMAGE_PANEL),
    Flag("max_encoder_workers", ("--max-encoder-workers",), "Most encode workers of a replica.", IMAGE_PANEL),
)
MODEL_OPTIONS = (*SPECULATION_FLAGS, *EXPERT_FLAGS, *IMAGE_FLAGS)

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
        "GPUs that one replica may span; default: the cluster.",
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
    *MODEL_OPTIONS,
    *ENCODER_FLAGS,
    *QUANT_FLAGS,
    Flag(
        "vary",
        ("--vary",),
        f"Comma list of further search axes: {', '.join(AXES)}.",
        "Search",
    ),
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
    *MODEL_OPTIONS,
    *QUANT_FLAGS,
    *DATA_FLAGS,
)
