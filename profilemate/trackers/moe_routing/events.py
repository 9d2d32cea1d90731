"""Tables of the MoE routing tracker. Counts are of routed experts; shared experts see every token and are not routed."""

from profilemate.schema.table import Table, fields

MODEL = ("model", "int", "which model of this process, from 0; one unless a process holds several engines")
LAYER = ("layer_idx", "int", "number of the layer in the model, dense layers included")

LAYERS = Table(
    "moe_layers",
    "One row per MoE layer of a loaded model, and whether its router is counted.",
    fields(
        ("time_ns", "int", "when the model was loaded, monotonic clock"),
        MODEL,
        (
            "layer_idx",
            "int",
            "number of the layer in the model, dense layers included; empty for all that are not known",
        ),
        ("router", "str", "vLLM's class of the router"),
        ("num_experts", "int", "experts that the router chooses from, before EPLB makes copies of them"),
        ("top_k", "int", "experts for a token"),
        ("unseen", "str", "empty if it is counted, else why not; see trackers/moe_routing/layers.py"),
        ("pairs", "str", "counted, off (by setting, or as its router is not counted) or too_large"),
    ),
)

COUNTS = Table(
    "moe_counts",
    "How often each expert was chosen, cumulative: the last row of a layer is its total as of that time.",
    fields(
        ("time_ns", "int", "when the counts were as they stand here, monotonic clock"),
        MODEL,
        LAYER,
        ("passes", "int", "serving forward passes so far"),
        ("tokens", "int", "tokens scheduled in them, padding left out: times top_k, what the counts add up to"),
        ("outside", "int", "choices that are none of the experts, such as shared experts fused into the kernel"),
        ("counts", "str", "choices of each expert, in their order, separated by spaces"),
    ),
)

PAIRS = Table(
    "moe_pairs",
    "How often two experts were chosen for the same token, cumulative, all as of one moment.",
    fields(
        ("time_ns", "int", "when the counts were as they stand here, monotonic clock"),
        MODEL,
        LAYER,
        ("tokens", "int", "tokens scheduled so far"),
        ("expert_id", "int", "the one that the router named first"),
        ("counts", "str", "by the one that it named later, in their order, separated by spaces"),
    ),
)

TABLES = (LAYERS, COUNTS, PAIRS)
