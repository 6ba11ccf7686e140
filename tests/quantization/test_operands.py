"""Whether a network multiplies with a layer's weights as they are is seen from what it does, not from values."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import _get_current_function_mode_stack

import isofire
from isofire.errors import ModelError
from isofire.models import sew_resnet8
from isofire.neurons import IF, LIF, PerStep, Repeat
from isofire.quantization import calibrate_, integer_weights, prepare_, quantize_
from isofire.quantization.operands import Operands
from isofire.spec import QuantSpec

X = torch.rand(32, 6, generator=torch.Generator().manual_seed(0)) * 4
Y = torch.arange(32) % 3
SPECS = {
    "nothing is measured": QuantSpec(weights={"method": "lsq", "bits": 3}, reestimate_bn="never"),
    "norms are measured": QuantSpec(weights={"method": "uniform", "bits": 3}),
    "ranges are measured": QuantSpec(weights={"method": "lqnet", "bits": 2}, membrane={"bits": 4, "range": "minmax"}),
    "layer by layer": QuantSpec(weights={"method": "gptq", "bits": 3}, first_layer="float"),
}


class Around(nn.Module):
    """Uses the weight of its layer itself."""

    def __init__(self) -> None:
        super().__init__()
        self.h, self.gain = nn.Linear(8, 8), nn.Parameter(torch.ones(()))
        self.mask = torch.ones(8, 8)


class Centred(Around):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.h.weight - self.h.weight.mean(1, keepdim=True))


class GainOfOne(Around):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.h.weight * self.gain)


class ClampOfNothing(Around):
    def forward(self, x: Tensor) -> Tensor:
        return x @ self.h.weight.clamp(-99, 99).T


class MaskOfOnes(Around):
    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("ni,oi->no", x, self.h.weight * self.mask)


class Triangle(Around):
    """Puts zeros where the levels may have none."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, torch.tril(self.h.weight))


class AlsoChanged(Around):
    def forward(self, x: Tensor) -> Tensor:
        return self.h(x) + F.linear(x, self.h.weight.abs())


