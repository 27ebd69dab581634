"""PyTorch modules of the fused model; they depend on tensors alone, and ``build`` on what a kind says of its encoder.

inputs        the tensors that go in and come out
architecture  every name, option and size that a model may choose
layers        attention, convolution and recurrent blocks
encoders      for each modality: tensors -> tokens in one width
fusion        tokens of all modalities -> one vector
heads         the fused vector -> classes, tags, numbers
model         encoders + fusion + heads
build         an architecture -> a model
pretrained    weights that others trained
word_vectors  vectors from files of word2vec and GloVe
"""
