"""The operations that are timed: where each lies, what it counts, and which part of an engine step's Python it is."""

from __future__ import annotations

from typing import NamedTuple

SCHEDULING, PREPARATION, SAMPLING, OUTPUT = "scheduling", "input preparation", "sampling", "output processing"


class Operation(NamedTuple):
    """`within` names the operations, the nearest first, whose time holds this one's; the first one with calls counts.

    `unit` is what a row's number counts. `part` is what it belongs to in the share of a step that is Python; without one it
    is not among it.
    """

    name: str
    doc: str
    within: tuple[str, ...] = ()
    unit: str = ""
    part: str = ""


STEP = "engine_step"
SERIALISE = "serialise"
EXECUTE = ("execute_model",)

OPERATIONS = (
    Operation(STEP, "begin of schedule to end of update_from_output; what steps overlap counts once", unit="tokens"),
    Operation("schedule", "Scheduler.schedule", (STEP,), "tokens", SCHEDULING),
    Operation("update_from_output", "Scheduler.update_from_output", (STEP,), "tokens", SCHEDULING),
    Operation("execute_model", "execute_model of the model runner, as a whole", unit="tokens"),
    Operation("update_states", "V1 _update_states: requests of the batch", EXECUTE, "tokens", PREPARATION),
    Operation("finish_requests", "V2 finish_requests", EXECUTE, "", PREPARATION),
    Operation("add_requests", "V2 add_requests", EXECUTE, "", PREPARATION),
    Operation("update_requests", "V2 update_requests", EXECUTE, "", PREPARATION),
    Operation("prepare_inputs", "V1 _prepare_inputs, V2 prepare_inputs", EXECUTE, "tokens", PREPARATION),
    Operation("attention_metadata", "V1 _build_attention_metadata, V2 prepare_attn", EXECUTE, "", PREPARATION),
    Operation("preprocess", "V1 _preprocess: embeddings, positions, encoder", EXECUTE, "", PREPARATION),
    Operation("model_launch", "V1 _model_forward, V2 run_fullgraph and run_pw_graph; on CPU the model itself", EXECUTE),
    Operation("sample_tokens", "sample_tokens of the model runner, as a whole"),
    Operation(
        "sample", "V1 _sample; V2 sample, with the logits; on CPU the sampling itself", ("sample_tokens", *EXECUTE), "",
        SAMPLING,
    ),
    Operation(
        "bookkeeping", "V1 _bookkeeping_sync: waits for the sampled tokens, then notes them", ("sample_tokens", *EXECUTE)
    ),
    Operation("process_outputs", "OutputProcessor.process_outputs in the front end", (), "outputs", OUTPUT),
    Operation("detokenise", "IncrementalDetokenizer.update, once per request and output", ("process_outputs",), "tokens"),
    Operation(SERIALISE, "MsgpackEncoder.encode and encode_into", (), "bytes"),
)  # fmt: skip

BY_NAME = {operation.name: operation for operation in OPERATIONS}
