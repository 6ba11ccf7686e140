"""What a model returns is read one way, whatever the number of images, or refused."""

from __future__ import annotations

import itertools
from collections import namedtuple
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from tests.bare import BareAdapter
from torch import Tensor, nn

import isofire
from isofire.adapters import Layout, LogitsOf, OverTime, read_logits, register, unregister
from isofire.errors import ModelError, SpecError
from isofire.firing.timing import compare_timing
from isofire.neurons import IF
from isofire.training import Recipe, evaluate, train

T, CLASSES = 4, 3


class BatchFirst(nn.Module):
    """Integrate and fire on [N, T, ...], as Sinabs' layers."""

    def __init__(self) -> None:
        super().__init__()
        self.own = IF()

    def forward(self, x: Tensor) -> Tensor:
        return self.own(x.transpose(0, 1)).transpose(0, 1)


@pytest.fixture
def batch_first() -> Iterator[None]:
    register(BatchFirst, BareAdapter(Layout.BATCH_FIRST))
    yield
    unregister(BatchFirst)


class Net(nn.Module):
    """Logits [T, N, classes] of a small network, handed out in the form `give` makes of them."""

    def __init__(self, give: Callable[[Tensor], Any] = lambda logits: logits, neuron: nn.Module | None = None) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.a, self.out = nn.Linear(6, 8), nn.Linear(8, CLASSES)
        self.neuron = neuron or IF()
        self.give = give

    def forward(self, x: Tensor) -> Any:
        current = self.a(x.unsqueeze(0).expand(T, *x.shape))
        turned = isinstance(self.neuron, BatchFirst)
        spikes = self.neuron(current.transpose(0, 1)).transpose(0, 1) if turned else self.neuron(current)
        return self.give(self.out(spikes))


