"""Readers of the public benchmarks' files, one module for each, and of the images that these files name.

images: folders and zip archives. bin: insightface's .bin. lfw: LFW and XQLFW. ijbc: IJB-B and IJB-C. survface:
QMUL-SurvFace. tinyface: TinyFace. scface: SCface. align: faces by their landmarks, for ijbc. What they share is in
`lists` and `mat`. ijbc needs no SciPy; align and mat, and with it survface and tinyface, do.

A file of another format, or one that is cut off, is a `btnet_eval.base.DataError`. What is wrong with single entries of
a list (an image that is not there, a pair of a template that no image belongs to) goes to the `Problems` that the
caller gives, and the entry is left out.
"""