class Product(Around):
    """Levels times levels are other numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.k = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.h.weight @ self.k.weight)


class WrittenOut(Around):
    def forward(self, x: Tensor) -> Tensor:
        return (x.unsqueeze(1) * self.h.weight.relu()).sum(-1)


def _in_place(layer: nn.Module, _inputs: object) -> None:
    layer.weight.data.clamp_(-0.1, 0.1)


def _assigned(layer: nn.Module, _inputs: object) -> None:
    layer.weight.data = layer.weight.data * 0.5


def _normalised(layer: nn.Module, _inputs: object) -> None:
    with torch.no_grad():
        layer.weight.div_(layer.weight.norm())


def network(middle: nn.Module) -> nn.Sequential:
    torch.manual_seed(1)
    layers = PerStep(nn.Linear(6, 8), nn.BatchNorm1d(8)), LIF(), PerStep(middle), LIF(), PerStep(nn.Linear(8, 3))
    return nn.Sequential(Repeat(4), *layers).eval()


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize(
    ("kind", "operation"),
    [(Centred, "mean"), (GainOfOne, "mul"), (ClampOfNothing, "clamp"), (MaskOfOnes, "mul"), (AlsoChanged, "abs"),
     (Product, "mm"), (WrittenOut, "relu"), (Triangle, "tril")],
)  # fmt: skip
def test_what_a_module_around_makes_of_the_weight_is_refused(kind: type[nn.Module], operation: str, spec: str) -> None:
    if spec == "layer by layer" and kind is Centred:
        pytest.skip("compensated rounding says first that no input of the layer is seen")
    model = network(kind())
    before = copy.deepcopy(model.state_dict())
    told = rf"weight of '3\.0\.h' \(Linear\) is changed \({operation}\).*match = '3\.0\.h', weights = 'float'"
    with pytest.raises(ModelError, match=told):
        isofire.quantize_(model, SPECS[spec], (X, Y))
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    rules = ({"match": "re:3.*", "weights": "float"},)
    isofire.quantize_(
        model, QuantSpec(weights={"method": "lsq", "bits": 3}, first_layer="quantize", rules=rules), (X, Y)
    )  # type: ignore[arg-type]
    assert list(model.state_dict()) == list(before)


@pytest.mark.parametrize(
    ("hook", "operation"), [(_in_place, "clamp_"), (_assigned, "an assignment to its data"), (_normalised, "div_")]
)
def test_a_hook_that_writes_the_weight_is_refused(hook, operation: str) -> None:
    layer = nn.Linear(8, 8)
    layer.register_forward_pre_hook(hook)
    model = network(layer)
    with pytest.raises(ModelError, match=rf"weight of '3\.0' \(Linear\) is changed \({operation}\)"):
        isofire.quantize_(model, SPECS["ranges are measured"], (X, Y))
    prepared = prepare_(network(layer), SPECS["norms are measured"])
    with pytest.raises(ModelError, match=operation):
        calibrate_(prepared, (X, Y))


MADE = {
    "gt": lambda w: (w > 0).float() * 2 - 1,
    "where": lambda w: torch.where(w > 0, 0.5, -0.5),
    "sign": lambda w: w.sign(),
    "heaviside": lambda w: torch.heaviside(w, torch.tensor(0.0)),
    "int": lambda w: (w * 8).int().float() / 8,
    "argsort": lambda w: w.argsort(1).float(),
    "bucketize": lambda w: torch.bucketize(w, torch.tensor([-0.2, 0.2])).float(),
    "half": lambda w: w.half().float(),
    "float8": lambda w: w.to(torch.float8_e4m3fn).float(),
    "a view as integers": lambda w: (w.view(torch.int32) + 1).view(torch.float32),
    "numpy": lambda w: torch.from_numpy(w.detach().numpy() * 0.5),
    "tolist": lambda w: torch.tensor((w * 2).tolist()),
    "item": lambda w: torch.tensor([[x.item() for x in row] for row in w[:2]]).repeat(4, 1),
    "written into a tensor": lambda w: torch.empty(8, 8).copy_(w * 0.5),
}


class Made(Around):
    def __init__(self, made) -> None:
        super().__init__()
        self.made = made

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.made(self.h.weight), self.h.bias)


@pytest.mark.parametrize("made", MADE)
def test_numbers_made_of_the_weight_by_other_types_and_ways_are_refused(made: str) -> None:
    told = r"weight of '3\.0\.h' \(Linear\) is changed \(.*match = '3\.0\.h', weights = 'float'"
    with pytest.raises(ModelError, match=told):
        isofire.quantize_(network(Made(MADE[made])), SPECS["nothing is measured"], (X, Y))


class Picked(Around):
    """Spikes as indices; what they pick was changed before."""

    def forward(self, x: Tensor) -> Tensor:
        return (self.h.weight.T * 0.5)[x.argmax(1)] + self.h.bias


class Hidden(Around):
    """Reads the weight where no operation is seen."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.utils._python_dispatch._disable_current_modes(), torch._C.DisableTorchFunction():
            weight = self.h.weight * 0.5
        return F.linear(x, weight)


@pytest.mark.parametrize("kind", [Picked, Hidden])
def test_a_changed_weight_that_meets_spikes_in_other_ways_is_refused(kind: type[nn.Module]) -> None:
    with pytest.raises(ModelError, match=r"weight of '3\.0\.h' \(Linear\) is changed \("):
        isofire.quantize_(network(kind()), SPECS["nothing is measured"], (X, Y))


