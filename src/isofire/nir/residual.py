"""A SEW-ResNet as a graph: its sums are edges that flow together."""

from __future__ import annotations

from torch import nn

from isofire.errors import ModelError
from isofire.models import SEWResNet
from isofire.nir.graph import INPUT, GraphNet
from isofire.nir.reading import module_name


def residual_graph(model: SEWResNet, names: dict[str, str], size: tuple[int, int], frames: bool) -> GraphNet:
    """The network as a graph of its own modules, for images [N, ...] at each of its T steps, or for `frames`.

    Its batch norms are layers of their own there, which round otherwise than the kernel that takes norm and neuron
    together: in a few images of a thousand a membrane comes to lie on the other side of its threshold.

    Parameters
    ----------
    names
        Filled: a module's name in the model -> its name in the graph.
    size
        Height and width of the images; the mean over all positions becomes a pooling of the size that is left of them.

    Raises
    ------
    ModelError
        If its blocks multiply (AND, IAND).
    """
    layers: dict[str, nn.Module] = {}
    sources: dict[str, tuple[str, ...]] = {}

    def chain(keys: tuple[str, ...], come: tuple[str, ...], prefix: str = "") -> tuple[str, ...]:
        for key in keys:
            place = names[prefix + key] = module_name(prefix + key)
            layers[place], sources[place], come = model.get_submodule(prefix + key), come, (place,)
        return come

    out = chain(("stem", "stem_bn", "stem_sn"), (INPUT,))
    for stage, blocks in enumerate(model.stages):
        for key, block in blocks.named_children():
            prefix = f"stages.{stage}.{key}."
            if block.connect != "add":
                raise ModelError(
                    f"block {prefix[:-1]!r} multiplies spikes (connect={block.connect!r}), NIR only adds; "
                    "a network with connect='add' can be written"
                )
            straight = chain(("conv1", "bn1", "sn1", "conv2", "bn2", "sn2"), out, prefix)
            down = ("conv_down", "bn_down", "sn_down") if block.downsample else ()
            out = (*straight, *chain(down, out, prefix))
            stride = int(block.get_submodule("conv1").__dict__["stride"][0])
            size = (-(-size[0] // stride), -(-size[1] // stride))
    layers |= {"pool": nn.AvgPool2d(size), "flatten": nn.Flatten()}
    sources |= {"pool": out, "flatten": ("pool",)}
    net = GraphNet(layers, sources, chain(("fc",), ("flatten",)), None if frames else model.T)
    net.training = model.training
    return net
