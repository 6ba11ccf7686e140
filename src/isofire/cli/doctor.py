"""`isofire doctor`."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from isofire.cli.named import ModelChoice
from isofire.cli.options import DataChoice, Machine, Output
from isofire.cli.screen import Report
from isofire.config import DataSettings, read_config, require
from isofire.data import NAMES, data_root
from isofire.data.registry import is_there
from isofire.errors import SpecError
from isofire.lookup import native as lookup
from isofire.models import is_named
from isofire.neurons import LIF, MembraneQuantizer, gpu, native
from isofire.quantization import diagnose
from isofire.quantization.diagnosis.diagnose import IMAGES
from isofire.quantizers import Uniform
from isofire.study import environment
from isofire.study.environment import cpu_model, version
from isofire.study.splits import unknown_set

_EXTRAS = {"report": ("matplotlib",), "test": ("pytest", "hypothesis", "scipy", "ot")}
_TESTS = Path(__file__).parents[3] / "tests"
"""There in a clone alone; who installed a wheel has nothing to test."""
_BACKENDS = ("native", "torch", "reference")


@dataclass(frozen=True)
class Check:
    """One line of the examination: "ok", "note" (works, could be better) or "broken", and what to do about it."""

    name: str
    state: Literal["ok", "note", "broken"]
    found: str
    cure: str = ""

    def __str__(self) -> str:
        line = f"{self.state:<7} {self.name:<12} {self.found}"
        return line + (f"\n{'':21}-> {self.cure}" if self.cure else "")


def doctor(
    network: Path | None = None,
    /,
    *,
    baseline: Path | None = None,
    named: ModelChoice | None = None,
    choice: DataChoice | None = None,
    machine: Machine | None = None,
    output: Output | None = None,
) -> Report:
    """Check the installation; or, with a NETWORK, look for layers that do not fire, or fire otherwise, and say why.

    Without a network: versions, compiled kernels, devices, data sets, and that all neuron paths agree. With one: per
    layer of neurons where it fires from, states beyond the levels, levels used, rate and silent neurons, on 256 images
    unless --n says otherwise; without data only levels and thresholds are looked at. Exit status 1 if something is
    broken; each complaint comes with its cure.

    ```
    isofire doctor
    isofire doctor --data cifar10 --root DIR
    isofire doctor --config configs/digits-demo.toml
    isofire doctor own-q.safetensors --model nets:build --baseline weights.safetensors --data nets:load
    isofire doctor q.safetensors --baseline fp.safetensors --data digits
    ```

    Parameters
    ----------
    network
        A model.safetensors that isofire wrote, a pretrained network's name, or a FILE.nir; with --model, weights for
        it.
    baseline
        Its full-precision network: a layer is then called silent only if it fires there.
    """
    chosen, asked = named or ModelChoice(), choice or DataChoice()
    if network is not None or chosen.model is not None:
        return _examine_network(network, baseline, chosen, asked, (machine or Machine()).claim())
    if baseline is not None or asked.n is not None or chosen.weights is not None:
        raise SpecError("--baseline, --n and --weights are for a network; name it: isofire doctor NETWORK")
    (machine or Machine()).claim()
    checks = examine(_wanted(asked))
    broken = [check for check in checks if check.state == "broken"]
    verdict = f"{len(broken)} broken" if broken else "all is well"
    text = "\n".join([*map(str, checks), "", verdict])
    return Report({"healthy": not broken, "checks": [asdict(check) for check in checks]}, text, int(bool(broken)))


def _examine_network(
    path: Path | None, baseline: Path | None, chosen: ModelChoice, choice: DataChoice, place: torch.device
) -> Report:
    """Look at a network, on images if data are named, beside its baseline if one is named."""
    named = choice.config is not None or choice.data is not None
    if not named and (baseline is not None or choice.n is not None or choice.set or choice.given()):
        raise SpecError("a baseline, --n, --set and --root need images: name the data by --data NAME or --config FILE")
    model = chosen.open(path)[0].to(place)
    before = None if baseline is None else chosen.open(baseline)[0].to(place)
    found = diagnose(model, choice.load() if named else None, before, max_images=choice.n or IMAGES)
    return Report({**found.to_dict(), "environment": environment(place)}, found.table(), int(not found.healthy))


def examine(wanted: DataSettings | None = None) -> list[Check]:
    """All checks, with `wanted` also for that data set; one that fails by itself becomes a broken line, not an end."""
    return [
        _guarded("python", _python),
        _guarded("torch", _torch),
        _guarded("isofire", lambda: Check("isofire", "ok", version("isofire") or "from source, not installed")),
        _guarded("processor", lambda: Check("processor", "ok", cpu_model())),
        _guarded("kernels", _kernels),
        _guarded("look-ups", _lookups),
        _guarded("threads", _threads),
        _guarded("cuda", _cuda),
        *(_guarded(extra, lambda extra=extra: _extra(extra))
          for extra in _EXTRAS if extra != "test" or _TESTS.is_dir()),
        _guarded("data", lambda: _data(wanted.root if wanted else None)),
        *([_guarded("data wanted", lambda: _data_wanted(wanted))] if wanted else []),
        *(_guarded(f"self-test {placement or 'plain'}", lambda p=placement: self_test(p))
          for placement in (None, "pre_fire", "post_reset")),
    ]  # fmt: skip


def self_test(placement: Literal["pre_fire", "post_reset"] | None) -> Check:
    """Whether the compiled, the torch and the reference path of a LIF layer give the same spikes and gradients."""
    name = "self-test"
    what = f"LIF, {f'4-bit membrane {placement}' if placement else 'full precision'}"
    generator = torch.Generator().manual_seed(0)
    # multiples of 1/64, so that no path's order of operations can move a value across the threshold
    currents = torch.randint(-64, 192, (4, 8, 16, 8, 8), generator=generator) / 64
    backends = [b for b in _BACKENDS if b != "native" or native.library() is not None]
    results = {backend: _spikes_and_gradient(currents, backend, placement) for backend in backends}
    spikes, gradient = results["reference"]
    for backend, (own_spikes, own_gradient) in results.items():
        if not torch.equal(own_spikes, spikes):
            differing = int((own_spikes != spikes).sum())
            return Check(name, "broken", f"{what}: {backend} differs in {differing} spikes", _REINSTALL)
        if not torch.allclose(own_gradient, gradient, rtol=1e-4, atol=1e-6):
            return Check(name, "broken", f"{what}: {backend} differs in its gradient", _REINSTALL)
    return Check(name, "ok", f"{what}: {', '.join(backends)} agree on {int(spikes.sum()):,} spikes and their gradient")


def _spikes_and_gradient(currents: Tensor, backend: str, placement: str | None) -> tuple[Tensor, Tensor]:
    neuron = LIF(backend=backend)  # type: ignore[arg-type]
    if placement is not None:
        neuron.membrane = MembraneQuantizer(Uniform(4, range=(-1.0, 1.0), refresh=0), placement)  # type: ignore[arg-type]
    x = currents.clone().requires_grad_()
    spikes = neuron(x)
    (spikes * torch.linspace(-1, 1, spikes.numel()).view_as(spikes)).sum().backward()
    assert x.grad is not None
    return spikes.detach(), x.grad


_REINSTALL = "reinstall isofire (pip install --force-reinstall --no-deps isofire); if that does not help, report it"


_COMPILE = "install a C++ compiler, then reinstall isofire from source"


def _guarded(name: str, check: Callable[[], Check]) -> Check:
    try:
        return check()
    except Exception as error:
        return Check(name, "broken", f"{type(error).__name__}: {error}", _REINSTALL)


def _python() -> Check:
    return Check("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def _torch() -> Check:
    found = str(torch.__version__)
    major, minor = (int(part) for part in found.split("+")[0].split(".")[:2])
    if (major, minor) < (2, 11):
        return Check("torch", "broken", found, "isofire needs torch 2.11 or newer: pip install -U torch")
    return Check("torch", "ok", found)


def _kernels() -> Check:
    library = native.library()
    if library is None:
        return Check("kernels", "note", "not compiled", f"about half the speed on a CPU; {_COMPILE}")
    return Check("kernels", "ok", "compiled")


def _lookups() -> Check:
    best = lookup.best()
    if best is None:
        return Check("look-ups", "note", "not compiled; isofire.fast sums by torch", _COMPILE)
    if best == "portable":
        return Check(
            "look-ups", "note", "portable C++; isofire.fast is slow", "this processor (or compiler) has no AVX2 or NEON"
        )
    return Check("look-ups", "ok", f"{best}, the best that processor and compiler know")


def _threads() -> Check:
    count, library = torch.get_num_threads(), native.library()
    if library is not None and count > 1 and not library.isofire_parallel():
        cure = (
            "the kernels do not find torch's thread pool; the torch of PyPI or download.pytorch.org has one they find"
        )
        return Check("threads", "note", f"{count} in torch, 1 in the kernels", cure)
    shared = "" if library is None else ", shared with the kernels"
    return Check("threads", "ok", f"{count}{shared}")


def _cuda() -> Check:
    if not torch.cuda.is_available():
        return Check("cuda", "ok", "none; work runs on the CPU")
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    found = f"{torch.version.cuda}: {', '.join(names)}"
    if (reason := gpu.missing("cuda", 0)) is not None:
        return Check("cuda", "note", f"{found}; neurons by torch's operations", f"backend 'triton' {reason}")
    return Check("cuda", "ok", f"{found}; neurons by Triton")


def _extra(extra: str) -> Check:
    missing = [package for package in _EXTRAS[extra] if find_spec(package) is None]
    if missing:
        return Check(extra, "note", f"without {', '.join(missing)}", f"pip install 'isofire[{extra}]'")
    return Check(extra, "ok", f"{', '.join(_EXTRAS[extra])} installed")


def _wanted(choice: DataChoice) -> DataSettings | None:
    if choice.config is None and not choice.set and not choice.given():
        return None
    found = read_config(choice.config, choice.set, allow_code=choice.allow_code, data=choice.given())
    require(found, "data")
    assert found.data is not None
    if is_named(found.data.name):
        raise SpecError(f"doctor looks for files; a loader of yours, {found.data.name}, is tried by isofire eval --n 1")
    if found.data.name not in NAMES:
        raise unknown_set(found.data.name)
    return found.data


def _data(given: str | None) -> Check:
    root = data_root(given)
    found = [name for name in NAMES if is_there(name, root)]
    place = f"in {root}" + (", or where ISOFIRE_DATA says" if given is None else "")
    return Check("data", "ok", f"{', '.join(found)} ({place})")


def _data_wanted(wanted: DataSettings) -> Check:
    root = data_root(wanted.root)
    if is_there(wanted.name, root):
        return Check("data wanted", "ok", f"{wanted.name} is in {root}" if wanted.name != "digits" else "digits")
    if wanted.download:
        return Check("data wanted", "note", f"{wanted.name} is not in {root}", "the first run will download it")
    return Check("data wanted", "broken", f"{wanted.name} is not in {root}", _FETCH)


_FETCH = "data.root=DIR or ISOFIRE_DATA names another folder; data.download=true fetches what is published"
