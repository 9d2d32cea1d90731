"""Every analysis command of the README, unchanged, on exported files."""

from __future__ import annotations

import subprocess

import pytest
from session_builder import SessionBuilder

SNIPPETS = {
    "wc -l cuda_graph_captures.csv": "4 cuda_graph_captures.csv\n",
    "sort -t',' -k6 -rn cuda_graph_usage.csv | head -5": (
        "FULL,8,8,True,False,3,3,1,20,24,0.004500,0,,,\n"
        "PIECEWISE,16,None,False,False,1,3,1,11,16,0.001500,0,,,\n"
        "runtime_mode,num_tokens,num_reqs,uniform,has_lora,replay_count,pieces,captures,unpadded_tokens,padded_tokens,"
        "host_sec,num_active_loras,uniform_token_count,max_query_len,num_ubatches\n"
        "FULL,4,4,True,False,0,0,1,0,0,0.000000,0,,,\n"
    ),
    "cut -d',' -f2 cuda_graph_usage.csv | sort | uniq -c": "      1 16\n      1 4\n      1 8\n      1 num_tokens\n",
    "awk -F',' 'NR>1 {sum+=$6} END {print sum}' cuda_graph_usage.csv": "4\n",
    "awk -F',' 'NR>1 {sum+=$2; count++} END {print sum/count}' kv_cache_usage.csv": "15.625\n",
    "sort -t',' -k2 -rn kv_cache_usage.csv | head -1": "2.500000,25.0000,50,200,peak,0\n",
    "awk -F',' 'NR>1 && $2<10 {count++} END {print count}' kv_cache_evictions.csv": "1\n",
}


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_shell(server: SessionBuilder, snippet: str) -> None:
    done = subprocess.run(
        ["bash", "-c", snippet],
        cwd=server.path,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
    )
    assert (done.stdout, done.returncode) == (SNIPPETS[snippet], 0)


def test_pandas(server: SessionBuilder) -> None:
    pandas = pytest.importorskip("pandas")
    usage = pandas.read_csv(server.path / "cuda_graph_usage.csv")
    assert list(usage.nlargest(10, "replay_count")["num_tokens"]) == [8, 16, 4]
    assert usage["uniform"].dtype == bool
    evictions = pandas.read_csv(server.path / "kv_cache_evictions.csv")
    assert evictions["lifetime_sec"].mean() == 4.0


def test_matplotlib(server: SessionBuilder) -> None:
    pandas = pytest.importorskip("pandas")
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    usage = pandas.read_csv(server.path / "kv_cache_usage.csv")
    pyplot.plot(usage["timestamp_sec"], usage["usage_pct"])
    pyplot.savefig(server.path / "usage.png")
    pyplot.close()
    assert (server.path / "usage.png").stat().st_size > 1000
