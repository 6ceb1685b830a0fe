"""Evaluation of face embeddings: protocols and metrics on any `images -> embeddings`, without PyTorch.

verification and gains need NumPy alone, the others the extra `eval`: `pip install 'btnet-ext[eval]'`.

btnet_eval.base             images, embeddings, errors of data
btnet_eval.models           bundles and ONNX files as models
btnet_eval.onnx_network     what a face model in ONNX must be
btnet_eval.cache            embeddings on disk, resumed
btnet_eval.protocols        at which resolutions images are shown (Knoche et al.)
btnet_eval.datasets         readers of the public benchmarks' files

btnet_eval.verification     1:1, accuracy in folds
btnet_eval.roc              TAR at FAR, exact also for more scores than memory holds
btnet_eval.identification   1:N, open set and closed
btnet_eval.templates        embeddings of several images of a person
btnet_eval.thresholds       recommended thresholds
btnet_eval.gains            how much of the possible improvement a model reaches
btnet_eval.upsampling       a bound of the error of interpolation

btnet_eval.plots, btnet_eval.report   figures, and JSON with a page made from it
"""
