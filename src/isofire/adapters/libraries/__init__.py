"""One file a library; each registers its `Framework`. All files here are imported, none of them its library."""

from isofire.registry import import_files

import_files(__path__, __name__)
