"""One case a library: its neurons and a small network in its own style, and the same built of isofire's neurons."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from isofire.adapters import Adapter, Layout, MembraneMixin, register
from isofire.neurons import IF, LIF, ATan, Neuron

LIBRARIES = os.environ.get("ISOFIRE_LIBRARIES")
"""`make test-adapters` names the set of libraries whose environment this is; only its cases run, none is skipped."""
STEPS = 4
JUST_ABOVE_1 = 1.0 + 2.0**-23
"""The float32 next to 1: `h >= JUST_ABOVE_1` is `h > 1`."""


class Case:
    """What the contract needs of one library; the neurons of a case compute bit by bit what isofire's own do."""

    name = ""
    module = ""
    """Imported to run the case; skipped where it is missing."""
    libraries = "peers"
    """The environment of `make test-adapters` that has it."""
    fires_at_threshold = True
    placements = ("pre_fire", "post_reset")
    order = "time"
    """How the network's layers see time: "time" as [T * N, ...], "batch" as [N * T, ...], "steps" one by one."""

    def neuron(self, placement: str = "pre_fire") -> nn.Module:
        """A layer of the library's neurons with threshold 1."""
        raise NotImplementedError

    def own(self) -> Neuron:
        """isofire's neuron with the same dynamics."""
        raise NotImplementedError

    def run(self, neuron: nn.Module, currents: Tensor) -> Tensor:
        """Spikes [T, N, ...] for currents [T, N, ...] the way a user of the library gets them."""
        raise NotImplementedError

    def reset(self, model: nn.Module) -> None:
        """The library's own reset, if a user has to call one between batches."""

    def detach(self, model: nn.Module) -> None:
        """The library's own cut through the gradients of stored states, if it has one."""

    def net(self, placement: str = "pre_fire") -> nn.Module:
        """A network with layers conv1, bn1, n1, conv2, bn2, n2, fc from images [N, 1, 6, 6] to logits."""
        raise NotImplementedError

    def refused(self) -> list[nn.Module]:
        """Neurons of the library whose membranes cannot be quantized."""
        return []

    def bypassing(self) -> nn.Module:
        """A neuron that computes what it did whatever hooks it is given, as a library's fast path would."""
        neuron, other = self.neuron(), self.neuron()
        neuron.forward = lambda *args: other(*args)
        return neuron

    def bypassing_in(self, training: bool) -> nn.Module:
        """A neuron that does so in train mode, or in eval mode, alone."""
        neuron, other = self.neuron(), self.neuron()
        own = type(neuron)

        def forward(self: nn.Module, *args: Any) -> Any:
            return other(*args) if self.training is training else own.forward(self, *args)

        neuron.__class__ = type(own.__name__, (own,), {"forward": forward, "__module__": own.__module__})
        return neuron