def data(images: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(images, 6, generator=generator) * 4, torch.randint(CLASSES, (images,), generator=generator)


def right(x: Tensor) -> Tensor:
    """Classes by the logits' mean over time, image by image."""
    return torch.cat([Net()(x[i : i + 1]).mean(0).argmax(1) for i in range(len(x))])


STEPWISE = {"list": lambda logits: list(logits), "tuple": lambda logits: tuple(logits)}


@pytest.mark.parametrize("form", STEPWISE)
@pytest.mark.parametrize("images", [64, T])
def test_logits_of_each_step_are_averaged(form: str, images: int) -> None:
    x, _ = data(images)
    model = Net(STEPWISE[form])
    assert isofire.compare(model, model, (x, right(x))).accuracy == 1.0
    assert compare_timing(model, Net(), (x, right(x))).logit_kl == 0.0


def test_training_and_evaluation_see_every_step() -> None:
    digits = isofire.data.load("digits", "train").first(64)
    results = []
    for form in (lambda logits: logits, STEPWISE["list"]):
        net = Net(form)
        net.a, net.out = nn.Linear(64, 8), nn.Linear(8, 10)
        torch.manual_seed(0)
        for layer in (net.a, net.out):
            nn.init.normal_(layer.weight, generator=torch.Generator().manual_seed(5))
        model = nn.Sequential(nn.Flatten(), net)
        history = train(model, digits, None, Recipe(epochs=1, batch_size=16, lr=0.01), progress=False).history
        results.append((history[0].train_loss, evaluate(model, digits).loss))
    assert results[0] == results[1]


@pytest.mark.parametrize("last", [T, T + 1, 1])
@pytest.mark.parametrize("give", [lambda o: o, lambda o: o.transpose(0, 1)], ids=["TNC", "NTC"])
@pytest.mark.usefixtures("batch_first")
def test_a_batch_of_as_many_images_as_steps_is_read_as_the_others(give: Any, last: int) -> None:
    x, _ = data(8 + last)
    model = Net(give, BatchFirst())
    assert isofire.compare(model, model, (x, right(x)), batch_size=8).accuracy == 1.0
    # and where no other batch tells
    x, labels = x[:T], right(x[:T])
    again = Net(give, BatchFirst())
    assert isofire.compare(again, again, (x, labels)).accuracy == 1.0


def test_images_on_the_first_axis_are_refused_of_time_first_neurons_for_every_number() -> None:
    for images in (8, T):
        x, labels = data(images)
        model = Net(lambda logits: logits.transpose(0, 1))
        with pytest.raises(ModelError, match=r"the images on the first axis; say which .*LogitsOf"):
            isofire.compare(model, model, (x, labels))
        named = LogitsOf(model, axes="NTC")
        assert isofire.compare(named, named, (x, right(x))).accuracy == 1.0


@pytest.mark.usefixtures("batch_first")
def test_where_no_other_number_of_images_can_be_run_it_is_asked_for() -> None:
    class Fixed(Net):
        def forward(self, x: Tensor) -> Any:
            return super().forward(x.view(T, 6))

    x, labels = data(T)
    model = Fixed(neuron=BatchFirst())
    with pytest.raises(ModelError, match="in which images and steps are as many"):
        isofire.compare(model, model, (x, labels))
    named = LogitsOf(model)
    assert isofire.compare(named, named, (x, right(x))).accuracy == 1.0


Named = namedtuple("Named", "main other")
FORMS: dict[str, tuple[Callable[[Tensor], Any], dict[str, Any]]] = {
    "dictionary": (lambda o: {"logits": o, "aux": -o}, {"output": "logits"}),
    "two heads": (lambda o: (-o.mean(0), o.mean(0)), {"output": 1, "axes": "NC"}),
    "two heads of other sizes": (lambda o: (torch.cat([o, o], 2), o), {"output": 1}),
    "hidden spikes and logits": (lambda o: (torch.cat([-o, o], 2), o.mean(0)), {"output": 1, "axes": "NC"}),
    "features and logits": (lambda o: (torch.cat([-o, o], 2).mean(0), o), {"output": 1}),
    "as many heads as three": (lambda o: [o[0], o[1], o.mean(0)], {"output": 2, "axes": "NC"}),
    "named": (lambda o: Named(o.mean(0), -o.mean(0)), {"output": "main", "axes": "NC"}),
    "a list of heads": (lambda o: [o, -o], {"output": 0}),
    "classes first": (lambda o: o.permute(2, 0, 1), {"axes": "CTN"}),
    "one logit an image": (lambda o: o.mean((0, 2)), {"output": lambda o: torch.stack([-o, o, -o], 1), "axes": "NC"}),
}


@pytest.mark.parametrize("form", FORMS)
def test_what_can_be_read_in_several_ways_is_refused_until_it_is_said(form: str) -> None:
    give, how = FORMS[form]
    x, _ = data(16)
    model = Net(give)
    with pytest.raises(ModelError, match=r"a model must give logits .*LogitsOf"):
        isofire.compare(model, model, (x, right(x)))
    if form != "one logit an image":
        named = LogitsOf(model, **how)
        assert isofire.compare(named, named, (x, right(x))).accuracy == 1.0
    assert LogitsOf(model, **how)(x).shape[-2:] == (16, CLASSES)


class Heads(Net):
    """As many heads as steps, each its own layer."""

    def __init__(self, stepped: bool) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(8, CLASSES) for _ in range(T))
        self.stepped = stepped

    def forward(self, x: Tensor) -> Any:
        spikes = self.neuron(self.a(x.unsqueeze(0).expand(T, *x.shape)))
        if self.stepped:
            return [head(step) for head, step in zip(self.heads, spikes, strict=True)]
        return [head(spikes.mean(0)) for head in self.heads]


def test_as_many_heads_as_steps_are_no_steps() -> None:
    """Heads see all steps; a readout of its own for every step is a list of steps."""
    x, labels = data(16)
    model = Heads(stepped=False)
    with pytest.raises(ModelError, match=r"4 tensors \[16, 3\], which could be steps, heads or states.*LogitsOf"):
        isofire.compare(model, model, (x, labels))
    named = LogitsOf(model, output=2, axes="NC")
    expected = float((model(x)[2].argmax(1) == labels).float().mean())
    assert isofire.compare(named, named, (x, labels)).accuracy == pytest.approx(expected)
    stepped = Heads(stepped=True)
    expected = float((torch.stack(stepped(x)).mean(0).argmax(1) == labels).float().mean())
    assert isofire.compare(stepped, stepped, (x, labels)).accuracy == pytest.approx(expected)


