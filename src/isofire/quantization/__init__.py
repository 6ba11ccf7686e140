"""Quantizing a model: the verbs prepare, calibrate, convert, and `quantize_` for all at once."""

from isofire.quantization.by_firing.sequence import OnStep, Step
from isofire.quantization.calibration import CALIBRATION_BATCH, CALIBRATION_IMAGES, calibrated_on, reestimates
from isofire.quantization.diagnosis.diagnose import diagnose
from isofire.quantization.diagnosis.fault import Fault
from isofire.quantization.diagnosis.record import Diagnosis, LayerDiagnosis
from isofire.quantization.fake_weights import weight_quantizers
from isofire.quantization.labels import labels_of, labels_of_model
from isofire.quantization.left_out import LeftOut, left_out
from isofire.quantization.plan import LayerAssignment, QuantPlan, describe, explain, make_plan
from isofire.quantization.reestimate import reestimate_batch_norm
from isofire.quantization.repair import Repaired, repair_
from isofire.quantization.verbs import (
    calibrate,
    calibrate_,
    convert,
    convert_,
    is_converted,
    is_quantized,
    note_spec_,
    prepare,
    prepare_,
    quantize_,
    require_trainable,
    restore_,
    spec_of,
)
from isofire.quantization.whole_weights import IntegerWeights, SignedWeights, integer_weights, signed_weights

__all__ = [
    "CALIBRATION_BATCH",
    "CALIBRATION_IMAGES",
    "Diagnosis",
    "Fault",
    "IntegerWeights",
    "LayerAssignment",
    "LayerDiagnosis",
    "LeftOut",
    "OnStep",
    "QuantPlan",
    "Repaired",
    "SignedWeights",
    "Step",
    "calibrate",
    "calibrate_",
    "calibrated_on",
    "convert",
    "convert_",
    "describe",
    "diagnose",
    "explain",
    "integer_weights",
    "is_converted",
    "is_quantized",
    "labels_of",
    "labels_of_model",
    "left_out",
    "make_plan",
    "note_spec_",
    "prepare",
    "prepare_",
    "quantize_",
    "reestimate_batch_norm",
    "reestimates",
    "repair_",
    "require_trainable",
    "restore_",
    "signed_weights",
    "spec_of",
    "weight_quantizers",
]
