"""A float network as a list of stages: pools, weights, batch norm, and the neurons that they lead to."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from isofire.adapters import adapter_of, find_neurons
from isofire.errors import ModelError
from isofire.integer.connection import INPUT, SumPool
from isofire.integer.network import READOUT, IntegerNetwork
from isofire.integer.one_convolution import with_pool
from isofire.models import SEWResNet
from isofire.models.sew_resnet import SEWBlock
from isofire.neurons import IF, LIF, CubaLIF, Neuron, ParametricLIF, PerStep, Recurrent, Repeat
from isofire.running import refuse_own_code


@dataclass(frozen=True)
class Pool:
    """A sum over windows, and what an average multiplies it by; None: 1 / size of the map."""

    sum: SumPool
    factor: float | None


@dataclass(frozen=True)
class Stage:
    """What leads to a layer of neurons, or to the readout (`neuron` None).

    `scale`: float64 factors of each output behind the layer and its norm, or None. `within`: names of average pools
    between a convolution and its neurons, which `layer` holds too, see `isofire.integer.one_convolution`.
    """

    target: str
    neuron: Neuron | None
    layer_name: str
    layer: nn.Conv2d | nn.Linear
    norm: nn.BatchNorm1d | nn.BatchNorm2d | None
    pools: tuple[Pool, ...]
    sources: tuple[str, ...]
    norm_name: str | None = None
    scale: Tensor | None = None
    within: tuple[str, ...] = ()

    @property
    def back(self) -> nn.Linear | None:
        """Weights from the neurons' own spikes of the step before."""
        return self.neuron.weight if isinstance(self.neuron, Recurrent) else None  # type: ignore[return-value]

    def pooled(self, shape: tuple[int, ...], unit: float = 1.0) -> float:
        """`unit` times what average pools of maps of this shape multiply sums by."""
        for pool in self.pools:
            unit *= 1.0 / (shape[-2] * shape[-1]) if pool.factor is None else pool.factor
        return unit

    def geometry(self) -> dict[str, Any]:
        """Of a convolution, as `Connection` takes it."""
        layer = self.layer
        assert isinstance(layer, nn.Conv2d)
        sizes = {name: pair(getattr(layer, name)) for name in ("stride", "dilation")}
        return {"kind": "conv", "groups": layer.groups, "padding": padding_of(layer), **sizes}


def stages_of(model: nn.Module) -> tuple[list[Stage], int | None]:
    """The stages of a network, in order, and for how many steps it presents an image; None if it takes frames.

    Raises
    ------
    ModelError
        If the network is no `SEWResNet` that adds, and no `nn.Sequential` or chain of a NIR graph of layers that have
        integers.
    """
    if isinstance(model, IntegerNetwork):
        raise ModelError(
            "this network is one of integers already; lower the network that it was lowered from, and write these in "
            "other formats by isofire.export.write_c and write_bundle (isofire export BUNDLE --to c)"
        )
    names = {id(module): name for name, module in model.named_modules()}
    refuse_own_code(model, _AS_THEY_ARE, "integers")

    def named(stage: Stage) -> Stage:
        return replace(stage, norm_name=names[id(stage.norm)]) if stage.norm is not None else stage

    if isinstance(model, SEWResNet):
        return [named(stage) for stage in _residual(model)], model.T
    if isinstance(model, nn.Sequential):
        chain = _Chain()
        chain.walk("", model)
        return [named(stage) for stage in chain.finish()], chain.steps
    if isinstance(model, _of_nir("GraphNet")):
        graph: Any = model
        return [named(stage) for stage in _of_graph(graph)], graph.steps
    raise ModelError(
        f"integers are known of SEWResNet, nn.Sequential (with PerStep) and chains read from NIR, got "
        f"{type(model).__name__}; of a loop over steps around layers and neurons make isofire.adapters.as_isofire(["
        "net.fc1, net.lif1, ...]), or run its layers through IntegerNetwork"
    )


_AS_THEY_ARE = (
    nn.Conv2d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d, nn.AvgPool2d, nn.Dropout, nn.Identity, nn.Flatten, SEWResNet,
    SEWBlock, Repeat, PerStep, Neuron,
)  # fmt: skip


def _of_nir(name: str) -> type[nn.Module] | tuple[()]:
    """A class for graphs, if they are there: their package needs one that not everybody has."""
    found = sys.modules.get("isofire.nir.graph")
    return () if found is None else getattr(found, name)


