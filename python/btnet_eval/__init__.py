"""Evaluation of face embeddings: protocols and metrics on any `images -> embeddings`, without PyTorch.

verification and gains need NumPy alone, the others the extra `eval`: `pip install 'btnet-ext[eval]'`.

btnet_eval.base             images, embeddings, errors of data
btnet_eval.models           bundles and ONNX files as models
btnet_eval.onnx_network     what a face model in ONNX must be
btnet_eval.cache            embeddings on disk, resumed; embedder: of a model, of named images
btnet_eval.datasets         readers of the public benchmarks' files
btnet_eval.people           images with a folder a person
btnet_eval.protocols        at which resolutions images are shown (Knoche et al.)
btnet_eval.selection        which network of a model an image is shown to

Measures, of arrays:
btnet_eval.verification     1:1, accuracy in folds
btnet_eval.roc              TAR at FAR, exact also for more scores than memory holds
btnet_eval.identification   1:N, open set and closed
btnet_eval.templates        embeddings of several images of a person; template_measures: 1:1 and 1:N of them
btnet_eval.thresholds       recommended thresholds
btnet_eval.gains            how much of the possible improvement a model reaches
btnet_eval.upsampling       a bound of the error of interpolation

Reports, of a session (btnet_eval.session): verify, mixed, identify, small_faces (QMUL-SurvFace, TinyFace, SCface),
template_report, recommendations, own with own_pairs, feature_maps, projection; with plots and report. The command is
btnet_eval.cli.
"""
