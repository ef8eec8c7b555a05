"""No secret is written, printed or sent."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixed_r1_ray.config import Config
from mixed_r1_ray.config_load import config_to_yaml, load_config
from mixed_r1_ray.main import main
from mixed_r1_ray.redaction import redact
from mixed_r1_ray.runtime.journal import Journal
from mixed_r1_ray.runtime.run_dir import open_run_dir

TOKEN = "hf_" + "aB3dE5gH7j" * 3
PASSWORD = "correct-horse-battery"
API_KEY = "0123456789abcdef" * 2 + "01234567"


@pytest.mark.parametrize(
    ("text", "without"),
    [
        ("https://me:tok@host/m", "https://…@host/m"),
        ("s3://b/c and 3@4", "s3://b/c and 3@4"),
        (f"model.path={TOKEN}", "model.path=…"),
        ("https://h/f?a=1&X-Amz-Signature=9f&b=2", "https://h/f?a=1&X-Amz-Signature=…&b=2"),
        ("https://h/f?access_token=9f#x", "https://h/f?access_token=…#x"),
        ("max_new_tokens=48, monkey=1", "max_new_tokens=48, monkey=1"),
        ("ghp_" + "a" * 36, "…"),
    ],
)
def test_secrets_of_known_form_are_blotted_out_and_nothing_else(text, without):
    assert redact(text) == without


def test_values_of_secret_environment_variables_are_blotted_out_wherever_they_are(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", API_KEY)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "correct horse battery")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false-value")
    assert redact({"a": [f"x{API_KEY}y", ("correct horse battery", 3, None)]}) == {"a": ["x…y", ("…", 3, None)]}
    assert redact("false-value") == "false-value"


@given(st.text(max_size=60))
def test_redacting_twice_is_redacting_once(text):
    assert redact(redact(text)) == redact(text)


@pytest.mark.parametrize(
    "system", ["'https://h/f?token=abc'", 'say "https://me:tok@host"', "?sig=x: {y}", "# hf_" + "a" * 30]
)
def test_a_configuration_without_its_secrets_is_still_one(system, tmp_path):
    config = replace(Config(), data=replace(Config().data, system=system))
    (tmp_path / "config.yaml").write_text(config_to_yaml(redact(config)))
    assert load_config([f"conf={tmp_path / 'config.yaml'}"]) == redact(config) != config


def contents(folder) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_neither_folder_nor_terminal_nor_wandb_of_a_run_holds_a_secret_and_it_can_be_continued(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("WANDB_API_KEY", API_KEY)
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "argv", ["main", f"data.train=https://me:{PASSWORD}@host/data"])  # wandb looks at it
    config = Config()
    config = replace(
        config,
        run=replace(config.run, dir=str(tmp_path), name="one", resume="auto"),
        data=replace(config.data, system=f"answer {TOKEN} {API_KEY}"),
        tracking=replace(config.tracking, wandb="offline"),
    )
    for _ in ("begun", "continued"):
        with open_run_dir(config) as run_dir, Journal(config, run_dir) as journal:
            journal.continue_from(0)
            journal.warn(f"row of https://me:{API_KEY}@host/data: {TOKEN}")
            journal.step(1, {"reward/mean": 1.0, "time/step_s": 1.0})
    assert run_dir.resumed and list((tmp_path / "one" / "wandb").rglob("*.wandb"))
    written, said = contents(tmp_path / "one"), capsys.readouterr()
    for secret in (TOKEN, API_KEY, PASSWORD):
        assert secret.encode() not in written
        assert secret not in said.out + said.err


def test_messages_and_the_dry_run_hold_no_secret(capsys, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", API_KEY)
    assert main(["conf=quickstart", f"data.train=https://me:{API_KEY}@host/{TOKEN}"]) == 1
    assert main(["conf=quickstart", "dry_run=true", f"data.system={TOKEN}"]) == 0
    said = capsys.readouterr()
    assert "data.train=https://…@host/…" in said.err and "system: …" in said.out
    assert TOKEN not in said.out + said.err and API_KEY not in said.out + said.err