def _of_graph(model: Any) -> list[Stage]:
    """The stages of a graph in which every layer takes the one before it."""
    chain, before = _Chain(), INPUT
    for name in model._order:
        layer = model.get_submodule(name)
        if model.sources[name] != (before,):
            raise ModelError(
                f"{name!r} takes {', '.join(model.sources[name])}; integers are known of graphs that are chains"
            )
        chain.walk(name, layer)
        before = name
    return chain.finish()


class _Chain:
    """Layers one after the other."""

    def __init__(self) -> None:
        self.stages: list[Stage] = []
        self.steps: int | None = None
        self.sources: tuple[str, ...] = (INPUT,)
        self.pools: list[Pool] = []
        self.layer: tuple[str, nn.Conv2d | nn.Linear] | None = None
        self.norm: nn.BatchNorm1d | nn.BatchNorm2d | None = None
        self.scale: Tensor | None = None
        self.within: tuple[str, ...] = ()

    def walk(self, name: str, module: nn.Module) -> None:
        match module:
            case nn.Sequential() if type(module).forward in (nn.Sequential.forward, PerStep.forward):
                for key, child in module.named_children():
                    self.walk(f"{name}.{key}" if name else key, child)
            case Repeat():
                if self.stages or self.layer or self.steps is not None:
                    raise ModelError(f"{name!r} repeats what has begun; Repeat comes first")
                self.steps = module.T
            case nn.Dropout() | nn.Identity() | nn.Flatten(start_dim=1, end_dim=-1):
                return
            case nn.Conv2d() | nn.Linear():
                if self.layer is not None:
                    raise ModelError(
                        f"{self.layer[0]!r} and {name!r} have no neurons between them, which integers need; multiply "
                        "their weights into one layer, or put neurons between"
                    )
                self.layer = name, module
            case nn.BatchNorm1d() | nn.BatchNorm2d():
                if self.layer is None or self.norm is not None or self.scale is not None:
                    raise ModelError(
                        f"the batch norm {name!r} must follow a convolution or linear layer, into which it is folded; "
                        "move it there"
                    )
                self.norm = module
            case nn.AvgPool2d():
                self._pool(name, _average(name, module))
            case nn.Module() if isinstance(module, _of_nir("SumPool2d")):
                sizes = (pair(getattr(module, key)) for key in ("kernel_size", "stride", "padding"))
                self._pool(name, Pool(SumPool(*sizes), 1.0))
            case nn.Module() if isinstance(module, _of_nir("Scale")):
                self._multiply(name, module.scale)
            case Neuron():
                self._end(name, module)
            case _:
                kind = type(module).__name__
                cure = (
                    "make it isofire's by isofire.adapters.as_isofire"
                    if adapter_of(module)
                    else "build the network of Conv2d, Linear, batch norms behind them, AvgPool2d, Flatten() and "
                    "isofire's neurons, and let the host do what comes before and after"
                )
                raise ModelError(f"{name!r} ({kind}) has no integer counterpart; {cure}")

    def _pool(self, name: str, pool: Pool) -> None:
        if self.layer is not None:
            before, layer = self.layer
            padding = padding_of(layer) if isinstance(layer, nn.Conv2d) else None
            factor = 0.0 if pool.factor is None else pool.factor
            self.layer = before, with_pool((before, name), layer, padding, pool.sum, factor)
            self.within = (*self.within, name)
            return
        self.pools.append(pool)

    def _multiply(self, name: str, factors: Any) -> None:
        if self.layer is None:
            raise ModelError(f"the factors {name!r} must follow a convolution or linear layer, into which they go")
        out = len(self.layer[1].weight)
        found = factors.detach().double().cpu()
        rows = found.expand(out).unsqueeze(1) if found.numel() == 1 else found.reshape(len(found), -1)
        if len(rows) != out or bool((rows != rows[:, :1]).any()):
            raise ModelError(f"the factors {name!r} differ within a channel; give each channel one")
        self.scale = rows[:, 0] if self.scale is None else self.scale * rows[:, 0]

    def finish(self) -> list[Stage]:
        if self.layer is not None:
            self._end(READOUT, None)
        if not self.stages or self.pools:
            raise ModelError(
                "a network of integers needs weights and neurons, and ends with one of them, got "
                f"{len(self.stages)} layers of them{' and a pool at the end' * bool(self.pools)}; let the host do the "
                "rest"
            )
        return self.stages

    def _end(self, target: str, neuron: Neuron | None) -> None:
        if self.layer is None:
            raise ModelError(
                f"the neurons {target!r} must follow a convolution or linear layer; put one before them, such as a "
                "convolution 1x1"
            )
        stage = Stage(
            target, neuron, *self.layer, self.norm, tuple(self.pools), self.sources, scale=self.scale,
            within=self.within,
        )  # fmt: skip
        self.stages.append(check_stage(stage))
        self.sources, self.pools, self.layer, self.norm, self.scale, self.within = (target,), [], None, None, None, ()


