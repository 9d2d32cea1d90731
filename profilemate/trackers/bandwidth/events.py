"""Tables of the bandwidth tracker: its cells of the row of a forward pass."""

from profilemate.schema.pass_table import BASE, pass_table
from profilemate.schema.table import Table
from profilemate.trackers.forward_passes import events as passes

PASS = pass_table(
    "Sums over the requests of a forward pass, from which bytes and operations are worked out later.",
    "output_rows",
    (
        "kv_tokens",
        "int",
        "sum of the requests' context after the pass: tokens whose keys and values a full layer reads",
    ),
    (
        "prompt_kv_tokens",
        "int",
        "of these, those of new requests and of requests with several tokens, as vLLM counts prefill",
    ),
    ("attention_pairs", "int", "pairs of a scheduled token and a token at or before it"),
    ("attention_products", "int", "sum over requests of scheduled tokens times context, as vLLM counts pairs"),
    ("window_kv_tokens", "int", "as kv_tokens for a layer with the model's sliding window; empty where it has none"),
    ("window_pairs", "int", "as attention_pairs for such a layer"),
    ("output_rows", "int", "rows of logits: one for each request and each drafted token"),
)

READ = Table(PASS.name, PASS.doc, passes.PASSES.fields + PASS.fields[len(BASE.fields) :], PASS.present)
"""The row as it is read: with the cells of the forward pass tracker, which is there whenever this one is."""

TABLES = (PASS,)
