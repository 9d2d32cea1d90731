"""Preemptions: how often, what they cost."""

from __future__ import annotations

from profilemate.report.model import Number, Numbers, Part
from profilemate.report.numbers import count, duration
from profilemate.report.sections.section import REQUESTS, Section
from profilemate.report.source import Source
from profilemate.session.records import table_of, text


def build(source: Source) -> Part:
    """Their number, what was lost, and how they went on."""
    preemptions = table_of(source.tracker("requests").get("preemptions"))
    if not preemptions:
        return Part(lead=("Preemptions were not tracked in this session.",))
    if not preemptions.get("total_preemptions"):
        return Part(lead=("No request was preempted.",))
    outcomes = table_of(preemptions.get("outcomes"))
    how: tuple[Number, ...] = tuple(count(text(name).capitalize(), number) for name, number in outcomes.items())
    return Part(
        numbers=(
            Numbers(
                "Preemptions",
                (
                    count("Preemptions", preemptions.get("total_preemptions")),
                    count("Requests preempted", preemptions.get("preempted_requests")),
                    duration("Resumed after, mean", preemptions.get("mean_resume_delay")),
                    duration("Resumed after, longest", preemptions.get("max_resume_delay")),
                ),
            ),
            Numbers(
                "What they cost",
                (
                    count("Lost", preemptions.get("lost_tokens"), "tokens"),
                    count("Of them still cached", preemptions.get("kept_tokens"), "tokens"),
                    count("Computed again", preemptions.get("recomputed_tokens"), "tokens"),
                    duration("Time of that", preemptions.get("recompute_sec")),
                ),
            ),
            Numbers("How they went on", how),
        )
    )


SECTION = Section("preemptions", "Preemptions", REQUESTS, build, figures=("preemptions",))