class Branch(nn.Module):
    """Images that begin with a negative number go another way, with a centred weight."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.n, self.o = nn.Linear(6, 8), nn.Linear(6, 8), LIF(), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        rare = x[:, :1] < 0
        h = self.a(x)
        if rare.any():
            h = torch.where(rare, F.linear(x, self.b.weight - self.b.weight.mean()), h)
        return self.o(self.n(h.expand(4, *h.shape)))


@pytest.mark.parametrize("spec", ["nothing is measured", "ranges are measured"])
@pytest.mark.parametrize("place", [5, 20])
def test_a_branch_that_a_later_image_takes_is_seen(spec: str, place: int) -> None:
    """Be it in the first batch of eight or a later one."""
    images = X.clone()
    images[place, 0] = -1
    batches = [(x, y) for x, y in zip(images.split(8), Y.split(8), strict=True)]
    torch.manual_seed(1)
    with pytest.raises(ModelError, match=r"weight of 'b' \(Linear\) is changed \(mean\)"):
        isofire.quantize_(Branch().eval(), SPECS[spec], batches)


class Moves(Around):
    """Larger types, tensors written into and used again, autocast: no change of the weight alone."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("room", torch.ones(10, 8))

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(2):
            self.room.zero_()
            self.room[:8] = self.h.weight
            self.room[8:] = 0
        wide = F.linear(x.double(), self.h.weight.double()).float()
        with torch.autocast("cpu", torch.bfloat16):
            low = F.linear(x, self.h.weight).float()
        if torch.isfinite(self.h.weight).all():
            low = low / self.h.weight.norm().item()
        return F.linear(x, self.room)[:, :8] + wide + low


@pytest.mark.parametrize("spec", ["nothing is measured", "norms are measured", "ranges are measured"])
def test_larger_types_and_autocast_and_tensors_used_again_are_moves(spec: str) -> None:
    prepared = isofire.calibrate(isofire.prepare(network(Moves()), SPECS[spec]), (X, Y))
    codes, levels = integer_weights(prepared)["3.0.h"]
    room = prepared.eval()(X) is not None and prepared[3][0].room
    used = levels.gather(1, codes.long()) if len(levels) > 1 else levels[0][codes.long()]
    assert torch.equal(room, F.pad(used, (0, 0, 0, 2)))


class Moved(Around):
    """The weight as it is, by ways that change no number of it."""

    def forward(self, x: Tensor) -> Tensor:
        first = F.linear(x[:, :4], self.h.weight[:, :4].T.contiguous().T) / self.h.weight.norm().detach()
        joined = torch.cat([self.h.weight, self.h.weight])[8:].to(x.dtype)
        state = torch.zeros(len(x), 8)
        for _ in range(2):
            # weights that see a state at rest make no weights of it
            state = torch.sigmoid(F.linear(state, joined, self.h.bias)) * self.h(x)
        return first + state


@pytest.mark.parametrize("spec", ["norms are measured", "ranges are measured"])
def test_a_weight_that_is_moved_stays_what_it_is(spec: str) -> None:
    """The operands of all products are on the levels, told by values this time."""
    model = network(Moved())
    prepared = isofire.calibrate(isofire.prepare(model, SPECS[spec]), (X, Y))
    codes, levels = integer_weights(prepared)["3.0.h"]
    quantized = isofire.convert(prepared)
    weight = quantized[3][0].h.weight
    assert torch.equal(weight, levels.gather(1, codes.long()) if len(levels) > 1 else levels[0][codes.long()])
    assert not torch.equal(weight, model[3][0].h.weight)


BIAS, STATE = torch.rand(8), torch.zeros(4, 8)
PRODUCTS = {
    "linear": lambda w, x: F.linear(x, w, BIAS),
    "linear of many axes": lambda w, x: F.linear(x.unsqueeze(1), w, BIAS),
    "addmm": lambda w, x: torch.addmm(BIAS, x, w.T),
    "addmv": lambda w, x: torch.addmv(BIAS, w, x[0]),
    "baddbmm": lambda w, x: torch.baddbmm(BIAS, x.unsqueeze(0), w.T.unsqueeze(0)),
    "convolution": lambda w, x: F.conv1d(x.unsqueeze(2), w.unsqueeze(2), BIAS),
}


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("product", PRODUCTS)
def test_a_product_with_a_state_at_rest_and_a_bias_makes_no_weights(product: str, stored: bool) -> None:
    """One with what the network stores does: an adapter's two matrices make another weight."""
    weight, other = nn.Parameter(torch.rand(8, 8)), STATE.clone()
    operands = Operands({"h": weight}, [BIAS, *([other] if stored else [])])
    x = torch.rand(4, 8)
    with torch.no_grad(), operands.following(x):
        F.linear(x, PRODUCTS[product](weight, other).reshape(-1, 8))
    assert (operands.seen["h"].changed is not None) == stored


