"""Networks taken away: a bundle of integers that numpy reads, a C program, an ONNX file. NIR is in `isofire.nir`."""

from isofire.export.bundle import golden_codes, read_bundle, write_bundle
from isofire.export.c import write_c
from isofire.export.onnx import OnnxFile, write_onnx

__all__ = ["OnnxFile", "golden_codes", "read_bundle", "write_bundle", "write_c", "write_onnx"]