TURNED = {
    "[T, classes, N]": lambda o: o.transpose(1, 2),
    "[classes, N]": lambda o: o.mean(0).T,
    "[N, classes, T]": lambda o: o.permute(1, 2, 0),
    "a list of [classes, N]": lambda o: [step.T for step in o],
}


@pytest.mark.parametrize("form", TURNED)
@pytest.mark.parametrize("images", [CLASSES, 16])
def test_other_orders_of_axes_are_refused_for_every_number_of_images(form: str, images: int) -> None:
    """As many images as classes must not let the classes be taken for the images."""
    x, _ = data(images)
    model = Net(TURNED[form])
    with pytest.raises(ModelError, match="a model must give logits"):
        isofire.compare(model, model, (x, right(x)))


@pytest.mark.parametrize("give", [lambda o: o, lambda o: o.mean(0), list], ids=["TNC", "NC", "list"])
@pytest.mark.parametrize("images", [CLASSES, T])
def test_as_many_images_as_classes_or_steps_are_read(give: Any, images: int) -> None:
    x, _ = data(images)
    model = Net(give)
    assert isofire.compare(model, model, (x, right(x))).accuracy == 1.0


def test_pairs_are_no_steps_whatever_the_number_of_steps() -> None:
    class Two(Net):
        def forward(self, x: Tensor) -> Any:
            return tuple(super().forward(x)[:2])

    model = Two()
    with pytest.raises(ModelError, match=r"2 tensors \[16, 3\], which could be steps, heads or states"):
        isofire.compare(model, model, data(16))
    x, labels = data(16)
    assert LogitsOf(model, "steps")(x).shape == (2, 16, CLASSES)
    assert isofire.compare(LogitsOf(model, "steps"), LogitsOf(model, "steps"), (x, labels)).n_images == 16


@pytest.mark.parametrize(
    "give",
    [
        lambda o: (o, (o > 0).float()),
        lambda o: (o, torch.zeros_like(o)),
        lambda o: (o.mean(0), {"state": o}),
        lambda o: (o, None),
        lambda o: [o.mean(0)],
    ],
    ids=["logits and spikes", "logits and nothing", "output and state", "nothing else", "a list of one"],
)
def test_the_first_of_what_else_is_no_logits_is_meant(give: Any) -> None:
    x, _ = data(16)
    model = Net(give)
    assert isofire.compare(model, model, (x, right(x))).accuracy == 1.0


def of_largest(o: Tensor) -> Tensor:
    """Spikes of the largest logit alone, `[T, N, classes]`."""
    return torch.nn.functional.one_hot(o.argmax(-1), CLASSES).to(o)


@pytest.mark.parametrize("height", [1.0, 2.0, 0.5], ids=["spikes", "of two", "of a half"])
@pytest.mark.parametrize("membranes", [lambda o: o, lambda o: o - 1], ids=["as they are", "others"])
def test_spikes_beside_membranes_of_their_shape_are_the_output(membranes: Any, height: float) -> None:
    """Graded spikes too."""
    x, _ = data(16)
    plain, both = Net(of_largest), Net(lambda o: (height * of_largest(o), membranes(o)))
    labels = of_largest(Net()(x)).sum(0).argmax(1)
    assert (
        isofire.compare(both, both, (x, labels)).accuracy == isofire.compare(plain, plain, (x, labels)).accuracy == 1.0
    )


