"""One file a kind of neuron, or a few akin; each registers its classes. All files here are imported."""

from isofire.registry import import_files

import_files(__path__, __name__)
