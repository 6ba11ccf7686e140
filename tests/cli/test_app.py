"""What holds for every command: help, errors, exit status, and a clean stdout."""

from __future__ import annotations

import json
import os
import sys

import pytest

from isofire.cli import app as program
from isofire.cli import main
from isofire.errors import SpecError

COMMANDS = ("train", "quantize", "compare", "eval", "explain", "demo", "doctor")


def test_no_arguments_show_the_help(run):
    result = run()
    assert result.code == 0
    for command in COMMANDS:
        assert command in result.out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_explains_and_gives_examples(run, command):
    result = run(command, "--help")
    assert result.code == 0
    assert f"isofire {command}" in result.out.split("Usage", 1)[1].split("\n", 2)[2]
    assert "--json" in result.out


def test_hidden_options_stay_hidden(run):
    assert "--quick" not in run("demo", "--help").out


def test_version(run):
    assert run("--version").out.strip()


BAD = [
    ("trian", "Did you mean"),
    ("train", "--config"),
    ("train --config no.toml", "cannot read no.toml"),
    ("train --config {config} --bogus 1", "--bogus"),
    ("train --config {config} --set train.epochs", "key=value"),
    ("train --config {config} --set train.epochs=1 train.lr=1", "Give --set anew for every setting"),
    ("train --config {config} --set train.epochz=1", "did you mean 'epochs'"),
    ("train --config {config} --seed one", "--seed"),
    ("train --config {config} --seed -1", "seed"),
    ("train --config {config} --threads 0", "--threads must lie in 1..1024"),
    ("train --config {config} --device quantum", "device must name a torch device"),
    ("train --config {config} --device cuda:99", "does not exist"),
    ("train --config {config} --set model.T=0", "T must be a whole number"),
    ("train --config {config} --set data.name=imagenet", "no data set is called 'imagenet'"),
    ("train --config {config} --set data.name=cifar10 --set data.root=nowhere", "--root DIR"),
    ("train --config {config} --set train.batch_size=999", "lower batch_size"),
    ("train --config {config} --out {file}/x", "cannot write"),
    ("quantize {model}", "--config"),
    ("quantize no.safetensors --config {config}", "no checkpoint at no.safetensors"),
    ("quantize {file} --config {config}", "is no network that isofire wrote"),
    ("quantize {model} --config {config} --mode both", "Choose from"),
    ("quantize {model} --config {config} --from-scratch", "--mode qat"),
    ("quantize {model} --config {config} --set quant.weights.bits=99", "got 99"),
    ('quantize {model} --config {config} --set \'quant.rules=[{{match="x",weights="float"}}]\'', "matches no layer"),
    ("quantize {quantized} --config {config}", "quantized already"),
    ("quantize {model} --config {config} --out {file}/x", "cannot write"),
    ("compare {model}", "QUANTIZED"),
    ("compare {model} {model}", "name the data by --data NAME"),
    ("compare {model} {model} --root d", "--data NAME"),
    ("compare {model} {model} --data digits --n 0", "--n must lie in 1..500"),
    ("compare {model} {model} --data digits --n 501", "--n must lie in 1..500"),
    ("compare {model} {model} --data digits --out {file}/x", "cannot write"),
    ("compare {model} {model} --data digits --batch-size 0", "--batch-size. Must be >= 1"),
    ("compare {model} {model} --config {config} --data cifar10 --root d", "--root DIR"),
    ("eval no.safetensors --data digits", "no checkpoint"),
    ("eval {model} --data digits --split train", "Choose from"),
    ("eval {model} --data digits --split valid", "set data.valid to a number of images"),
    ("eval {model} --data digits --set data.valid=3 --split train", "Choose from"),
    ("eval {model} --data cifar10 --root nowhere", "--download"),
    ("eval {last} --data digits", "not weights"),
    ("eval {best} --data digits", "without an architecture"),
    ("eval {model} --data digits --batch-size x", "--batch-size"),
    ("explain", "needs a model file or --config"),
    ("explain {model}", "in full precision"),
    ("explain {model} --set a=1", "--set changes a configuration"),
    ("explain no.safetensors", "no checkpoint"),
    ("demo --seed -3", "seed"),
    ("demo --out {file}/x", "cannot write"),
    ("doctor please", "please"),
]


@pytest.mark.parametrize(("line", "message"), BAD, ids=[line for line, _ in BAD])
def test_mistakes_exit_with_2_and_no_traceback(run, config, trained, quantized, line, message):
    import shlex

    places = {
        "config": config, "file": config, "model": trained / "model.safetensors",
        "last": trained / "training" / "last.safetensors", "best": trained / "training" / "best.safetensors",
        "quantized": quantized / "model.safetensors",
    }  # fmt: skip
    result = run(*shlex.split(line.format(**places)))
    assert result.code == 2
    assert message in result.err
    assert result.err.splitlines()[-1].strip()
    assert result.out == ""
    assert "Traceback" not in result.err


def test_event_data_for_an_image_recipe_is_a_mistake_too(run, config):
    result = run("train", "-c", config, "--set", "data.options={steps=3}")
    assert result.code == 2
    assert "unknown option 'steps'" in result.err


def test_error_as_json(run):
    result = run("explain", "no.safetensors", "--json")
    assert result.code == 2
    error = json.loads(result.out)["error"]
    assert (error["type"], error["exit_status"]) == ("CheckpointError", 2)
    assert "no.safetensors" in error["message"]
    assert json.loads(run("train", "--json").out)["error"]["type"] == "UsageError"


def test_debug_shows_the_traceback_of_a_mistake(run, monkeypatch):
    assert "Traceback" in run("explain", "no.safetensors", "--debug").err
    monkeypatch.setenv("ISOFIRE_DEBUG", "1")
    assert "Traceback" in run("explain", "no.safetensors").err
    monkeypatch.setenv("ISOFIRE_DEBUG", "0")
    assert "Traceback" not in run("explain", "no.safetensors").err


def failing(error: BaseException):
    def run(_given: list[str]) -> int:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (SpecError("bits must be"), 2, "error: bits must be"),
        (ZeroDivisionError("division by zero"), 1, "fault of isofire"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (MemoryError(), 2, "not enough memory"),
    ],
)
def test_status_by_kind_of_error(run, monkeypatch, error, code, says):
    monkeypatch.setattr(program, "_run", failing(error))
    result = run("doctor")
    assert result.code == code
    assert says in result.err
    assert "Traceback" not in result.err
    assert result.out == ""


def test_internal_failure_shows_its_traceback_under_debug(run, monkeypatch):
    monkeypatch.setattr(program, "_run", failing(ZeroDivisionError("x")))
    result = run("doctor", "--debug")
    assert result.code == 1
    assert "Traceback" in result.err
    assert "ZeroDivisionError" in result.err


def test_arguments_of_the_process_are_the_default(capfd, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["isofire", "explain", "no.safetensors"])
    assert main() == 2
    assert "no.safetensors" in capfd.readouterr().err


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full on this system")
def test_stdout_that_is_full(config, monkeypatch, capfd):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert main(["explain", "--config", str(config)]) == 2
        # nothing may be left in the buffer, or closing the stream fails again
        monkeypatch.undo()
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())
    assert "cannot write to standard output" in capfd.readouterr().err