@pytest.mark.parametrize(
    "give",
    [lambda o: (o, o * 2), lambda o: (o, None, o.flip(-1)), lambda o: (of_largest(o), of_largest(-o))],
    ids=["logits twice", "with something between", "spikes twice"],
)
def test_two_of_a_kind_with_steps_are_heads_and_refused(give: Any) -> None:
    x, labels = data(16)
    model = Net(give)
    with pytest.raises(ModelError, match="each of which could be logits"):
        isofire.compare(model, model, (x, labels))
    assert isofire.compare(LogitsOf(model, 0), LogitsOf(model, 0), (x, labels)).n_images == 16


@pytest.mark.parametrize("steps", [5, CLASSES], ids=["other lengths", "as many steps as classes"])
def test_the_first_axis_of_logits_is_that_of_the_steps_or_refused(steps: int) -> None:
    class Ordered(nn.Module):
        def __init__(self, order: str) -> None:
            super().__init__()
            torch.manual_seed(3)
            self.a, self.neuron, self.out, self.order = nn.Linear(6, 8), IF(), nn.Linear(8, CLASSES), order

        def forward(self, x: Tensor) -> Tensor:
            logits = self.out(self.neuron(self.a(x).expand(steps, -1, -1)))
            return logits.permute(["TNC".index(axis) for axis in self.order])

    x = data(16)[0]
    with torch.no_grad():
        labels = Ordered("TNC")(x).mean(0).argmax(1)
    assert isofire.compare(Ordered("TNC"), Ordered("TNC"), (x, labels)).accuracy == 1.0
    with pytest.raises(ModelError, match=r"steps are not where they belong; say which are .*LogitsOf"):
        isofire.compare(Ordered("CNT"), Ordered("CNT"), (x, labels))
    meant = LogitsOf(Ordered("CNT"), axes="CNT")
    assert isofire.compare(meant, meant, (x, labels)).accuracy == 1.0


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("order", ["TNC", "CNT"])
def test_as_many_steps_as_two_classes_are_told_by_the_last_neuron(seed: int, order: str) -> None:
    """Other spikes of the first neurons may undo those of the last."""

    class Spiking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(seed)
            self.a, self.first, self.b, self.last = nn.Linear(6, 8), IF(), nn.Linear(8, 2), IF()

        def forward(self, x: Tensor) -> Tensor:
            spikes = self.last(6 * self.b(self.first(3 * self.a(x).expand(2, -1, -1))))
            return spikes.permute(["TNC".index(axis) for axis in order])

    model, images = Spiking(), (data(4)[0], torch.zeros(4, dtype=torch.int64))
    if order == "TNC":
        assert isofire.compare(model, model, images).n_images == 4
    else:
        with pytest.raises(ModelError, match="steps are not where they belong"):
            isofire.compare(model, model, images)


def test_steps_that_are_turned_around_are_steps_where_classes_are_as_many() -> None:
    class Turned(Net):
        def forward(self, x: Tensor) -> Any:
            return self.out(self.neuron(self.a(x).expand(CLASSES, -1, -1))).roll(1, 0)

    model, (x, _) = Turned(), data(16)
    with torch.no_grad():
        labels = model(x).mean(0).argmax(1)
    assert isofire.compare(model, model, (x, labels)).accuracy == 1.0


@pytest.mark.usefixtures("batch_first")
@pytest.mark.parametrize("steps", [5, CLASSES], ids=["other lengths", "as many steps as classes"])
def test_the_second_axis_of_batch_first_logits_is_that_of_the_steps_or_refused(steps: int) -> None:
    class Ordered(nn.Module):
        def __init__(self, order: str) -> None:
            super().__init__()
            torch.manual_seed(3)
            self.a, self.neuron, self.out, self.order = nn.Linear(6, 8), BatchFirst(), nn.Linear(8, CLASSES), order

        def forward(self, x: Tensor) -> Tensor:
            logits = self.out(self.neuron(self.a(x).unsqueeze(1).expand(-1, steps, -1)))
            return logits.permute(["NTC".index(axis) for axis in self.order])

    x = data(16)[0]
    labels = Ordered("NTC")(x).mean(1).argmax(1)
    assert isofire.compare(Ordered("NTC"), Ordered("NTC"), (x, labels)).accuracy == 1.0
    for order in ("NCT", "CNT"):
        with pytest.raises(ModelError, match="steps are not where they belong"):
            isofire.compare(Ordered(order), Ordered(order), (x, labels))