class Net(nn.Module):
    """Two layers of neurons; a library's style overrides `layer` and `neurons`, which take and give [T, N, ...]."""

    def __init__(self, first: nn.Module, second: nn.Module, layers: Any = nn, order: str = "time") -> None:
        super().__init__()
        self.order = order
        self.conv1, self.bn1 = layers.Conv2d(1, 4, 3, padding=1), layers.BatchNorm2d(4)
        self.n1 = first
        self.conv2, self.bn2 = layers.Conv2d(4, 5, 3), layers.BatchNorm2d(5)
        self.n2 = second
        self.fc = layers.Linear(80, 3)

    def layer(self, module: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        if self.order == "steps":
            return torch.stack([module(step) for step in x])
        if self.order == "batch":
            x = x.transpose(0, 1)
            return module(x.flatten(0, 1)).unflatten(0, x.shape[:2]).transpose(0, 1)
        return module(x.flatten(0, 1)).unflatten(0, x.shape[:2])

    def neurons(self, neuron: nn.Module, x: Tensor) -> Tensor:
        return neuron(x)

    def forward(self, x: Tensor) -> Tensor:
        x = x.unsqueeze(0).expand(STEPS, *x.shape)
        x = self.neurons(self.n1, self.layer(self.bn1, self.layer(self.conv1, x)))
        x = self.neurons(self.n2, self.layer(self.bn2, self.layer(self.conv2, x)))
        return self.layer(self.fc, x.flatten(2))


class SpikingJelly(Case):
    name, module = "spikingjelly 2.0", "spikingjelly.activation_based.neuron.base_node"

    def neuron(self, placement: str = "pre_fire") -> nn.Module:
        from spikingjelly.activation_based import neuron, surrogate

        return neuron.LIFNode(3.0, v_reset=-0.25, step_mode="m", surrogate_function=surrogate.ATan())

    def own(self) -> Neuron:
        return LIF(3.0, v_reset=-0.25, surrogate=ATan())

    def run(self, neuron: nn.Module, currents: Tensor) -> Tensor:
        spikes = neuron(currents)
        self.reset(neuron)
        return spikes

    def reset(self, model: nn.Module) -> None:
        from spikingjelly.activation_based import functional

        functional.reset_net(model)

    def detach(self, model: nn.Module) -> None:
        from spikingjelly.activation_based import functional

        functional.detach_net(model)

    def net(self, placement: str = "pre_fire") -> nn.Module:
        from spikingjelly.activation_based import functional, layer

        class Jelly(Net):
            def layer(self, module: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
                return module(x)

        net = Jelly(self.neuron(), self.neuron(), layer)
        functional.set_step_mode(net, "m")
        return net

    def refused(self) -> list[nn.Module]:
        from spikingjelly.activation_based import neuron

        return [
            neuron.ComplementaryLIFNode(step_mode="m"),
            neuron.PSN(STEPS),
            neuron.SlidingPSN(2, step_mode="m"),
            neuron.IzhikevichNode(step_mode="m"),
        ]


class SpikingJellySteps(SpikingJelly):
    """One step a call, the loop over time inside of the network."""

    name = "spikingjelly 2.0, step by step"
    order = "steps"

    def neuron(self, placement: str = "pre_fire") -> nn.Module:
        neuron = super().neuron()
        neuron.step_mode = "s"
        return neuron

    def run(self, neuron: nn.Module, currents: Tensor) -> Tensor:
        spikes = torch.stack([neuron(step) for step in currents])
        self.reset(neuron)
        return spikes

    def net(self, placement: str = "pre_fire") -> nn.Module:
        from spikingjelly.activation_based import layer

        class Jelly(Net):
            def forward(self, x: Tensor) -> Tensor:
                steps = []
                for _ in range(STEPS):
                    hidden = self.n1(self.bn1(self.conv1(x)))
                    hidden = self.n2(self.bn2(self.conv2(hidden)))
                    steps.append(self.fc(hidden.flatten(1)))
                return torch.stack(steps)

        return Jelly(self.neuron(), self.neuron(), layer)

    def refused(self) -> list[nn.Module]:
        from spikingjelly.activation_based import neuron

        return [neuron.ComplementaryLIFNode(), neuron.OTTTLIFNode()]


class SpikingJelly0(SpikingJelly):
    name, module = "spikingjelly 0.0.0.0.14", "spikingjelly.activation_based.neuron_kernel"
    libraries = "spikingjelly0"

    def refused(self) -> list[nn.Module]:
        from spikingjelly.activation_based import neuron

        return [neuron.IzhikevichNode(step_mode="m"), neuron.KLIFNode(scale_reset=True, step_mode="m")]


class SpikingJelly0Steps(SpikingJellySteps):
    name, module = f"{SpikingJelly0.name}, step by step", SpikingJelly0.module
    libraries = "spikingjelly0"

    def refused(self) -> list[nn.Module]:
        from spikingjelly.activation_based import neuron

        return [neuron.KLIFNode(scale_reset=True)]


class SnnTorch(Case):
    name, module = "snntorch 1.0", "snntorch"
    fires_at_threshold = False
    order = "steps"

    def neuron(self, placement: str = "pre_fire") -> nn.Module:
        import snntorch

        return snntorch.Leaky(beta=0.5, reset_mechanism="zero", reset_delay=placement == "pre_fire")

    def own(self) -> Neuron:
        return LIF(2.0, decay_input=False, v_threshold=JUST_ABOVE_1)

    def run(self, neuron: Any, currents: Tensor) -> Tensor:
        spikes, membrane = [], neuron.init_leaky()
        for current in currents:
            spike, membrane = neuron(current, membrane)
            spikes.append(spike)
        return torch.stack(spikes)

    def detach(self, model: nn.Module) -> None:
        import snntorch

        snntorch.Leaky.detach_hidden()

    def net(self, placement: str = "pre_fire") -> nn.Module:
        class Tutorial(Net):
            def forward(self, x: Tensor) -> Tensor:
                first, second = self.n1.init_leaky(), self.n2.init_leaky()
                steps = []
                for _ in range(STEPS):
                    spikes, first = self.n1(self.bn1(self.conv1(x)), first)
                    spikes, second = self.n2(self.bn2(self.conv2(spikes)), second)
                    steps.append(self.fc(spikes.flatten(1)))
                return torch.stack(steps)

        return Tutorial(self.neuron(placement), self.neuron(placement))

    def refused(self) -> list[nn.Module]:
        import snntorch

        return [
            snntorch.SLSTM(3, 3),
            snntorch.DeltaLeaky(beta=0.5, init_hidden=True),
            snntorch.LeakyParallel(3, 3),
            snntorch.Leaky(0.5, state_quant=torch.round),
        ]


class NorseCells(Case):
    name, module = "norse 1.1 cells", "norse.torch"
    fires_at_threshold = False
    order = "steps"

    def parameters(self) -> Any:
        from norse.torch import LIFParameters

        # without synaptic delay, and with a time constant of two steps
        return LIFParameters(tau_syn_inv=torch.tensor(1.0), tau_mem_inv=torch.tensor(0.5))

    def neuron(self, placement: str = "pre_fire") -> nn.Module:
        from norse.torch import LIFCell

        return LIFCell(self.parameters(), dt=1.0)

    def own(self) -> Neuron:
        return LIF(2.0, v_threshold=JUST_ABOVE_1)

    def run(self, neuron: nn.Module, currents: Tensor) -> Tensor:
        spikes, state = [], None
        for current in currents:
            spike, state = neuron(current, state)
            spikes.append(spike)
        return torch.stack(spikes)

    def net(self, placement: str = "pre_fire") -> nn.Module:
        class Cells(Net):
            def forward(self, x: Tensor) -> Tensor:
                first = second = None
                steps = []
                for _ in range(STEPS):
                    spikes, first = self.n1(self.bn1(self.conv1(x)), first)
                    spikes, second = self.n2(self.bn2(self.conv2(spikes)), second)
                    steps.append(self.fc(spikes.flatten(1)))
                return torch.stack(steps)

        return Cells(self.neuron(), self.neuron())

    def refused(self) -> list[nn.Module]:
        from norse.torch import LIFCell, LIFExCell, LIFParameters, LIFRefracCell, LSNNCell

        return [LIFExCell(), LIFRefracCell(), LSNNCell(), LIFCell(LIFParameters(method="adjoint"))]


class NorseModules(NorseCells):
    name, order = "norse 1.1 modules", "time"

    def neuron(self, placement: str = "pre_fire") -> nn.Module:
        from norse.torch import LIF

        return LIF(self.parameters(), dt=1.0)

    def run(self, neuron: nn.Module, currents: Tensor) -> Tensor:
        return neuron(currents)[0]

    def net(self, placement: str = "pre_fire") -> nn.Module:
        class Modules(Net):
            def neurons(self, neuron: nn.Module, x: Tensor) -> Tensor:
                return neuron(x)[0]

        return Modules(self.neuron(), self.neuron())

    def refused(self) -> list[nn.Module]:
        from norse.torch import LIFAdEx, LSNNRecurrent

        return [LIFAdEx(), LSNNRecurrent(3, 3)]


class Sinabs(Case):
    name, module, order, libraries = "sinabs 3.1", "sinabs.layers", "batch", "sinabs"

    def neuron(self, placement: str = "pre_fire") -> nn.Module:
        from sinabs.activation import SingleSpike
        from sinabs.layers import IAF

        return IAF(spike_fn=SingleSpike)

    def own(self) -> Neuron:
        return IF(v_reset=None)

    def run(self, neuron: nn.Module, currents: Tensor) -> Tensor:
        spikes = neuron(currents.transpose(0, 1)).transpose(0, 1)
        self.reset(nn.Sequential(neuron))
        return spikes

    def reset(self, model: nn.Module) -> None:
        import sinabs

        sinabs.reset_states(model)

    def detach(self, model: nn.Module) -> None:
        import sinabs

        sinabs.zero_grad(model)

    def net(self, placement: str = "pre_fire") -> nn.Module:
        class Layers(Net):
            def neurons(self, neuron: nn.Module, x: Tensor) -> Tensor:
                return neuron(x.transpose(0, 1)).transpose(0, 1)

        return Layers(self.neuron(), self.neuron(), order="batch")

    def refused(self) -> list[nn.Module]:
        from sinabs.layers import IAFRecurrent

        return [IAFRecurrent(nn.Linear(3, 3))]

    def bypassing(self) -> nn.Module:
        from sinabs.layers import IAF

        class Fast(IAF):
            def forward(self, input_data: Tensor) -> Tensor:
                return IF(v_reset=None)(input_data.transpose(0, 1)).transpose(0, 1)

        return Fast()


class HandWrittenLIF(nn.Module):
    """Decays by half, adds its current, resets by subtraction; [T, N, ...]."""

    def forward(self, x: Tensor) -> Tensor:
        v, spikes = torch.zeros_like(x[0]), []
        for step in x:
            v = self.charge(v, step)
            soft = torch.sigmoid(4 * (v - 1.0))
            spikes.append((v >= 1.0).float() + (soft - soft.detach()))
            v = self.fall(v, spikes[-1].detach())
        return torch.stack(spikes)

    def charge(self, v: Tensor, x: Tensor) -> Tensor:
        return 0.5 * v + x

    def fall(self, v: Tensor, spike: Tensor) -> Tensor:
        return v - spike


class HandWrittenHost(MembraneMixin):
    def charge(self, v: Tensor, x: Tensor) -> Tensor:
        v = super().charge(v, x)  # pyright: ignore[reportAttributeAccessIssue]
        return self.membrane(v) if self.membrane.placement == "pre_fire" else v

    def fall(self, v: Tensor, spike: Tensor) -> Tensor:
        v = super().fall(v, spike)  # pyright: ignore[reportAttributeAccessIssue]
        return self.membrane(v) if self.membrane.placement == "post_reset" else v


class HandWrittenAdapter(Adapter):
    def layout(self, neuron: nn.Module) -> Layout:
        return Layout.TIME_FIRST

    def v_reset(self, neuron: nn.Module) -> None:
        return None

    def threshold(self, neuron: nn.Module) -> Tensor:
        return torch.tensor(1.0)

    def states(self, neuron: nn.Module) -> tuple[str, ...]:
        return ("membrane",)

    def host(self, neuron: nn.Module) -> type[MembraneMixin]:
        return HandWrittenHost


class HandWritten(Case):
    """A class of the user's own, through `register`."""

    name, module = "hand-written", "isofire"

    def neuron(self, placement: str = "pre_fire") -> nn.Module:
        register(HandWrittenLIF, HandWrittenAdapter())
        return HandWrittenLIF()

    def own(self) -> Neuron:
        return LIF(2.0, decay_input=False, v_reset=None)

    def run(self, neuron: nn.Module, currents: Tensor) -> Tensor:
        return neuron(currents)

    def net(self, placement: str = "pre_fire") -> nn.Module:
        return Net(self.neuron(), self.neuron())


CASES: list[Case] = [
    SpikingJelly(),
    SpikingJellySteps(),
    SpikingJelly0(),
    SpikingJelly0Steps(),
    SnnTorch(),
    NorseCells(),
    NorseModules(),
    Sinabs(),
    HandWritten(),
]
CASES = [case for case in CASES if LIBRARIES in (None, case.libraries)]


def load(case: Case) -> None:
    """Import the library; where its environment is not meant, skip if it is missing."""
    if LIBRARIES is not None:
        importlib.import_module(case.module)
    pytest.importorskip(case.module, reason=f"{case.name} is not installed", exc_type=ImportError)


@pytest.fixture(params=CASES, ids=[case.name for case in CASES])
def case(request: pytest.FixtureRequest) -> Case:
    load(request.param)
    return request.param


@pytest.fixture
def own_net(case: Case) -> Callable[[nn.Module], Net]:
    """isofire's network with the weights, the norms and the neurons of a library's."""

    def build(model: nn.Module) -> Net:
        net = Net(case.own(), case.own(), order=case.order)
        weights = {key: value for key, value in model.state_dict().items() if not key.startswith(("n1.", "n2."))}
        missing, surplus = net.load_state_dict(weights, strict=False)
        assert not surplus
        assert all(key.startswith(("n1.", "n2.")) for key in missing)
        return net.train(model.training)

    return build


@pytest.fixture
def trained(case: Case) -> Callable[..., nn.Module]:
    """The case's network with norms that have seen data, in eval mode, at rest."""

    def build(placement: str = "pre_fire") -> nn.Module:
        torch.manual_seed(0)
        net = case.net(placement)
        with torch.no_grad():
            for norm in (net.bn1, net.bn2):
                norm.momentum = 1.0
                norm.weight.fill_(1.5)
                norm.bias.fill_(0.5)
            net(torch.randn(64, 1, 6, 6))
        case.reset(net)
        return net.eval()

    return build


@pytest.fixture
def images() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(48, 1, 6, 6, generator=generator) * 2, torch.randint(0, 3, (48,), generator=generator)


@pytest.fixture
def currents() -> Callable[..., Tensor]:
    def draw(*shape: int, seed: int = 0) -> Tensor:
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 1.5 + 0.8

    return draw
