"""One file a library; each registers its `Framework`. All files here are imported, none of them its library."""

from importlib import import_module
from pkgutil import iter_modules

for _found in iter_modules(__path__, f"{__name__}."):
    import_module(_found.name)
