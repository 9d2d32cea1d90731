"""What preemptions cost: tokens computed twice, and the time that requests waited to run again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from profilemate.advise.enough import Need, lost_rows, thin, unmet
from profilemate.advise.finding import FINE, LOOK, Evidence, Finding
from profilemate.advise.steps import ENGINE, TABLE
from profilemate.advise.words import counted
from profilemate.trackers.requests import events

if TYPE_CHECKING:
    import polars as pl

    from profilemate.frames.session import Session

TOPIC = "scheduling"
NAME = "scheduling.preemptions"
ABOUT = "preemptions"
COLUMNS = ("preemptions", "step_preempted", "recomputed_tokens", "step_tokens", "step_finished", "running")

REQUESTS_NEEDED = 100
FELT = 0.01
"""From this share of the tokens computed twice, or of the requests' running time spent waiting to resume, on it matters."""


class Cost(NamedTuple):
    """`waited_ns` and `resumed` are of preemptions with rows; `running_ns` is the time of all requests while they ran."""

    preemptions: int
    recomputed: int
    tokens: int
    rows: int
    resumed: int
    waited_ns: int
    running_ns: int

    @property
    def token_share(self) -> float:
        """Of the scheduled tokens, those computed once more."""
        return self.recomputed / self.tokens if self.tokens else 0.0

    @property
    def wait_share(self) -> float:
        """Waiting to resume over running and waiting to resume."""
        return self.waited_ns / (self.running_ns + self.waited_ns) if self.waited_ns else 0.0


def advise(session: Session, frame: pl.DataFrame) -> list[Finding]:
    """One finding; none where vLLM does not tell of preemptions (0.11) and the KV cache tracker was off."""
    if not frame["preemptions"].count() and not frame["step_preempted"].count():
        return []
    cost = measure(session, frame)
    need = Need("requests that ended", int(frame["step_finished"].sum() or 0), REQUESTS_NEEDED)
    evidence = [Evidence(TABLE, frame.height, "preempted and recomputed in each step")]
    if cost.rows:
        evidence.append(Evidence(events.PREEMPTIONS.name, cost.rows, "preempted, resumed, recovered"))
    says = f"{_text(cost)}{lost_rows(session, TABLE, events.PREEMPTIONS.name)}"
    if not cost.preemptions:
        if unmet([need]):
            return [thin(TOPIC, NAME, ABOUT, [need], says, evidence)]
        return [Finding(TOPIC, NAME, FINE, "No request was preempted", says, tuple(evidence), numbers=_numbers(cost))]
    title = (
        f"{counted(cost.preemptions, 'preemption')}: {100 * cost.token_share:.1f} % of the tokens were computed twice"
    )
    if max(cost.token_share, cost.wait_share) < FELT:
        return [Finding(TOPIC, NAME, FINE, title, says, tuple(evidence), numbers=_numbers(cost))]
    return [
        Finding(
            TOPIC, NAME, LOOK, title,
            f"{says} More KV space avoids them (kv_cache_size has sizes and flags); fewer requests at once "
            "(`--max-num-seqs`) avoid them at the price of a longer queue. Without preemptions at most these shares of tokens "
            "and time would be won.",
            tuple(evidence),
            to_be_sure="Run with more blocks, or fewer requests at once, and compare.",
            numbers=_numbers(cost),
        )
    ]  # fmt: skip


def measure(session: Session, frame: pl.DataFrame) -> Cost:
    """Counts from the steps, times from the rows of the preemptions."""
    import polars

    last = frame.group_by(ENGINE).agg(polars.col("preemptions").drop_nulls().last())
    counted = int(last["preemptions"].sum() or 0) if frame["preemptions"].count() else 0
    busy = frame.select((polars.col("running").fill_null(0) * polars.col("working_ns")).sum()).item()
    rows = session.scan(events.PREEMPTIONS.name).select("time_sec", "request", "number", "event")
    found = rows.filter(polars.col("event").is_in(["preempted", "resumed"])).collect(engine="streaming")
    key = ["request", "number"]
    began = found.filter(polars.col("event") == "preempted").unique(key, keep="first")
    again = found.filter(polars.col("event") == "resumed").unique(key, keep="first")
    pairs = began.join(again, on=key, suffix="_again")
    waited = pairs.select((polars.col("time_sec_again") - polars.col("time_sec")).sum()).item()
    return Cost(
        preemptions=max(counted, int(frame["step_preempted"].sum() or 0)),
        recomputed=int(frame["recomputed_tokens"].sum() or 0),
        tokens=int(frame["step_tokens"].sum() or 0),
        rows=found.height,
        resumed=pairs.height,
        waited_ns=round(1e9 * (waited or 0.0)),
        running_ns=int(busy or 0),
    )


def _text(cost: Cost) -> str:
    if not cost.preemptions:
        return f"No preemption in {cost.tokens:,} scheduled tokens."
    waits = (
        f" Preempted requests waited {cost.waited_ns / cost.resumed / 1e6:.3g} ms on average to run again "
        f"({cost.resumed:,} seen), {100 * cost.wait_share:.2g} % of the time in which requests ran or waited so."
        if cost.resumed
        else " How long they waited to run again was not recorded (tracker requests)."
    )
    return f"{cost.recomputed:,} of {cost.tokens:,} scheduled tokens were computed once more after a preemption.{waits}"


def _numbers(cost: Cost) -> dict[str, Any]:
    return {
        "preemptions": cost.preemptions, "recomputed_tokens": cost.recomputed, "scheduled_tokens": cost.tokens,
        "share_recomputed": cost.token_share, "resumed": cost.resumed, "seconds_waited": cost.waited_ns / 1e9,
        "share_of_time_waited": cost.wait_share,
    }  # fmt: skip
