"""Training and measuring models.

dataset     examples: (sample, labels), kept on disk between runs
simulated   examples from simulated drives, through the same decode, alignment and cut as serving
data        examples from data sets that people have
recipe      how a model is trained: train.toml
vocabulary  a tokenizer from the training texts
targets     labels -> tensors                      augment     what of a batch is hidden and varied
batches     examples -> batches                    losses      what a model is trained for
processes   several that train together            checkpoint  what an interrupted run goes on from
fit         the loop over the epochs
train       data -> the files of a model folder
scores      how good predictions are               plots       pictures of both
evaluate    weights -> measured quality            card        its tables
"""
