"""One file a method, with its settings for weights and membranes; each registers them. All files here are imported."""

from importlib import import_module
from pkgutil import iter_modules

for _found in iter_modules(__path__, f"{__name__}."):
    import_module(_found.name)