def test_a_probe_leaves_random_numbers_and_norms_alone() -> None:
    class Noisy(Net):
        def __init__(self) -> None:
            super().__init__(lambda logits: list(logits))
            self.norm = nn.BatchNorm1d(6)

        def forward(self, x: Tensor) -> Any:
            return super().forward(self.norm(x) + torch.rand(()) * 0)

    model, (x, _) = Noisy().train(), data(T)
    output = model(x)
    before, state = torch.get_rng_state(), {key: value.clone() for key, value in model.state_dict().items()}
    read_logits(model, output, T, x)
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert model.norm.training


def test_who_listens_to_the_network_hears_of_no_probe() -> None:
    model, (x, _) = Net(lambda logits: list(logits)), data(T)
    heard: list[Tensor] = []
    model.neuron.register_forward_hook(lambda _module, _inputs, output: heard.append(output))
    output = model(x)
    read_logits(model, output, T, x)
    model(x)
    assert len(heard) == 2


def test_wrong_words_on_the_output_are_told() -> None:
    with pytest.raises(SpecError, match="axes must be one of NC, CN with output='steps', got 'TNC'"):
        LogitsOf(Net(), "steps", "TNC")
    with pytest.raises(SpecError, match="axes must be one of NC, CN, TNC"):
        LogitsOf(Net(), axes="XYZ")
    x, _ = data(4)
    with pytest.raises(ModelError, match=r"returned a dict with a, in which output='b' finds nothing"):
        LogitsOf(Net(lambda o: {"a": o}), "b")(x)
    with pytest.raises(ModelError, match=r"must have the axes NC .*, got \[4, 4, 3\]"):
        LogitsOf(Net(), axes="NC")(x)
    with pytest.raises(ModelError, match=r"got a dict; wrap it: OverTime\(LogitsOf"):
        OverTime(Net(lambda o: {"a": o}), 3)(x)


