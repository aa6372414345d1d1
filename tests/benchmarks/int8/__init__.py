"""INT8 of this project beside its peers': the same frames, the same grading, latencies interleaved in one run.

What makes the comparison fair:

- Every contender is given the same model, cleaned by `compile.importer`, and the same calibration frames, fed by
  `perception.preprocess`; they are chosen once by `compile.calibration` and lie as PNG files in the work folder.
- Whoever searches (this project, NNCF's accuracy control) does so on the same validation frames, left over from the
  same recordings. Their labels are what the float engine reports, so nobody sees a label that is used for grading.
- All are graded by `compile.accuracy` behind the decoders of `perception`, on recordings nobody calibrated or searched
  on: labelled ones for what float's accuracy loses, unlabelled ones for agreement with float.
- All engines of a model are timed in turn, in one process; OpenVINO with the pinning that measures faster.
- Every contender is built in a process of its own: a crash is a row, and memory is its own.
"""