def test_a_weight_that_a_product_is_added_to_is_changed() -> None:
    weight, down, up = (nn.Parameter(torch.rand(size)) for size in ((8, 8), (8, 2), (2, 8)))
    operands = Operands({"h": weight}, [down, up])
    x = torch.rand(4, 8)
    with torch.no_grad(), operands.following(x):
        F.linear(x, torch.addmm(weight, down, up))
    assert operands.seen["h"].changed == "addmm"


@pytest.mark.parametrize("method", ["gptq", "uniform"])
@pytest.mark.parametrize("kind", ["linear", "convolution"])
def test_recurrent_neurons_start_at_rest_in_every_batch(kind: str, method: str) -> None:
    snntorch = pytest.importorskip("snntorch")
    options = {"linear_features": 8} if kind == "linear" else {"conv2d_channels": 8, "kernel_size": 3}

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(6, 8) if kind == "linear" else nn.Conv2d(1, 8, 3, padding=1)
            self.neuron = snntorch.RLeaky(beta=0.8, **options)
            self.last = nn.Linear(8 if kind == "linear" else 48, 3)

        def forward(self, x: Tensor) -> Tensor:
            spikes, state = self.neuron.init_rleaky()
            steps = []
            for _ in range(3):
                spikes, state = self.neuron(self.first(x), spikes, state)
                steps.append(self.last(spikes.flatten(1)))
            return torch.stack(steps)

    torch.manual_seed(0)
    model = Net().eval()
    images = torch.randn(120, 6) if kind == "linear" else torch.randn(120, 1, 2, 3)
    spec = QuantSpec(weights={"method": method, "bits": 4})
    # batches of one size: what the library keeps of the last one fits the next
    quantize_(model, spec, [(part, torch.zeros(60, dtype=torch.long)) for part in images.split(60)])
    assert integer_weights(model)["neuron.recurrent"].levels.shape[1] <= 16


