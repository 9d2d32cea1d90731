"""Tables of the prefix look-ups. Tokens are summed over reasons: asked = hit + external + every missed column."""

from profilemate.schema.table import Table, fields

ENGINE = ("engine", "int", "which scheduler of this process, from 0; one unless a process holds several engines")
LOOKUP = ("lookup", "int", "number of the look-up in this engine, from 1")

MISSED = (
    ("short_tokens", "int", "missed: the last tokens, fewer than a block"),
    ("last_tokens", "int", "missed: a last whole block, since vLLM never takes a request's last token from the cache"),
    ("new_tokens", "int", "missed: never in this cache"),
    ("evicted_tokens", "int", "missed: evicted"),
    ("reset_tokens", "int", "missed: dropped by a reset of the prefix cache"),
    ("untaken_tokens", "int", "missed although cached: behind a gap, or the block that EAGLE or MTP computes again"),
    ("unkept_tokens", "int", "missed: cached by some KV groups, not kept by a sliding-window or Mamba one"),
    ("unknown_tokens", "int", "missed: new, or gone for longer than the table of gone blocks reaches back"),
    ("off_tokens", "int", "missed: no look-up was made, see cache_off"),
)
"""Why tokens had to be computed, every token under one reason."""

TOKENS = (
    ("asked_tokens", "int", "tokens of the request at its admission: the prompt, and what it had generated before"),
    ("hit_tokens", "int", "found in this engine's cache"),
    ("external_tokens", "int", "brought by a KV connector beyond those"),
    *MISSED,
    ("unwritten_blocks", "int", "blocks left out of prefix_blocks, since too many were waiting"),
)
"""Columns that add up over look-ups."""

LOOKUPS = Table(
    "prefix_lookups",
    "One row per admitted request, and per admission after a preemption.",
    fields(
        ("time_ns", "int", "when it was looked up, monotonic clock"),
        ENGINE,
        LOOKUP,
        ("request", "str", "its id, hashed with the session's secret"),
        ("resumed", "bool", "it comes back from a preemption"),
        ("cache_off", "str", "empty, or why no look-up was made: server, prompt_logprobs, pooling, request"),
        ("prompt_tokens", "int", "tokens of the prompt"),
        ("blocks", "int", "whole blocks of the prompt, as vLLM hashes them"),
        *TOKENS,
        ("newest_ns", "int", "the latest eviction among the evicted blocks, monotonic clock"),
        ("median_ns", "int", "their median"),
        ("oldest_ns", "int", "the earliest"),
        ("reach_ns", "int", "the unknown blocks were not evicted after this moment, monotonic clock"),
        ("every", "int", "one in so many missed blocks was looked at and stands for those up to the next; 1 is exact"),
    ),
)

TOTALS = Table(
    "prefix_lookup_totals",
    "Cumulative sums per engine, written before old rows of prefix_lookups are removed; the newest of each counts.",
    fields(
        ("time_ns", "int", "monotonic clock"),
        ENGINE,
        ("resumed", "bool", "of requests that come back from a preemption, or of the others"),
        ("through_lookup", "int", "counts look-ups up to this one"),
        ("lookups", "int", "look-ups so far"),
        *TOKENS,
    ),
)

BLOCKS = Table(
    "prefix_blocks",
    "The blocks of a prompt in order, as keyed numbers of their hashes, which stand for a block and all before it. A row "
    "begins where the numbers written before end; a long prompt has several rows, in later engine steps.",
    fields(
        ("time_ns", "int", "monotonic clock"),
        ENGINE,
        LOOKUP,
        ("request", "str", "its id, hashed with the session's secret"),
        ("blocks", "int", "whole blocks of the prompt"),
        ("first", "int", "index of the first block of this row, from 0"),
        ("parent", "str", "the number of the block before that, written earlier; empty if first is 0"),
        ("numbers", "str", "16 hexadecimal digits for each block, separated by spaces; empty if all were known"),
    ),
)

TABLES = (LOOKUPS, TOTALS, BLOCKS)
