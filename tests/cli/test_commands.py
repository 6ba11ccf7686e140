"""Each command on a tiny network: what it prints, what it writes, and that its numbers are right."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import msgspec
import pytest
import torch

from isofire.cli import quantize as quantize_module
from isofire.cli import train as train_module
from isofire.config import read_config
from isofire.data import load
from isofire.errors import ModelError
from isofire.firing import compare as measure
from isofire.firing.record import run_for
from isofire.models import load_model
from isofire.quantization import integer_weights, is_converted, spec_of
from isofire.spec import QuantSpec
from isofire.study import fresh_model, load_split, read_rows
from isofire.training import evaluate


class RefuseTest:
    """Loads as the program does, but never the test images."""

    def __init__(self) -> None:
        self.asked: set[str] = set()

    def __call__(self, name, split, **options):
        self.asked.add(split)
        assert split != "test"
        return load(name, split, **options)


def document(result) -> dict:
    assert result.code == 0, result.err
    return json.loads(result.out, parse_constant=pytest.fail)


# -- train -----------------------------------------------------------------------------------------------------------


def test_train_writes_everything(trained, config):
    files = {path.name for path in trained.iterdir()}
    assert files == {
        ".lock", "model.safetensors", "history.json", "environment.json", "config.json", "log.txt", "training",
    }  # fmt: skip
    history = json.loads((trained / "history.json").read_text())
    assert [record["epoch"] for record in history["history"]] == [1, 2]
    log = (trained / "log.txt").read_text()
    assert "epoch 1/2" in log
    assert "epoch 2/2" in log
    assert "100 held out" in log
    stored = json.loads((trained / "config.json").read_text())
    assert stored == json.loads(msgspec.json.encode(read_config(config).to_dict()))


def test_trained_model_has_the_accuracy_that_was_said(trained, config):
    settings = read_config(config)
    assert settings.data is not None
    model, note = load_model(trained / "model.safetensors")
    for split in ("valid", "test"):
        found = evaluate(model, load_split(settings.data, split))
        assert note["accuracy"][split] == msgspec.to_builtins(found)


def test_train_as_json_goes_on_where_it_stood(run, trained, config):
    found = document(run("train", "-c", config, "-o", trained, "--json", "--device", "cpu"))
    assert found["test"]["n"] == 60
    assert found["valid"]["n"] == 100
    assert found["epoch"] in (1, 2)
    assert found["model"] == str(trained / "model.safetensors")


def test_another_recipe_in_the_same_folder_is_refused_and_changes_nothing(run, trained, config):
    before = {path.name: path.read_bytes() for path in trained.iterdir() if path.suffix != ".txt" and path.is_file()}
    result = run("train", "-c", config, "-o", trained, "--set", "train.epochs=3", "--device", "cpu")
    assert result.code == 2
    assert "epochs 2 there, 3 here" in result.err
    assert before == {name: (trained / name).read_bytes() for name in before}


def test_a_teacher_is_followed_and_named_in_the_note(run, config, trained):
    tiny = (
        "--set",
        "train.epochs=1",
        "--set",
        "data.train_images=16",
        "--set",
        "data.test_images=5",
        "--device",
        "cpu",
    )
    teacher = trained / "model.safetensors"
    refused = run("train", "-c", config, *tiny, "-o", "untaught", "--teacher", teacher)
    assert refused.code == 2
    assert "no loss of the recipe compares with the teacher" in refused.err
    result = run("train", "-c", config, *tiny, "-o", "taught", "--teacher", teacher, "--set", "train.losses.logits=1.0")
    assert result.code == 0
    assert load_model("taught/model.safetensors")[1]["teacher"]["name"] == str(teacher)


def test_results_go_below_runs_unless_told(run, config, tmp_path):
    tiny = ("--set", "train.epochs=1", "--set", "data.train_images=16", "--set", "data.test_images=5")
    assert run("train", "-c", config, *tiny).code == 0
    (own,) = (tmp_path / "runs").iterdir()
    assert re.fullmatch(r"tiny-seed\d+-[0-9a-f]{8}", own.name)
    assert (own / "model.safetensors").is_file()
    assert run("train", "-c", config, *tiny, "--set", "out=elsewhere").code == 0
    assert (tmp_path / "elsewhere" / "model.safetensors").is_file()


def test_a_folder_that_cannot_be_written_is_found_before_the_data_are_read(run, config, tmp_path, monkeypatch):
    monkeypatch.setattr(train_module, "load_splits", lambda _: pytest.fail("read the data"))
    (tmp_path / "file").write_text("")
    assert run("train", "-c", config, "-o", tmp_path / "file" / "x").code == 2


def test_seed_decides_the_weights(run, config):
    tiny = ("--set", "train.epochs=1", "--set", "data.train_images=16", "--set", "data.test_images=5")
    weights = []
    for out, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert run("train", "-c", config, *tiny, "-o", out, "--seed", seed, "--device", "cpu").code == 0
        weights.append(load_model(f"{out}/model.safetensors")[0].state_dict()["fc.weight"])
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_each_process_of_torchrun_takes_its_own_cuda_device(run, config, monkeypatch):
    places = []

    def stand_in(*_arguments, device, **_options):
        places.append(device)

    monkeypatch.setattr(train_module, "train_baseline", stand_in)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for local in ("0", "1"):
        monkeypatch.setenv("LOCAL_RANK", local)
        for extra in ((), ("--device", "cuda"), ("--device", "cpu")):
            assert run("train", "-c", config, "-o", "t", *extra).code == 0
    named = [str(place) for place in places]
    assert named == ["cuda:0", "cuda:0", "cpu", "cuda:1", "cuda:1", "cpu"]


def test_only_the_first_process_speaks(run, config, monkeypatch):
    monkeypatch.setattr(train_module, "train_baseline", lambda *_, **__: None)
    monkeypatch.setenv("RANK", "1")
    for extra in ((), ("--json",)):
        result = run("train", "-c", config, "-o", "t", "--device", "cpu", *extra)
        assert (result.code, result.out, result.err) == (0, "", "")
    assert list(Path("t").iterdir()) == []
    monkeypatch.setenv("RANK", "0")
    assert "training sew_resnet8" in run("train", "-c", config, "-o", "t", "--device", "cpu").err
    assert sorted(path.name for path in Path("t").iterdir()) == [".lock", "log.txt"]


# -- quantize --------------------------------------------------------------------------------------------------------


def test_quantize_writes_everything(quantized):
    files = {path.name for path in quantized.iterdir()}
    wanted = {
        ".lock",
        "model.safetensors",
        "comparison.json",
        "row.csv",
        "row.json",
        "environment.json",
        "config.json",
        "log.txt",
    }
    assert wanted <= files
    assert files - wanted <= {"figure.png"}
    assert read_rows(quantized / "row.csv") == read_rows(quantized / "row.json")


def test_quantized_model_is_on_the_grid_and_gives_the_row(quantized, trained):
    model, note = load_model(quantized / "model.safetensors")
    assert spec_of(model) == QuantSpec(weights={"method": "lsq", "bits": 3})
    assert is_converted(model)
    weight = model.get_submodule("stages.0.0.conv1").weight
    assert max(len(channel.unique()) for channel in weight.detach()) <= 8
    baseline, _ = load_model(trained / "model.safetensors")
    found = measure(baseline, model, load("digits", "test").first(60))
    row = read_rows(quantized / "row.json")[0]
    assert {key: row[key] for key in found.overall} == pytest.approx(found.overall, nan_ok=True)
    assert note["row"]["spec"] == row["spec"]


def test_quantize_aware_trains(run, trained, config):
    found = document(
        run(
            "quantize", trained / "model.safetensors", "-c", config, "-m", "qat", "-o", "q", "--json", "--device", "cpu"
        )
    )
    assert (found["row"]["mode"], found["row"]["epochs"], found["row"]["method"]) == ("qat", 1, "lsq")
    assert "epoch 1/1" in Path("q/log.txt").read_text()
    model, note = load_model("q/model.safetensors")
    assert note["recipe"]["epochs"] == 1
    original, _ = load_model(trained / "model.safetensors")
    assert not torch.equal(model.state_dict()["fc.weight"], original.state_dict()["fc.weight"])


def test_quantize_aware_from_scratch_starts_at_a_fresh_network(run, trained, config, monkeypatch):
    starts = []
    honest = quantize_module.run_cell
    monkeypatch.setattr(
        quantize_module, "run_cell", lambda *a, **options: (starts.append(options["start"]), honest(*a, **options))[1]
    )
    common = ("quantize", trained / "model.safetensors", "-c", config, "-m", "qat", "--seed", 5, "--device", "cpu")
    for out, extra in (("a", ()), ("b", ("--from-scratch",))):
        assert run(*common, "-o", out, *extra).code == 0
    assert starts[0] is None
    fresh = fresh_model(read_config(config).model or {}, seed=5)
    assert torch.equal(starts[1].state_dict()["fc.weight"], fresh.state_dict()["fc.weight"])
    assert load_model("b/model.safetensors")[1]["from_scratch"] is True


def test_quantize_membranes_by_setting(run, trained, config):
    found = document(
        run("quantize", trained / "model.safetensors", "-c", config, "-o", "q", "--json", "--device", "cpu",
            "--set", 'quant={membrane={bits=2, placement="pre_fire", range=[0.0, 1.0], signed=false}}')
    )  # fmt: skip
    assert (found["row"]["target"], found["row"]["placement"], found["row"]["range"]) == (
        "membrane",
        "pre_fire",
        "[0, 1]",
    )
    assert found["layers"][0]["layer"] == "stem_sn"


def test_quantize_tells_each_layer_and_the_time_left(run, trained, config):
    words = ("--preset", "keep-firing-1bit-state", "--set", "quant.correct='never'", "--data", "digits", "-o", "kept")
    result = run("quantize", trained / "model.safetensors", *words, "--set", "data.test_images=20", "--set",
                 "calibration.images=32")  # fmt: skip
    assert result.code == 0, result.err
    lines = [line for line in result.err.splitlines() if "levels chosen, drift" in line]
    assert len(lines) == 9
    assert all(re.search(r"drift 0\.\d{5} -> 0\.\d{5}; about \d+:\d\d:\d\d left$", line) for line in lines[:-1])
    # after the last layer nothing is left
    assert "left" not in lines[-1]
    assert all(line in Path("kept/log.txt").read_text() for line in lines)


def test_quantize_says_how_to_get_a_figure(run, trained, config, monkeypatch):
    monkeypatch.setattr("isofire.cli.figures.find_spec", lambda _: None)
    result = run("quantize", trained / "model.safetensors", "-c", config, "-o", "q", "--device", "cpu")
    assert result.code == 0
    assert "pip install 'isofire[report]'" in result.err
    assert "figure.png" not in result.out


@pytest.mark.parametrize("mode", ["ptq", "qat"])
def test_quantize_in_several_processes_is_refused_before_the_work(run, trained, config, monkeypatch, mode):
    monkeypatch.setenv("WORLD_SIZE", "2")
    result = run("quantize", trained / "model.safetensors", "-c", config, "-m", mode, "-o", "q", "--device", "cpu")
    assert result.code == 2
    assert "runs in one process, got 2 (WORLD_SIZE)" in result.err
    assert not Path("q").exists()


def test_quantize_compares_on_the_images_held_out(run, trained, config, monkeypatch):
    settings = read_config(config).data
    assert settings is not None
    watched = RefuseTest()
    monkeypatch.setattr("isofire.study.splits.load", watched)
    path = trained / "model.safetensors"
    result = run("quantize", path, "-c", config, "--split", "valid", "-o", "v", "--json", "--device", "cpu")
    row = document(result)["row"]
    assert watched.asked == {"train"}
    assert (row["data"], row["n_images"]) == ("digits valid", 100)
    assert "comparing on 100 images of digits (valid)" in result.err
    valid = load_split(settings, "valid")
    assert row["accuracy"] == evaluate(load_model("v/model.safetensors")[0], valid).accuracy
    assert row["accuracy_fp"] == evaluate(load_model(path)[0], valid).accuracy


def test_quantize_without_images_held_out(run, trained, config, tmp_path):
    common = ("quantize", trained / "model.safetensors", "-c", config, "--split", "valid", "-o", tmp_path / "v")
    result = run(*common, "--set", "data.valid=0", "--device", "cpu")
    assert result.code == 2
    assert "set data.valid" in result.err
    assert not (tmp_path / "v").exists()


# -- compare ---------------------------------------------------------------------------------------------------------


def test_compare_prints_the_table_of_a_comparison(run, trained, quantized):
    files = trained / "model.safetensors", quantized / "model.safetensors"
    result = run("compare", *files, "--data", "digits", "--n", 40, "--device", "cpu")
    models = [load_model(path)[0] for path in files]
    assert result.code == 0
    expected = measure(models[0], models[1], load("digits", "test").first(40), run=run_for(40))
    assert result.out.strip() == expected.table().strip()


def test_compare_writes_and_gives_json(run, trained, quantized, config):
    files = trained / "model.safetensors", quantized / "model.safetensors"
    found = document(run("compare", *files, "-c", config, "--split", "valid", "-o", "c", "--json", "--device", "cpu"))
    assert (found["row"]["n_images"], found["row"]["method"], found["row"]["bits"]) == (100, "lsq", 3)
    row = read_rows("c/row.csv")[0]
    assert {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in row.items()} == {
        key: value for key, value in found["row"].items() if key in row
    }
    comparison = json.loads(Path("c/comparison.json").read_text())
    parts = ("overall", "layers", "evidence", "decisions", "chance", "synops", "left_out")
    assert comparison == {key: found[key] for key in parts}
    pytest.importorskip("matplotlib")
    assert Path("c/figure.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert set(found["files"]) == {f"c/{name}" for name in
        ("comparison.json", "row.csv", "row.json", "environment.json", "figure.png")}  # fmt: skip


ISSUE_COLUMNS = (
    "model", "data", "target", "method", "bits", "range", "granularity", "placement", "mode", "seed", "n_images", "T",
    "accuracy", "accuracy_fp", "agreement", "mfr", "mfr_fp", "dead_00", "dead_01", "dead_05", "emd_layer_mean",
    "emd_weighted", "emd_pooled", "emd_max", "paired_mae", "shift", "shape", "reshuffle", "spearman",
)  # fmt: skip


def test_rows_of_compare_and_quantize_have_the_same_labels_and_measures(run, trained, config):
    path = trained / "model.safetensors"
    common = ("-c", config, "--json", "--device", "cpu")
    made = document(run("quantize", path, *common, "-m", "qat", "--seed", 7, "-o", "q"))["row"]
    found = document(run("compare", path, "q/model.safetensors", *common))["row"]
    assert set(ISSUE_COLUMNS) <= made.keys()
    assert set(ISSUE_COLUMNS) <= found.keys()
    assert (found["mode"], found["seed"]) == ("qat", 7)
    assert {key: found[key] for key in ISSUE_COLUMNS} == pytest.approx({key: made[key] for key in ISSUE_COLUMNS})


def test_compare_knows_no_mode_of_a_network_that_was_not_quantized(run, trained, config):
    path = trained / "model.safetensors"
    row = document(run("compare", path, path, "-c", config, "--split", "valid", "--json", "--device", "cpu"))["row"]
    assert (row["mode"], row["seed"], row["target"], row["data"]) == (None, None, "none", "digits valid")


def test_compare_a_network_with_itself(run, trained):
    path = trained / "model.safetensors"
    overall = document(run("compare", path, path, "--data", "digits", "--n", 20, "--json"))["overall"]
    assert overall["emd_layer_mean"] == overall["paired_mae"] == 0
    assert overall["agreement"] == 1


def test_compare_networks_of_different_shape(run, trained, config):
    tiny = ("--set", "train.epochs=1", "--set", "data.train_images=16", "--set", "model.width=0.5")
    assert run("train", "-c", config, *tiny, "-o", "wide").code == 0
    result = run("compare", trained / "model.safetensors", "wide/model.safetensors", "--data", "digits", "--n", 5)
    assert result.code == 2
    assert "same neurons" in result.err


# -- eval ------------------------------------------------------------------------------------------------------------


def test_eval_counts_hits(run, quantized):
    path = quantized / "model.safetensors"
    found = document(run("eval", path, "--data", "digits", "--n", 50, "--json", "--device", "cpu"))
    model, _ = load_model(path)
    images, labels = next(iter(load("digits", "test").first(50).batches(50)))
    with torch.no_grad():
        right = int((model(images).mean(0).argmax(1) == labels).sum())
    assert (found["accuracy"], found["n"], found["split"]) == (right / 50, 50, "test")
    text = run("eval", path, "--data", "digits", "--n", 50, "--device", "cpu").out
    assert f"accuracy {2 * right:.2f} %" in text
    assert "n = 50" in text


# -- explain ---------------------------------------------------------------------------------------------------------


def test_explain_a_configuration(run, config):
    found = document(run("explain", "-c", config, "--json"))
    settings = {module["name"]: module for module in found["modules"]}
    assert settings["stem"]["values"] is None
    assert settings["stem"]["rule"] == "first_layer = 'float'"
    assert settings["stages.1.0.conv2"]["values"]["bits"] == 3
    assert settings["stages.1.0.sn1"]["target"] == "membrane"
    lines = run("explain", "-c", config).out.splitlines()
    assert any(line.split()[0] == "stages.1.0.conv2" and "lsq 3 bit" in line for line in lines if line.strip())


def test_explain_a_quantized_file(run, quantized):
    found = document(run("explain", quantized / "model.safetensors", "--json"))
    assert found["quant"]["weights"] == {"method": "lsq", "bits": 3, "granularity": "channel", "init": "mse"}


def test_explain_a_file_by_another_configuration(run, trained, config):
    found = document(
        run("explain", trained / "model.safetensors", "-c", config, "--json", "--set",
            'quant.rules=[{match="fc", weights={method="lqnet", bits=2}}]')
    )  # fmt: skip
    last = next(module for module in found["modules"] if module["name"] == "fc")
    assert (last["rule"], last["values"]["method"]) == ("fc", "lqnet")
    with pytest.raises(ModelError, match="in full precision"):
        integer_weights(load_model(trained / "model.safetensors")[0])


def test_quantize_does_not_replace_its_own_baseline(run, trained, config):
    before = (trained / "model.safetensors").read_bytes()
    failed = run("quantize", trained / "model.safetensors", "-c", config, "--out", trained)
    assert failed.code == 2
    assert "holds the baseline" in failed.err
    assert (trained / "model.safetensors").read_bytes() == before


def test_a_model_table_of_another_network_is_refused(run, trained, config, tmp_path):
    failed = run(
        "quantize", trained / "model.safetensors", "-c", config, "--out", tmp_path / "o", "--set", "model.connect=iand"
    )
    assert failed.code == 2
    assert "connect is 'add' there, 'iand' here" in failed.err
    assert not (tmp_path / "o").exists()


def test_compare_shows_drift_beside_the_floor_that_is_named(run, trained, quantized, config, tmp_path):
    files = trained / "model.safetensors", quantized / "model.safetensors"
    images = ("--data", "digits", "--n", "200", "--json", "--device", "cpu")
    plain = document(run("compare", *files, *images))
    assert plain["evidence"]["floor"]["kind"] == plain["row"]["floor"] == "images"
    assert plain["row"]["emd_low"] <= plain["row"]["emd_layer_mean"] <= plain["row"]["emd_high"] * 1.5
    controls = []
    for seed in ("1", "2"):
        out = tmp_path / f"control{seed}"
        done = run("quantize", files[0], "-c", config, "--control", "--mode", "ptq", "--out", out, "--seed", seed)
        assert done.code == 0, done.err
        controls.append(out / "model.safetensors")
    one = document(run("compare", *files, *images, "--control", controls[0]))
    assert one["evidence"]["floor"]["kind"] == "control"
    two = document(run("compare", *files, *images, "--control", controls[0], "--control", controls[1]))
    assert "2 runs" in two["evidence"]["floor"]["about"]
    assert two["row"]["emd_floor"] > 0
    fixed = run("quantize", files[0], "-c", config, "--control", "--set", 'quant.reestimate_bn="never"', "--out", "no")
    assert (fixed.code, "re-estimates no batch norm" in fixed.err) == (2, True)
    again = run("compare", *files, *images, "--control", controls[0], "--control", controls[0])
    assert (again.code, "name each network once" in again.err) == (2, True)
    wrong = run("compare", *files, *images, "--control", files[1])
    assert (wrong.code, "is quantized; a noise floor is of networks in which nothing is" in wrong.err) == (2, True)
    seeds = document(run("compare", *files, *images, "--seed-model", controls[0]))
    assert "2 networks of different seeds, 1 pairs" in seeds["evidence"]["floor"]["about"]
    both = run("compare", *files, *images, "--seed-model", files[1], "--control", files[1])
    assert (both.code, "name one floor" in both.err) == (2, True)
    text = run("compare", *files, "--data", "digits", "--n", "200", "--device", "cpu").out
    assert "how many images would be enough" in text or "for an interval of +-10 %" in text


# -- presets -----------------------------------------------------------------------------------------------------------


def test_a_preset_stands_for_the_quant_table(run, trained, tmp_path):
    out = tmp_path / "kept"
    more = ("--set", "data.name=digits", "--set", "calibration.images=32", "--set", "quant.weights.sweeps=1")
    found = document(
        run("quantize", trained / "model.safetensors", "--preset", "keep-firing", *more, "-o", out, "--json")
    )
    assert found["row"]["method"] == "gptq | firing"
    assert found["row"]["bits"] == "4 | 2"
    assert "correct=bias" in found["row"]["options"]
    spec = spec_of(load_model(out / "model.safetensors")[0])
    assert spec is not None
    assert spec.to_dict()["weights"]["sweeps"] == 1


def test_a_preset_and_a_quant_table_do_not_go_together(run, trained, config):
    result = run("quantize", trained / "model.safetensors", "-c", config, "--preset", "keep-firing")
    assert result.code == 2
    assert "both say what to quantize" in result.err


def test_neither_preset_nor_configuration_is_told(run, trained):
    result = run("quantize", trained / "model.safetensors")
    assert result.code == 2
    assert "--preset keep-firing" in result.err


def test_an_unknown_preset_lists_the_known(run, trained):
    result = run("quantize", trained / "model.safetensors", "--preset", "keep_firing")
    assert result.code == 2
    assert "there are: keep-firing, keep-firing-2bit, keep-firing-1bit-state" in result.err


@pytest.mark.parametrize("known", [False, True])
def test_bf16_that_the_processor_emulates_is_told(
    run, config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    monkeypatch.setattr(train_module, "_has_bf16", lambda: known)
    short = ("--set", "train.epochs=1", "--set", "data.train_images=16", "--set", "train.batch_size=8")
    folder = tmp_path / "half"
    run("train", "-c", config, "-o", folder, *short, "--set", "train.precision=bf16", "--device", "cpu")
    assert ("train.precision=float32" in (folder / "log.txt").read_text(encoding="utf-8")) is not known
