"""Things known by name: isofire's own, those a user registers, and those that installed packages offer."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pkgutil import iter_modules
from typing import Generic, TypeVar

from isofire.errors import SpecError

T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """Name -> thing, in the order of registration; open to other packages.

    An installed package adds to it through an entry point of `group`: `name = "package.module:thing"`. Entry points are
    looked up when the registry is first read, and imported then, never because a file names them.

    Parameters
    ----------
    what
        What is registered, in words of an error message, such as "weight quantizer".
    group
        The entry-point group, such as "isofire.weights".
    check
        Returns the thing if it is fit to be registered, else raises SpecError.

    Examples
    --------
    >>> colours = Registry("colour", "isofire.example")
    >>> colours.register("red", 1)
    >>> colours["red"], list(colours)
    (1, ['red'])
    """

    def __init__(self, what: str, group: str, check: Callable[[str, object], T] | None = None) -> None:
        self.what, self.group = what, group
        self._check = check
        self._known: dict[str, T] = {}
        self._looked = False

    def register(self, name: str, thing: T) -> None:
        """Add `thing` under `name`.

        Raises
        ------
        SpecError
            If the name is no identifier, another thing has it already, or the thing is not fit.
        """
        if not isinstance(name, str) or not name.isidentifier():
            raise SpecError(f"the name of a {self.what} must be an identifier, got {name!r}")
        checked = thing if self._check is None else self._check(name, thing)
        if self._known.get(name, checked) is not checked:
            raise SpecError(f"a {self.what} named {name!r} is registered already; choose another name")
        self._known[name] = checked

    def unregister(self, name: str) -> None:
        """Forget what has this name; SpecError if nothing has."""
        self[name]
        del self._known[name]

    def __getitem__(self, name: str) -> T:
        self._look()
        try:
            return self._known[name]
        except (KeyError, TypeError):
            raise self.unknown(name) from None

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

    def unknown(self, name: object) -> SpecError:
        """The error for a name that nothing has; it lists those that are known."""
        close = difflib.get_close_matches(str(name), self._known, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        return SpecError(f"unknown {self.what} {name!r}; {hint}known: {', '.join(self._known) or 'none'}")

    def _look(self) -> None:
        if self._looked:
            return
        # first, because what registers or checks a thing may read the registry
        self._looked = True
        try:
            for point in entry_points(group=self.group):
                self.register(point.name, self._load(point))
        except BaseException:
            self._looked = False
            raise

    def _load(self, point: EntryPoint) -> T:
        try:
            return point.load()
        except Exception as error:
            package = point.dist.name if point.dist else "an installed package"
            raise SpecError(
                f"the {self.what} {point.name!r} of {package} cannot be imported ({point.value}): {error}; mend or "
                "uninstall that package"
            ) from error


def import_files(folder: Iterable[str], package: str) -> None:
    """Import every file of a package, in alphabetical order, so that each registers what it holds.

    Parameters
    ----------
    folder, package
        The package's `__path__` and `__name__`.
    """
    for found in iter_modules(folder, f"{package}."):
        import_module(found.name)
