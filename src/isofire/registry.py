"""Things known by name: isofire's own, those a user registers, and those that installed packages offer."""

from __future__ import annotations

import difflib
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pkgutil import iter_modules
from typing import Any, Generic, TypeVar

from isofire.errors import SpecError

T = TypeVar("T")

_LOG = logging.getLogger(__name__)
_RESERVED = frozenset({"float"})
"""Words that mean something else where names are written: in a spec "float" leaves a layer alone."""


def _module_of(thing: Any) -> str:
    return str(getattr(thing, "__module__", ""))


class Registry(Mapping[str, T], Generic[T]):
    """Name -> thing, in the order of registration; open to other packages.

    An installed package adds to it through an entry point of `group`: `name = "package.module:thing"`. Entry points are
    imported when a name is first asked for that isofire itself does not have, or when the names are listed; never
    because a file names them.

    A name means one thing, whatever came first: isofire's own names can be taken by nobody, one that an installed
    package offers cannot be taken by code, and one that two packages offer belongs to neither. An entry point that is
    refused or cannot be imported is told once in the log; everything else goes on, and who asks for its name gets the
    reason.

    Parameters
    ----------
    what
        What is registered, in words of an error message, such as "weight quantizer".
    group
        The entry-point group, such as "isofire.weights".
    check
        Returns the thing if it is fit to be registered, else raises SpecError.
    home
        The module that a thing was written in; its `__module__`, if left out.

    Examples
    --------
    >>> colours = Registry("colour", "isofire.example")
    >>> colours.register("red", 1)
    >>> colours["red"], list(colours)
    (1, ['red'])
    """

    def __init__(
        self,
        what: str,
        group: str,
        check: Callable[[str, object], T] | None = None,
        home: Callable[[T], str] = _module_of,
    ) -> None:
        self.what, self.group = what, group
        self._check, self._home = check, home
        self._known: dict[str, T] = {}
        self._package: dict[str, str] = {}
        self._broken: dict[str, str] = {}
        self._looked = False

    def register(self, name: str, thing: T) -> None:
        """Add `thing` under `name`.

        Raises
        ------
        SpecError
            If the name is no identifier of ASCII letters, or "float"; if another thing has it already, or an installed
            package offers another under it; or if the thing is not fit.
        """
        self._check_name(name)
        if self._known.get(name, thing) is not thing:
            raise SpecError(
                f"a {self.what} named {name!r} is registered already, by {self.owner(name)}; choose another name"
            )
        checked = self._checked(name, thing)
        if not self._is_own(checked):
            for point in self._offers().get(name, ()):
                self._refuse_if_other(point, checked)
        self._known[name] = checked

    def unregister(self, name: str) -> None:
        """Forget what has this name; SpecError if nothing has."""
        self[name]
        del self._known[name]
        self._package.pop(name, None)

    def __getitem__(self, name: str) -> T:
        if isinstance(name, str) and name in self._known and self._is_own(self._known[name]):
            return self._known[name]
        self._look()
        if isinstance(name, str) and name in self._known:
            return self._known[name]
        raise self.unknown(name)

    def __contains__(self, name: object) -> bool:
        self._look()
        return isinstance(name, str) and name in self._known

    def __iter__(self) -> Iterator[str]:
        self._look()
        return iter(tuple(self._known))

    def __len__(self) -> int:
        self._look()
        return len(self._known)

    @property
    def registered(self) -> Mapping[str, T]:
        """What is registered so far, without looking entry points up: for checks while isofire itself is imported."""
        return dict(self._known)

    @property
    def broken(self) -> Mapping[str, str]:
        """Name -> why it cannot be used, of what installed packages offer."""
        self._look()
        return dict(self._broken)

    def owner(self, name: str) -> str:
        """Whose a registered name is, in words of an error message."""
        if name in self._package:
            return self._package[name]
        home = self._home(self._known[name])
        return "isofire itself" if _root(home) == "isofire" else f"code of {home}" if home else "code"

    def unknown(self, name: object, known: Iterable[str] | None = None) -> SpecError:
        """The error for a name that nothing has, or whose package is broken; it lists those that are known.

        Parameters
        ----------
        known
            The names that are accepted, where they are not those of the registry.
        """
        if isinstance(name, str) and name in self._broken:
            return SpecError(self._broken[name])
        names = list(self._known if known is None else known)
        close = difflib.get_close_matches(str(name), names, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        return SpecError(
            f"unknown {self.what} {name!r}; {hint}known: {', '.join(names) or 'none'}; no installed package offers "
            f"{name!r}: if it is another package's, install that package"
        )

    def _check_name(self, name: object) -> None:
        if not isinstance(name, str) or not name.isidentifier() or not name.isascii():
            raise SpecError(f"the name of a {self.what} must be an identifier of ASCII letters, got {name!r}")
        if name in _RESERVED:
            raise SpecError(
                f"the name of a {self.what} must not be {name!r}, which leaves things alone; choose another"
            )

    def _checked(self, name: str, thing: Any) -> T:
        return thing if self._check is None else self._check(name, thing)

    def _is_own(self, thing: T) -> bool:
        return _root(self._home(thing)) == "isofire"

    def _offers(self) -> dict[str, list[EntryPoint]]:
        """Name -> the entry points that offer it, one a package and place; nothing is imported."""
        found: dict[str, dict[tuple[str, str], EntryPoint]] = {}
        for point in entry_points(group=self.group):
            found.setdefault(point.name, {}).setdefault((_package(point), point.value), point)
        return {name: list(points.values()) for name, points in found.items()}

    def _refuse_if_other(self, point: EntryPoint, thing: T) -> None:
        """Raise SpecError if the entry point offers another thing than this one, as far as one knows unimported."""
        place = point.value.partition(":")[0]
        same = _root(self._home(thing)) == _root(place)
        if (module := sys.modules.get(place)) is not None:
            try:
                same = point.load() is thing
            except AttributeError:
                # a module that is just being imported registers what it has not bound to its name yet
                same = same or getattr(module.__spec__, "_initializing", False)
        if not same:
            raise SpecError(
                f"the name {point.name!r} is taken: {_package(point)} offers a {self.what} of that name "
                f"({point.value}); choose another name, or uninstall that package"
            )

    def _look(self) -> None:
        if self._looked:
            return
        # first, because what registers or checks a thing may read the registry
        self._looked = True
        try:
            for name, points in self._offers().items():
                self._take(name, points)
        except BaseException:
            self._looked = False
            raise

    def _take(self, name: str, points: list[EntryPoint]) -> None:
        """Register what packages offer under a name, or note why not."""
        try:
            if len(points) > 1:
                self._drop_others(name)
                both = " and ".join(f"{_package(point)} ({point.value})" for point in points)
                raise SpecError(f"the {self.what} {name!r} is offered by {both}; uninstall one of them")
            self._add(points[0])
        except SpecError as error:
            if name in self._known:
                left = f"{name!r} stays that of {self.owner(name)}"
            else:
                self._broken[name], left = str(error), "everything else goes on without it"
            _LOG.warning("%s; until then %s", error, left)

    def _drop_others(self, name: str) -> None:
        """Let nothing have a name that several claim; but isofire's own keeps it."""
        if name in self._known and not self._is_own(self._known[name]):
            del self._known[name]

    def _add(self, point: EntryPoint) -> None:
        name, before = point.name, dict(self._known)
        offered, cure = f"the {self.what} {name!r} of {_package(point)}", "mend or uninstall that package"
        try:
            thing = point.load()
        except (Exception, SystemExit) as error:
            # what it registered before it failed is of no use
            self._known = before
            reason = f"{type(error).__name__}: {error}"
            raise SpecError(f"{offered} cannot be imported ({point.value}): {reason}; {cure}") from error
        if self._known.get(name, thing) is not thing:
            owner = self.owner(name)
            self._drop_others(name)
            raise SpecError(
                f"{offered} ({point.value}) has the name of one of {owner}; rename one, or uninstall that package"
            )
        try:
            self._check_name(name)
            checked = self._checked(name, thing)
        except SpecError as error:
            raise SpecError(f"{offered} is refused ({point.value}): {error}; {cure}") from error
        self._known[name], self._package[name] = checked, _package(point)
        self._broken.pop(name, None)


def _root(module: str) -> str:
    return module.partition(".")[0]


def _package(point: EntryPoint) -> str:
    return f"the package {point.dist.name}" if point.dist else "an installed package"


def import_files(folder: Iterable[str], package: str) -> None:
    """Import every file of a package, in alphabetical order, so that each registers what it holds.

    Parameters
    ----------
    folder, package
        The package's `__path__` and `__name__`.
    """
    for found in iter_modules(folder, f"{package}."):
        import_module(found.name)
