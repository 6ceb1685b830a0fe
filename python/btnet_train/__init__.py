"""Trains BTNet and the models it is compared with, reads checkpoints of other projects, writes bundles.

PyTorch lives in this package only: the engine (`btnet_ext`) runs what is exported here and needs none of it.
Importing `btnet_train` itself imports nothing heavy; the modules below need the extra `train`:
`pip install 'btnet-ext[train]'`.

btnet_train.topology        which layers an IResNet of a resolution has; where branch and trunk meet
btnet_train.networks        IResNet-18/34/50/100 of any width and resolution
btnet_train.accounting      the paper's parameter counts and multiply-accumulates, worked out from shapes
btnet_train.checkpoint      weights of insightface's arcface_torch and of the published BTNet code

btnet_train.sources         faces from folders, zips (image_files) and MXNet RecordIO (recordio)
btnet_train.batches         what a step sees: images, flips, resolutions; decoding in worker processes
btnet_train.teacher         an ONNX face model as a teacher
btnet_train.trunk_outputs   what a frozen trunk gives for all faces (face_rows: computed once and kept)
btnet_train.losses          classifiers with margins (margins: which are defined)
btnet_train.distillation    losses between embeddings, and between maps
btnet_train.branches        how a branch is made from a trunk
btnet_train.recipes         typed recipes from TOML; those of the papers lie in recipe_files
btnet_train.objective       the losses of a recipe as one module
btnet_train.optimization    optimiser and learning rate
btnet_train.run_state       states of runs, as safetensors
btnet_train.progress        progress bar, losses.csv, TensorBoard, plot
btnet_train.validation      accuracy on held-out identities
btnet_train.trainer         trains one network
btnet_train.inputs          what a run is given beside its recipe, and whether it goes with it
btnet_train.run_folder      the folder of a run
btnet_train.fit             trains the networks of a recipe

btnet_train.random_weights  seeded networks with sane statistics, for tests and benchmarks
btnet_train.export          a trunk and its branches as a bundle, format 1 (onnx_graph)
btnet_train.cli             the command btnet-train
"""
