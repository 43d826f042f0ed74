"""The vision encoder of Qwen3-VL: a transformer over patches, then projectors to the decoder's width.

One layer is norm, QKV, attention within an image, projection, all-reduce, norm, two feed-forward products with an
activation between, all-reduce, rotary embedding. Every projector merges neighbouring patches: it sees a share of the
tokens. All in bfloat16. Source: specs/search_model.md 1.7.
"""

from serveopt.solver.families.blocks import BF16
from serveopt.solver.families.table import Setting
from serveopt.solver.images import vision_config
from serveopt.solver.operators import descriptions as ops

DTYPE = "bfloat16"


def encoder_tp(setting: Setting) -> int:
    """Over how many GPUs each image is split."""
    return 1 if setting.encoder_dp else setting.layout.tp


def build_encoder(setting: Setting) -> tuple[ops.Operator, ...]:
    """Operators of the encoder on one GPU; their tokens are the patches that images.count_images counts."""
    return (*transformer(setting), *projectors(setting)) if setting.encodes else ()


def transformer(setting: Setting) -> list[ops.Operator]:
    """The layers over patches."""
    vision, tp = vision_config(setting.model), encoder_tp(setting)
    layers, hidden, heads, inner = (vision[name] for name in ("depth", "hidden_size", "num_heads", "intermediate_size"))
    width = hidden // tp
    return [
        ops.MemoryMove("encoder_add_norm_1", layers, 2 * hidden * 2 * BF16),
        ops.Gemm("encoder_qkv_gemm", layers, 3 * width, hidden, DTYPE),
        ops.EncoderAttention("encoder_attention", layers, heads // tp, hidden // heads),
        ops.Gemm("encoder_proj_gemm", layers, hidden, width, DTYPE, low_precision_input=True),
        ops.AllReduce("encoder_ar_1", layers, hidden, tp),
        ops.MemoryMove("encoder_add_norm_2", layers, 2 * hidden * 2 * BF16),
        ops.Gemm("encoder_ffn1_gemm", layers, inner // tp, hidden, DTYPE),
        ops.MemoryMove("encoder_act", layers, 2 * (inner // tp) * BF16),
        ops.Gemm("encoder_ffn2_gemm", layers, hidden, inner // tp, DTYPE, low_precision_input=True),
        ops.AllReduce("encoder_ar_2", layers, hidden, tp),
        ops.MemoryMove("encoder_rope_apply", layers, 12 * width * BF16),
    ]


def projectors(setting: Setting) -> list[ops.Operator]:
    """The main projector and those of the deep layers, and the gathering of what other ranks encoded."""
    vision, tp = vision_config(setting.model), encoder_tp(setting)
    merged = vision["spatial_merge_size"] ** 2
    width, out, share = vision["hidden_size"] * merged, vision["out_hidden_size"], 1.0 / merged
    count = 1 + len(vision.get("deepstack_visual_indexes", ()))
    own = width // tp
    gathered = out * count * setting.layout.tp / merged
    return [
        ops.Gemm("encoder_projector_fc0_gemm", count, own, width, DTYPE, share=share),
        ops.MemoryMove("encoder_projector_fc0_act", count, 2 * own * BF16, share),
        ops.Gemm("encoder_projector_fc1_gemm", count, out, own, DTYPE, share=share),
        ops.AllReduce("encoder_projector_ar", count, out, tp, share),
        *(
            [ops.Nccl("encoder_dp_all_gather", 1, "all_gather", gathered, setting.layout.tp)]
            if setting.encoder_dp and setting.layout.tp > 1
            else []
        ),
    ]
