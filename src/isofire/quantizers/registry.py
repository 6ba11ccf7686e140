"""The methods that a spec may name, for weights, membranes and constants; open to other packages.

An installed package adds its own through entry points in its pyproject.toml::

    [project.entry-points."isofire.weights"]
    mine = "my_package:MyWeights"

    [project.entry-points."isofire.membranes"]
    mine = "my_package:MyMembrane"

    [project.entry-points."isofire.constants"]
    mine = "my_package:MyDecays"

The name is the class's `tag`. Code that is not installed calls `register_weights`, `register_membrane` or
`register_constant`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from isofire.conversion import MisfitError, convert, plain
from isofire.errors import SpecError
from isofire.quantizers.setting import ConstantSetting, MembraneSetting, Setting, WeightSetting
from isofire.registry import Registry

S = TypeVar("S", bound=Setting)


def _fit(kind: type[S], makers: tuple[str, ...], *needed: str) -> Callable[[str, object], type[S]]:
    def check(name: str, thing: object) -> type[S]:
        if not (isinstance(thing, type) and issubclass(thing, kind)):
            raise SpecError(
                f"the method {name!r} must be a subclass of isofire.quantizers.{kind.__name__}, got {thing!r}"
            )
        write = f'write class {thing.__name__}({kind.__name__}, frozen=True, kw_only=True, tag="{name.lower()}")'
        if (tag := thing.__struct_config__.tag) != name:
            raise SpecError(
                f"the method {name!r} must have that name as its tag, {thing.__name__} has {tag!r}; {write}"
            )
        if not thing.__struct_config__.frozen:
            raise SpecError(f"the method {name!r} must be frozen, as specs are; {write}")
        if name == thing.__name__:
            raise SpecError(f"the method {name!r} has no tag, its name in specs; {write}")
        missing = [name for name in needed if name not in thing.__struct_fields__]
        if missing:
            raise SpecError(f"the method {name!r} must have the fields {', '.join(needed)}, {missing[0]} is missing")
        if all(getattr(thing, maker) is getattr(kind, maker) for maker in makers):
            raise SpecError(f"the method {name!r} must say what it does to numbers; define {' or '.join(makers)}")
        return thing

    return check


WEIGHTS: Registry[type[WeightSetting]] = Registry("weight method", "isofire.weights", _fit(WeightSetting, ("build",)))
MEMBRANES: Registry[type[MembraneSetting]] = Registry(
    "membrane method", "isofire.membranes", _fit(MembraneSetting, ("build", "build_for"), "placement", "granularity")
)
CONSTANTS: Registry[type[ConstantSetting]] = Registry(
    "method of constants", "isofire.constants", _fit(ConstantSetting, ("round",))
)


def register_weights(setting: type[S]) -> type[S]:
    """Let specs name a weight method, under the tag of its setting. Usable as a decorator.

    Raises
    ------
    SpecError
        If `setting` is no subclass of `WeightSetting`, or another has its tag.

    Examples
    --------
    >>> @register_weights
    ... class Signs(WeightSetting, frozen=True, kw_only=True, tag="signs"):
    ...     def build(self, channels):
    ...         return Levels([-1.0, 1.0])
    >>> "signs" in WEIGHTS
    True
    >>> WEIGHTS.unregister("signs")
    """
    WEIGHTS.register(_tag(setting), setting)  # pyright: ignore[reportArgumentType]
    return setting


def register_membrane(setting: type[S]) -> type[S]:
    """As `register_weights`, of a membrane method: a subclass of `MembraneSetting`."""
    MEMBRANES.register(_tag(setting), setting)  # pyright: ignore[reportArgumentType]
    return setting


def register_constant(setting: type[S]) -> type[S]:
    """As `register_weights`, of a method of decays, thresholds or biases: a subclass of `ConstantSetting`."""
    CONSTANTS.register(_tag(setting), setting)  # pyright: ignore[reportArgumentType]
    return setting


def _tag(setting: Any) -> str:
    config = getattr(setting, "__struct_config__", None)
    if not isinstance(config, msgspec.structs.StructConfig):
        raise SpecError(f"a method is a subclass of WeightSetting or MembraneSetting, got {setting!r}")
    return str(config.tag)


def decode(table: Any, registry: Registry[type[S]], place: str, default: str | None = None) -> S:
    """The setting that a table `{"method": ..., ...}` describes.

    Parameters
    ----------
    place
        Such as "rules[0].weights", for errors.
    default
        The method of a table that names none.

    Raises
    ------
    SpecError
        If the table names no method or an unknown one, a key is unknown, or a value out of range; says where.
    """
    if not isinstance(table, dict):
        raise MisfitError(place, f"must be a table such as {{method = ..., bits = 4}}, got {table!r}")
    if "method" not in table and default is None:
        raise MisfitError(place, f"needs a method, one of {', '.join(registry)}")
    name = table.get("method", default)
    try:
        kind = registry[name]
    except SpecError as error:
        raise MisfitError(f"{place}.method", str(error)) from error
    return convert(plain({**table, "method": name}, place), kind, place)
