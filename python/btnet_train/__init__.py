"""BTNet's networks in PyTorch, checkpoints of other projects, and the exporter of bundles.

PyTorch lives in this package only: the engine (`btnet_ext`) runs what is exported here and needs none of it.
Importing `btnet_train` itself imports nothing heavy; the modules below need the extra `train`:
`pip install 'btnet-ext[train]'`.

btnet_train.networks        IResNet-18/34/50/100 of any width and resolution; where branch and trunk meet
btnet_train.accounting      the paper's parameter counts and multiply-accumulates, worked out from shapes
btnet_train.checkpoint      weights of insightface's arcface_torch and of the published BTNet code
btnet_train.random_weights  seeded networks with sane statistics, for tests and benchmarks
btnet_train.export          a trunk and its branches as a bundle, format 1
btnet_train.cli             the command btnet-train
"""
