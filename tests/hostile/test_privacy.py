"""Nothing of a request and no secret is in what a session says of a process: the configuration, the hooks, the settings."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import environment
import pytest

from profilemate.probe import engine_config, hook
from profilemate.probe.process import THIS

PLANTED = "planted-4711"
CONFIGURED = f"""
import json, os, sys
os.environ.update(
    HF_TOKEN="{PLANTED}", OPENAI_API_KEY="{PLANTED}", AWS_SECRET_ACCESS_KEY="{PLANTED}", VLLM_API_KEY="{PLANTED}",
    DATABASE_URL="db://u:{PLANTED}@h", HTTPS_PROXY="http://u:{PLANTED}@proxy:1",
)
sys.argv += ["--api-key", "{PLANTED}"]
from vllm.config import CacheConfig, DeviceConfig, KVTransferConfig, LoadConfig, ModelConfig, SchedulerConfig, VllmConfig
model = ModelConfig(model=sys.argv[1], tokenizer=sys.argv[1], hf_token="{PLANTED}", served_model_name="{PLANTED}", seed=1,
                    hf_overrides=dict(secret="{PLANTED}"), max_model_len=256, dtype="bfloat16")
config = VllmConfig(
    model_config=model,
    cache_config=CacheConfig(block_size=16),
    device_config=DeviceConfig(device="cpu"),
    load_config=LoadConfig(model_loader_extra_config=dict(key="{PLANTED}"), download_dir="/{PLANTED}"),
    kv_transfer_config=KVTransferConfig(
        kv_connector="ExampleConnector", kv_role="kv_both", kv_connector_extra_config=dict(secret_access_key="{PLANTED}"),
    ),
    additional_config=dict(token="{PLANTED}", chat_template="{PLANTED}", lora_path="/{PLANTED}"),
)
object.__setattr__(model, "model", "s3://AKIA:{PLANTED}@bucket.example/models/llama?X-Amz-Signature={PLANTED}#{PLANTED}")
from profilemate.probe import engine_config
from profilemate.probe.process import THIS
from profilemate.trackers.bandwidth.model_facts import dimensions
engine_config.note_engine_config(config)
THIS.engine_config["dimensions"] = dimensions(config)
THIS.role = "EngineCore"
everything = "{PLANTED}" in repr(config) or "{PLANTED}" in str(config.__dict__)
print(json.dumps(dict(record=THIS.record(), planted=everything)))
"""


@pytest.mark.server
def test_no_secret_of_vllm_s_configuration_is_in_the_record_of_a_process(tiny_model: Path, tmp_path: Path) -> None:
    """A real VllmConfig with a secret wherever one can be: token, loader, KV connector, overrides, address of the model."""
    done = subprocess.run(
        [sys.executable, "-c", CONFIGURED, str(tiny_model)], capture_output=True, text=True, check=False, cwd=tmp_path,
        env={**environment.clean(), "PYTHONPATH": str(environment.ROOT), "PROFILEMATE_ENABLE": "0"},
        timeout=environment.HANGS_SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["planted"], "the configuration does not have the secrets, so this shows nothing"
    config = told["record"]["engine_config"]
    assert config["model"] == "s3://bucket.example/models/llama"
    assert (config["max_model_len"], config["block_size"], config["dimensions"]["hidden_size"]) == (256, 16, 128)
    assert PLANTED not in json.dumps(told["record"])


@pytest.mark.parametrize(("named", "written"), [
    ("meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-8B"),
    ("/models/a@b?c", "/models/a@b?c"),
    ("https://user:pass@host:80/a/b?token=x#y", "https://host:80/a/b"),
    ("https://host/a@b", "https://host/a@b"),
    ("s3://bucket", "s3://bucket"),
    ("https://hf_token@host", "https://host"),
    ("https://u:p@ss@host/a", "https://host/a"),
    ("https://host?token=a@b/c", "https://host"),
])  # fmt: skip
def test_an_address_is_written_without_its_secrets(named: str, written: str) -> None:
    assert engine_config.without_secrets(named) == written
    assert engine_config.plain(SimpleNamespace(name=named)) == written
    assert engine_config.plain([named]) == [written]


@pytest.mark.parametrize(("error", "text"), [
    (KeyError("her-name-1"), "KeyError: '...'"),
    (KeyError('it\'s "hers"'), "KeyError: '...'"),
    (ValueError("invalid literal for int(): 'her prompt'"), "ValueError: invalid literal for int(): '...'"),
    (ValueError("odd 'her prompt"), "ValueError: odd '...'"),
    (UnicodeDecodeError("utf-8", b"her prompt", 0, 1, "bad"), "UnicodeDecodeError: '...' codec can'...'"),
    (IndexError("list index out of range"), "IndexError: list index out of range"),
    (AttributeError("'Scheduler' object has no attribute 'x'"), "AttributeError: 'Scheduler' object has no attribute 'x'"),
])  # fmt: skip
def test_an_exception_is_told_without_the_data_that_it_quotes(error: Exception, text: str) -> None:
    assert "her" not in hook.error_text(error)
    assert hook.error_text(error)[:60] == text[:60]


def test_a_hook_that_fails_on_a_request_does_not_name_it() -> None:
    """Also where the exception came while another one was handled."""
    try:
        try:
            {}["her-name-1"]
        except KeyError:
            {}["her-name-2"]
    except KeyError:
        reason = hook._description()
    assert "her-name" not in reason.replace('{}["her-name-2"]', "") and "KeyError: '...'" in reason


def test_what_is_written_of_a_process_is_a_closed_list() -> None:
    """Whoever adds a field thinks of what may be in it."""
    assert set(THIS.record()) == {
        "format", "role", "roles", "ranks", "engine_index", "host", "pid", "start_time", "boot_id", "python", "vllm", "torch",
        "profilemate", "clock", "settings", "secret_id", "warnings", "engine_config", "cost", "ended_ns", "hooks",
    }  # fmt: skip
    texts = {"model", "model_type", "dtype", "cache_dtype", "cudagraph_mode", "compilation_mode", "device"}
    numbers = set(engine_config.ENGINE_CONFIG) - texts
    assert not {
        name
        for name in engine_config.ENGINE_CONFIG.values()
        if "token" in name and name != "scheduler_config.max_num_batched_tokens"
    }
    assert all(word not in name for name in numbers for word in ("path", "key", "secret", "template", "url"))
