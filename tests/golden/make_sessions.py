"""Make the golden sessions: small real ones, cut from recordings, and odd worlds derived from those.

    python tests/golden/make_sessions.py                      derive the odd ones from the real ones that lie here
    python tests/golden/make_sessions.py cut NAME SESSION     make sessions/NAME from a recording of record.py

Both give the same bytes for the same input. Nothing here is ProfileMate's own code except `trimmed`, which is made by
ProfileMate's own retention.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
import cutting
from cutting import Stream, changed_record, move_clock, processes, read_record, write_record

HERE = Path(__file__).resolve().parent

SESSIONS = HERE / "sessions"
BOOTS: dict[str, str] = {}
KEPT_HOOKS = ("put_in", "switched_off", "absent", "does_not_fit")
CUMULATIVE = {"health.csv": "hook", "cpu_operations.csv": "operation"}
SECOND = 1_000_000_000
OTHER_BOOT = "22222222-2222-4222-8222-222222222222"


# -- real ones ---------------------------------------------------------------------------------------------------------


def cut(name: str, recording: Path) -> Path:
    """A small copy of a recording: newest rows of cumulative streams, hooks that went in, no path and no boot of ours."""
    session = cutting.copy(recording, SESSIONS / name)
    write_record(session / "session.json", _general(read_record(session / "session.json")))
    for folder in processes(session):
        _cut_process(folder)
        if name not in ALL_HOOKS:
            _keep_few_hooks(folder)
    return session


def _cut_process(folder: Path) -> None:
    record = _general(read_record(folder / "process.json"))
    record["hooks"] = [hook for hook in record["hooks"] if hook["state"] in KEPT_HOOKS]
    write_record(folder / "process.json", record)
    for file, key in CUMULATIVE.items():
        if (folder / file).exists():
            Stream(folder / file).last_of_each(key).write()


def _general(record: cutting.Record) -> cutting.Record:
    """Without what is this machine's: folders, the boot."""
    boot = BOOTS.setdefault(record["boot_id"], f"{len(BOOTS) + 1:08d}-1111-4111-8111-111111111111")
    settings = {**record["settings"], "directory": "/tmp/vllm_profiling"}
    config = dict(record.get("engine_config", {}))
    if "model" in config:
        name = Path(config["model"]).name
        config["model"] = f"models/{'no-model' if name.startswith('tmp') else name}"
    changed = {**record, "boot_id": boot, "settings": settings}
    return {**changed, "engine_config": config} if "engine_config" in record else changed


# -- odd ones ----------------------------------------------------------------------------------------------------------


def _without_end(folder: Path) -> None:
    """As long as a process runs, and for ever where Python did not see its end."""
    write_record(folder / "process.json", {**read_record(folder / "process.json"), "ended_ns": None})


def empty(session: Path) -> None:
    """Processes began and recorded nothing: process.json and no stream."""
    for folder in processes(session):
        for file in folder.glob("*.csv"):
            file.unlink()
        changed_record(folder / "process.json", hooks=[])
        _without_end(folder)


def nothing_yet(session: Path) -> None:
    """`profilemate run` began the session and no vLLM process came: session.json and an empty folder."""
    shutil.rmtree(session / "processes")