@pytest.mark.parametrize("spec", SPECS)
def test_looking_changes_nothing(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same network, bit by bit, and the same random numbers afterwards, as without it."""
    from contextlib import nullcontext

    from isofire.quantization import calibration

    def made() -> tuple[dict[str, Tensor], Tensor]:
        torch.manual_seed(0)
        model = network(nn.Linear(8, 8))
        loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), batch_size=8, shuffle=True)
        isofire.quantize_(model, SPECS[spec], loader)
        return model.state_dict(), torch.rand(3)

    looked, after = made()
    monkeypatch.setattr(calibration, "weights_used_as_they_are", lambda *_: nullcontext())
    monkeypatch.setattr(calibration, "_try_", lambda *_: None)
    plain, plainly = made()
    assert all(torch.equal(value, plain[name]) for name, value in looked.items())
    assert torch.equal(after, plainly)


class OwnGain(nn.Linear):
    """A gain of 1 in a forward of its own; without data there is nothing to run but the layer."""

    def __init__(self) -> None:
        super().__init__(8, 8)
        self.gain = nn.Parameter(torch.ones(8, 1))

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight * self.gain, self.bias)


def test_a_layer_of_its_own_with_a_gain_of_one_is_refused_without_data() -> None:
    with pytest.raises(ModelError, match=r"'3\.0' \(OwnGain\) changes its weight \(mul\)"):
        isofire.quantize_(network(OwnGain()), SPECS["nothing is measured"])


def test_a_probe_of_the_axes_leaves_nobody_watching() -> None:
    """A bare tensor's axis of images is found by running the network, unheard: the watcher must not stay on."""
    seen: list[int] = []
    torch.manual_seed(0)
    model = sew_resnet8(width=0.25, in_channels=1, T=2).eval()
    with torch.no_grad():
        model.train()(torch.rand(32, 1, 8, 8))
    spec = QuantSpec(weights={"method": "gptq", "bits": 4})

    def note(_step: object) -> None:
        seen.append(len(_get_current_function_mode_stack()))

    quantize_(model.eval(), spec, torch.rand(64, 1, 8, 8), on_step=note)
    assert seen
    assert set(seen) == {0}


class CalledWithOthers(Around):
    """Runs its layer with other numbers in the place of its parameters, as meta-learning and hypernetworks do."""

    def forward(self, x: Tensor) -> Tensor:
        numbers = {name: value * 1.5 for name, value in self.h.named_parameters()}
        return torch.func.functional_call(self.h, numbers, (x,))


class CalledWithItsOwn(Around):
    def forward(self, x: Tensor) -> Tensor:
        return torch.func.functional_call(self.h, dict(self.h.named_parameters()), (x,))


@pytest.mark.parametrize("spec", [name for name in SPECS if name != "layer by layer"])
def test_other_numbers_for_a_call_are_refused(spec: str) -> None:
    """While prepared they would go through the quantizer, after conversion not: two networks under one name."""
    with pytest.raises(ModelError, match=r"'3\.0\.h' \(Linear\) is changed \(other numbers in its place for a call"):
        quantize_(network(CalledWithOthers()), SPECS[spec], (X, Y))
    quantize_(network(CalledWithItsOwn()), SPECS[spec], (X, Y))


class Merged(nn.Linear):
    """An adapter of low rank that is added to the weight in eval mode and taken off in train mode (LoRA's own way)."""

    def __init__(self) -> None:
        super().__init__(8, 8)
        self.low, self.merged = nn.Parameter(torch.randn(8, 8) / 4), False

    def train(self, mode: bool = True) -> Merged:
        super().train(mode)
        if mode == self.merged:
            self.weight.data += -self.low.data if mode else self.low.data
            self.merged = not mode
        return self

    def forward(self, input: Tensor) -> Tensor:
        output = F.linear(input, self.weight, self.bias)
        return output if self.merged else output + F.linear(input, self.low)


class FrozenNorm(nn.BatchNorm1d):
    def train(self, mode: bool = True) -> FrozenNorm:
        return super().train(False)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("verb", [quantize_, lambda model, spec, _: prepare_(model, spec)])
def test_weights_of_one_mode_alone_are_refused(verb, training: bool) -> None:
    """Quantized in train mode the adapter was lost; quantized in eval mode and trained on, it was counted twice."""
    model = network(nn.Sequential(Merged(), FrozenNorm(8))).train(training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    other = "eval" if training else "train"
    with pytest.raises(ModelError, match=rf"'3\.0\.0' \(Merged\) is another in {other} mode than it is now"):
        verb(model, SPECS["norms are measured"], (X, Y))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    rules = ({"match": "3.0.0", "weights": "float"},)
    spec = QuantSpec(weights={"method": "lsq", "bits": 3}, first_layer="quantize", rules=rules)
    verb(model, spec, (X, Y))


class RunsOnItsAverage(Around):
    """Trained with the layer's weight, and run with a running average of it, a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("average", self.h.weight.detach() * 0.9)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.average)  # type: ignore[arg-type]


@pytest.mark.parametrize("spec", [name for name in SPECS if name != "layer by layer"])
def test_quantized_weights_that_nothing_is_multiplied_with_are_named(
    spec: str, caplog: pytest.LogCaptureFixture
) -> None:
    quantize_(network(nn.Linear(8, 8)), SPECS[spec], (X, Y))
    assert "multiply with" not in caplog.text
    quantize_(network(RunsOnItsAverage()), SPECS[spec], (X, Y))
    assert "no image is seen to multiply with the quantized weights of 3.0.h;" in caplog.text


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_of_few_digits_are_refused(dtype: torch.dtype) -> None:
    net = nn.Sequential(Repeat(2), PerStep(nn.Linear(4, 3)), IF(), PerStep(nn.Linear(3, 2))).to(dtype)
    spec = QuantSpec(weights={"method": "uniform", "bits": 8}, last_layer="quantize", first_layer="quantize")
    with pytest.raises(ModelError, match="which would round the levels"):
        quantize_(net, spec, torch.rand(4, 4, dtype=dtype))
    quantize_(net.float(), spec, torch.rand(4, 4))