class Fourier(Net):
    """Gives complex numbers."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.fft(super().forward(x))


def test_complex_logits_have_no_order() -> None:
    x, y = torch.rand(7, 6) * 3, torch.arange(7) % CLASSES
    net = Fourier().eval()
    with pytest.raises(ModelError, match=r"must be real numbers.* those of Fourier are complex64; .*found\.abs\(\)"):
        isofire.compare(net, net, [(x, y)])
    sized = LogitsOf(net, output=lambda found: found.abs())
    with torch.no_grad():
        expected = net(x).abs().mean(0).argmax(1)
    found = isofire.compare(sized, sized, [(x, y)])
    assert found.accuracy == (expected == y).double().mean()


class Exits(nn.Module):
    """A head after each of its neurons, stacked: [exits, N, classes], each of which sees all steps."""

    def __init__(self, steps: int, exits: int = 3, classes: int = 5, of: Callable[[Tensor], Tensor] = torch.mean):
        super().__init__()
        torch.manual_seed(9)
        sizes = [6, *[8] * exits]
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in itertools.pairwise(sizes))
        self.neurons = nn.ModuleList(IF() for _ in range(exits))
        self.heads = nn.ModuleList(nn.Linear(8, classes) for _ in range(exits))
        self.steps, self.of = steps, of
        with torch.no_grad():
            for layer in self.layers:
                layer.weight.mul_(3)  # type: ignore[operator, union-attr]

    def forward(self, x: Tensor) -> Tensor:
        z, out = x.expand(self.steps, -1, -1), []
        for layer, neuron, head in zip(self.layers, self.neurons, self.heads, strict=True):
            z = neuron(layer(z))
            out.append(self.of(head(z)))
        return torch.stack(out)


OVER_STEPS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda o: o.mean(0),
    "last": lambda o: o[-1],
    "largest": lambda o: o.amax(0),
}


@pytest.mark.parametrize("steps", [2, 3, 5])
@pytest.mark.parametrize("of", OVER_STEPS)
def test_stacked_exits_are_refused_however_many_they_are(of: str, steps: int) -> None:
    """As many as steps, or as steps and classes, or neither."""
    for exits in (2, 3, 5):
        model, (x, _) = Exits(steps, exits, of=OVER_STEPS[of]), data(16)
        with torch.no_grad():
            labels = model(x)[-1].argmax(1)
        with pytest.raises(ModelError, match=r"LogitsOf"):
            isofire.compare(model, model, (x, labels))
        last = LogitsOf(model, output=lambda found: found[-1], axes="NC")
        assert isofire.compare(last, last, (x, labels)).accuracy == 1.0


@pytest.mark.parametrize("left_out", range(T - 1))
def test_steps_of_which_the_first_are_left_out_to_warm_up_are_steps(left_out: int) -> None:
    model, (x, y) = Net(lambda logits: logits[left_out:]), data(7)
    isofire.firing.observe(model, (x, y))
    assert evaluate(model, (x, y)).accuracy == pytest.approx(float((model(x).mean(0).argmax(1) == y).float().mean()))


def test_as_many_exits_as_steps_are_told_as_such() -> None:
    model, (x, labels) = Exits(3, of=OVER_STEPS["mean"]), data(16)
    with pytest.raises(ModelError, match=r"the 3 rows of \[3, 16, 5\] all see the last step, as exits do"):
        isofire.compare(model, model, (x, labels))


def test_stacked_heads_of_one_neuron_are_refused() -> None:
    class Stacked(Heads):
        def forward(self, x: Tensor) -> Any:
            return torch.stack(super().forward(x))

    x, labels = data(16)
    with pytest.raises(ModelError, match="as exits do that are as many as steps"):
        isofire.compare(Stacked(stepped=False), Stacked(stepped=False), (x, labels))
    stepped = Stacked(stepped=True)
    expected = float((stepped(x).mean(0).argmax(1) == labels).float().mean())
    assert isofire.compare(stepped, stepped, (x, labels)).accuracy == pytest.approx(expected)


class Mixing(nn.Module):
    """Each step sees all others before the last neuron."""

    def forward(self, x: Tensor) -> Tensor:
        return x + x.mean(0) - x.flip(0) / 2


OF_STEPS: dict[str, Callable[[], Net]] = {
    "running means": lambda: Net(lambda o: o.cumsum(0) / torch.arange(1, T + 1).view(-1, 1, 1)),
    "leaky": lambda: Net(lambda o: torch.stack([sum(0.5 ** (t - s) * o[s] for s in range(t + 1)) for t in range(T)])),
    "one step late": lambda: Net(lambda o: torch.cat((torch.zeros_like(o[:1]), o[:-1]))),
    "steps that see their neighbours": lambda: Net(lambda o: o + o.roll(1, 0) / 2),
    "one mean, laid over the steps": lambda: Net(lambda o: o.mean(0).expand(T, -1, -1)),
    "mixed before the last neuron": lambda: Net(neuron=nn.Sequential(IF(), Mixing(), IF())),
}


@pytest.mark.parametrize("images", [1, 16])
@pytest.mark.parametrize("name", OF_STEPS)
def test_steps_are_read_whatever_readout_they_come_from(name: str, images: int) -> None:
    model, (x, _) = OF_STEPS[name](), data(images)
    with torch.no_grad():
        labels = model(x).mean(0).argmax(1)
    assert isofire.compare(model, model, (x, labels)).accuracy == 1.0


def test_logits_that_are_normed_over_the_steps_are_asked_about() -> None:
    model, (x, _) = Net(lambda o: o.softmax(0)), data(16)
    with torch.no_grad():
        labels = model(x).mean(0).argmax(1)
    with pytest.raises(ModelError, match=r"LogitsOf\(model, axes='TNC'\) that they are steps"):
        isofire.compare(model, model, (x, labels))
    named = LogitsOf(model, axes="TNC")
    assert isofire.compare(named, named, (x, labels)).n_images == 16