def killed(session: Path) -> None:
    """kill -9 of engine and worker in the middle of a step: torn rows, requests that never end, no end of the front end."""
    [front], [engine], [worker] = (processes(session, role) for role in ("APIServer", "EngineCore", "Worker"))
    steps = Stream(engine / "engine_steps.csv")
    death_ns = int(steps.cell(steps.rows[len(steps.rows) * 6 // 10], "time_ns"))
    for folder in (front, engine, worker):
        for stream in cutting.streams(folder):
            before = len(stream.rows)
            stream.keep(lambda row, stream=stream: int(stream.cell(row, "time_ns")) <= death_ns)  # type: ignore[misc]
            is_torn = folder != front and 0 < len(stream.rows) < before
            stream.write(",".join(stream.rows[-1])[:23] if is_torn else "") if stream.rows else stream.path.unlink()
        _without_end(folder)
    late = worker.with_name("Worker.vm.99999.9999999")  # a process that was killed before it wrote its record
    late.mkdir()
    cutting.new_stream(late / "graph_phases.csv", *Stream(worker / "graph_phases.csv").columns)


def clock_step(session: Path) -> None:
    """The wall clock went back by 20 s in the middle, and the worker is of another boot (another host's kernel).

    What is measured by the wall clock (vLLM's end-to-end time and time to first token) is negative for requests in flight.
    """
    [front], [engine], [worker] = (processes(session, role) for role in ("APIServer", "EngineCore", "Worker"))
    steps = Stream(engine / "engine_steps.csv")
    step_ns = int(steps.cell(steps.rows[len(steps.rows) // 2], "time_ns"))
    ends, arrivals = Stream(front / "request_ends.csv"), Stream(front / "request_arrivals.csv")
    arrived = {arrivals.cell(row, "request"): int(arrivals.cell(row, "time_ns")) for row in arrivals.rows}
    for row in ends.rows:
        ended, began = int(ends.cell(row, "end_ns")), arrived[ends.cell(row, "request")]
        for name, until_ns in (("e2e_ns", ended), ("ttft_ns", int(ends.cell(row, "first_token_ns") or ended))):
            if began <= step_ns < until_ns:
                place = ends.columns.index(name)
                row[place] = str(int(row[place]) - 20 * SECOND)
    ends.write()
    record = read_record(engine / "process.json")
    clock = {**record["clock"], "wall_ns": record["clock"]["wall_ns"] - 20 * SECOND}
    changed_record(engine / "process.json", clock=clock)
    move_clock(worker, 7_777 * SECOND, OTHER_BOOT)


def old_format(session: Path) -> None:
    """Format 1, which this ProfileMate does not read."""
    changed_record(session / "session.json", format=1)
    for folder in processes(session):
        changed_record(folder / "process.json", format=1)
        for stream in cutting.streams(folder):
            stream.rows = stream.rows[:3]
            stream.write()


def old_columns(session: Path) -> None:
    """An earlier ProfileMate of the same format: columns and entries that came later are not there."""
    newer = {
        "health.csv": ["first_calls", "first_ns", "sampled_calls", "sampled_ns"],
        "engine_steps.csv": ["output_steps", "prompt_tokens", "in_flight", "preempted_hit_tokens"],
        "forward_passes.csv": ["sample_ns", "uniform_token_count", "max_query_len", "num_ubatches"],
        "graph_captures.csv": ["uniform_token_count", "max_query_len", "num_ubatches"],
        "engine_requests.csv": ["priority"],
        "request_arrivals.csv": ["priority", "external"],
    }
    for folder in processes(session):
        for file, names in newer.items():
            if (folder / file).exists():
                Stream(folder / file).without(names).write()
        changed_record(folder / "process.json", cost=None, secret_id=None, ended_ns=None)
    changed_record(session / "session.json", pid_namespace=None, start_time=None)


def running(session: Path) -> None:
    """A server that runs: no end, requests in flight. `alive_in` of golden.py makes its processes live on this machine."""
    [front], [engine], [worker] = (processes(session, role) for role in ("APIServer", "EngineCore", "Worker"))
    steps = Stream(engine / "engine_steps.csv")
    now_ns = int(steps.cell(steps.rows[len(steps.rows) * 7 // 10], "time_ns"))
    for folder in (front, engine, worker):
        for stream in cutting.streams(folder):
            stream.keep(lambda row, stream=stream: int(stream.cell(row, "time_ns")) <= now_ns)  # type: ignore[misc]
            stream.write() if stream.rows else stream.path.unlink()
        _without_end(folder)


def no_session_json(session: Path) -> None:
    """Somebody copied the process folders alone."""
    (session / "session.json").unlink()


def damaged(session: Path) -> None:
    """Binary garbage, another table's header, rows of wrong width and type, a truncated process.json, a huge line."""
    [front], [engine], [worker] = (processes(session, role) for role in ("APIServer", "EngineCore", "Worker"))
    garbage = bytes(range(256)) * 12
    steps = engine / "engine_steps.csv"
    lines = steps.read_bytes().splitlines(keepends=True)
    middle = len(lines) // 2
    wrong = [b"1,2,3\n", b"not,a,row\n", lines[middle].replace(b",", b";"), b"\x00\xff\xfe\n", b"9" * 70_000 + b"\n"]
    steps.write_bytes(b"".join(lines[:middle] + wrong + lines[middle:]))
    (engine / "kv_usage.csv").write_bytes(garbage)
    (engine / "kv_evictions.csv").write_text("alpha,beta\n1,2\n")
    (worker / "graph_captures.csv").write_bytes(b"")
    passes = worker / "forward_passes.csv"
    text = passes.read_text().splitlines(keepends=True)
    passes.write_text("".join([*text[:10], text[10].replace(",", ",x", 1), *text[11:-1], text[-1][:17]]))
    record = worker / "process.json"
    record.write_bytes(record.read_bytes()[:700])
    (front / "health.csv").unlink()
    (front / "health.csv").mkdir()
    (front / "health.csv" / "kept").write_text("git keeps no empty folder\n")
    (session / "processes" / "notes.txt").write_text("a file where folders should be\n")


def hooks_off(session: Path) -> None:
    """Hooks that did not fit this vLLM, and one that switched itself off after five failures."""
    [engine] = processes(session, "EngineCore")
    record = read_record(engine / "process.json")
    for hook in record["hooks"]:
        if hook["tracker"] == "kv_cache":
            hook.update(state="does_not_fit", reason="has no parameter 'blocks'")
        if hook["tracker"] == "requests":
            hook.update(state="absent", reason=f"there is no {hook['target'].partition(':')[2]}")
        if hook["name"] == "scheduler.schedule":
            hook.update(state="switched_off", reason="KeyError: 'num_scheduled_tokens'", failures=5)
    write_record(engine / "process.json", record)
    for file in ("kv_usage.csv", "kv_evictions.csv", "engine_requests.csv", "preemptions.csv"):
        (engine / file).unlink(missing_ok=True)
    steps = Stream(engine / "engine_steps.csv")
    steps.keep(lambda row: int(steps.cell(row, "step")) <= 30)
    steps.change(lambda cell: "", *KV_COLUMNS).write()
    health = Stream(engine / "health.csv")
    gone = {hook["name"] for hook in record["hooks"] if hook["state"] in ("does_not_fit", "absent")}
    health.keep(lambda row: health.cell(row, "hook") not in gone)
    for row in health.rows:
        if health.cell(row, "hook") == "scheduler.schedule":
            row[health.columns.index("state")] = "switched_off"
            row[health.columns.index("failures")] = "5"
    health.write()


KV_COLUMNS = (
    "total_blocks", "in_use", "cached_free", "empty", "step_peak", "allocated", "released", "freed", "evicted",
    "lifetime_ns", "idle_ns", "timed_evictions", "failed_allocations", "operations", "busy_steps", "output_steps",
    "scheduled_tokens", "peak", "peak_time_ns", "touched", "touched_free", "preemptions", "resets", "query_requests",
    "query_tokens", "hit_tokens", "preempted_query_tokens", "preempted_hit_tokens", "prompt_tokens",
)  # fmt: skip

SCRIPT = "</script><script>window.harm=1</script>"


def script_names(session: Path) -> None:
    """Script text, quotes, control characters and other alphabets wherever a name can come from outside."""
    model = f"models/{SCRIPT}-\u6a21\u578b-\u00e4\u00f6\u00fc \"quoted\" & 'single'"
    changed_record(session / "session.json", host="h\u00f6st-\u4e3b\u6a5f", session_id=f"session_{SCRIPT}")
    for folder in processes(session):
        record = read_record(folder / "process.json")
        config = {**record["engine_config"], **({"model": model} if "model" in record["engine_config"] else {})}
        warnings = [f"<img src=x onerror=window.harm=2> \x1b[31mred\x1b[0m {SCRIPT}"]
        settings = {**record["settings"], "show_request_ids": True}
        record["hooks"][0].update(reason=SCRIPT, name=f"hook.{SCRIPT}")
        record.update(engine_config=config, warnings=warnings, settings=settings, host="h\u00f6st-\u4e3b\u6a5f")
        record.update(vllm=f"0.32.0{SCRIPT}")
        write_record(folder / "process.json", record)
        _show_ids(folder)
    [worker] = processes(session, "Worker")
    own = cutting.new_stream(worker / "my_tracker.csv", "time_ns", "label", "value")
    first = Stream(worker / "forward_passes.csv")
    own.add(time_ns=first.cell(first.rows[0], "time_ns"), label=SCRIPT, value=1)
    own.add(time_ns=first.cell(first.rows[1], "time_ns"), label="=1+1 \u00fc\u6a21", value=2.5).write()


def _show_ids(folder: Path) -> None:
    """Ids as a client may choose them; what a CSV cannot take the probe writes as an underscore."""
    kinds = (
        f"{SCRIPT}",
        "=HYPERLINK(_http://x_)",
        "\u8bf7\u6c42-\u00e9",
        "' OR 1=1 --",
        "a b\u2028c".replace("\u2028", "_"),
    )
    for file in ("request_arrivals", "request_ends", "engine_requests", "preemptions"):
        path = folder / f"{file}.csv"
        if path.exists():

            def shown(cell: str) -> str:
                return f"{kinds[int(cell, 16) % len(kinds)]}-{cell[:6]}"

            Stream(path).change(shown, "request", "external", "for_request").write()


def trimmed(session: Path) -> None:
    """Exported at its end; then the folder cap took its detail. Made by ProfileMate's own export and retention."""
    root = str(HERE.parents[1])
    if root not in sys.path:
        sys.path.insert(0, root)
    from profilemate.export.readme_files import write
    from profilemate.export.retention import remove_detail
    from profilemate.session.session import Session

    write(Session(session))
    remove_detail(session)


BASE, FEW = "server", 6
DERIVED: dict[str, Callable[[Path], None]] = {
    made.__name__: made
    for made in (
        empty, nothing_yet, killed, clock_step, old_format, old_columns, running, no_session_json, damaged, hooks_off,
        script_names, trimmed,
    )
}  # fmt: skip
"""How each odd one is made of BASE."""

ALL_HOOKS = ("server", "no_graphs", "cap_reached", "hybrid_cache", "hooks_off", "script_names")
"""Sessions that keep the record of every hook that went in; the others keep a few of each process."""

FROZEN = ("trimmed",)
"""As an earlier version left it; made anew only by name."""


def derive(name: str, target: Path) -> Path:
    """Make one odd session in a folder."""
    session = cutting.copy(SESSIONS / BASE, target)
    if name not in ALL_HOOKS:
        for folder in processes(session):
            _keep_few_hooks(folder)
    DERIVED[name](session)
    return session


def _keep_few_hooks(folder: Path) -> None:
    """Those that were called most: the rest would be half of the folder."""
    health = Stream(folder / "health.csv")
    calls = {health.cell(row, "hook"): int(health.cell(row, "calls")) for row in health.rows}
    kept = set(sorted(calls, key=lambda name: (-calls[name], name))[:FEW])
    health.keep(lambda row: health.cell(row, "hook") in kept).write()
    record = read_record(folder / "process.json")
    hooks = [hook for hook in record["hooks"] if hook["name"] in kept]
    write_record(folder / "process.json", {**record, "hooks": hooks})


def main() -> None:
    """The command line."""
    if sys.argv[1:2] == ["cut"]:
        cut(sys.argv[2], Path(sys.argv[3]))
        return
    for name in sys.argv[1:] or [name for name in DERIVED if name not in FROZEN or not (SESSIONS / name).exists()]:
        derive(name, SESSIONS / name)


if __name__ == "__main__":
    main()