def _average(name: str, pool: nn.AvgPool2d) -> Pool:
    size, stride, padding = (pair(v) for v in (pool.kernel_size, pool.stride, pool.padding))
    if pool.ceil_mode or (any(padding) and not pool.count_include_pad):
        raise ModelError(f"the pool {name!r} averages over windows of different sizes; drop ceil_mode and padding")
    return Pool(SumPool(size, stride, padding), 1.0 / (pool.divisor_override or size[0] * size[1]))


def _residual(model: SEWResNet) -> list[Stage]:
    stages = [Stage("stem_sn", model.stem_sn, "stem", model.stem, model.stem_bn, (), (INPUT,))]
    sources: tuple[str, ...] = ("stem_sn",)
    for name, block in model.named_modules():
        if isinstance(block, SEWBlock):
            if block.connect != "add":
                raise ModelError(f"{name!r} joins by {block.connect!r}; integers are known of 'add'")
            pair = f"{name}.sn1", f"{name}.sn2"
            stages.append(Stage(pair[0], block.sn1, f"{name}.conv1", block.conv1, block.bn1, (), sources))
            stages.append(Stage(pair[1], block.sn2, f"{name}.conv2", block.conv2, block.bn2, (), (pair[0],)))
            if block.downsample:
                down = f"{name}.sn_down"
                stages.append(
                    Stage(down, block.sn_down, f"{name}.conv_down", block.conv_down, block.bn_down, (), sources)
                )
                sources = (down,)
            sources = (pair[1], *sources)
    stages.append(Stage(READOUT, None, "fc", model.fc, None, (Pool(SumPool(None), None),), sources))
    return [check_stage(stage) for stage in stages]


def check_stage(stage: Stage) -> Stage:
    """The stage, if integers are known of its parts.

    Raises
    ------
    ModelError
        If not: weights with a time axis, padding of unlike sides, neurons of another class.
    """
    layer, neuron, norm = stage.layer, stage.neuron, stage.norm
    if layer.weight.ndim != (4 if isinstance(layer, nn.Conv2d) else 2):
        raise ModelError(f"{stage.layer_name!r} has other weights in every step, which no integer layer has")
    if isinstance(layer, nn.Conv2d) and padding_of(layer) is None:
        raise ModelError(
            f"{stage.layer_name!r} pads by {layer.padding!r}, {layer.padding_mode}, where integers are known of as "
            "many zeros on both sides; give their number"
        )
    if norm is not None and (norm.running_mean is None or norm.running_var is None):
        raise ModelError(
            f"the batch norm behind {stage.layer_name!r} keeps no running statistics to fold; make it with "
            "track_running_stats=True and let it see the training images"
        )
    kind = type(neuron.cell if isinstance(neuron, Recurrent) else neuron)
    if neuron is not None and kind not in (IF, LIF, ParametricLIF, CubaLIF):
        raise ModelError(
            f"the neurons {stage.target!r} ({kind.__name__}) are none of IF, LIF, ParametricLIF and CubaLIF, of which "
            "integers are known; use one of these"
        )
    if isinstance(neuron, Recurrent) and not (isinstance(neuron.weight, nn.Linear) and isinstance(layer, nn.Linear)):
        kinds = f"{type(layer).__name__} and {type(neuron.weight).__name__}"
        raise ModelError(f"recurrent neurons are known between linear layers; {stage.target!r} has {kinds}")
    return stage


def check_neurons(model: nn.Module, stages: list[Stage]) -> None:
    """Raise ModelError if a neuron of the network is in no stage."""
    if missing := set(find_neurons(model)) - {stage.target for stage in stages}:
        raise ModelError(f"the neurons {min(missing)!r} are not among the network's stages")


def padding_of(layer: nn.Conv2d) -> tuple[int, int] | None:
    """Zeros on each side of an axis, for height and width; None where they are no zeros, or not as many on both."""
    if layer.padding_mode != "zeros":
        return None
    if layer.padding == "same":
        down, right = (d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True))
        return None if down % 2 or right % 2 else (down // 2, right // 2)
    return (0, 0) if layer.padding == "valid" else pair(layer.padding)


def pair(value: Any) -> tuple[int, int]:
    """Height and width of a torch setting, one number or two."""
    return (value, value) if isinstance(value, int) else (value[0], value[-1])
