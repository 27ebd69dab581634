"""Training and measuring models.

dataset     examples: (sample, label), kept on disk between runs
simulated   examples from simulated drives, through the same decode, alignment and cut as serving
vocabulary  a tokenizer from the training texts
losses      what a model is trained for beside its task
train       examples -> weights
evaluate    weights -> measured quality, for the model card
"""
