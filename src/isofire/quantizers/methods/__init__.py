"""One file a method, with its settings for weights and membranes; each registers them. All files here are imported."""

from isofire.registry import import_files

import_files(__path__, __name__)
