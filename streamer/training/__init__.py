"""Training and measuring models.

dataset     examples: (sample, labels), kept on disk between runs
simulated   examples from simulated drives, through the same decode, alignment and cut as serving
data        examples from the user's data sets
recipe      how a model is trained: train.toml
vocabulary  a tokenizer from the training texts
targets     labels -> tensors                      augment     hides and varies parts of a batch
batches     examples -> batches                    losses      what training minimises
processes   several that train together            checkpoint  the state of an interrupted run
fit         the loop over the epochs
train       data -> the files of a model folder
scores      how good predictions are               plots       learning curves, confusion matrices
evaluate    weights -> measured quality            card        its tables
forms       a model's forms compared
"""
