"""PyTorch modules of the fused model; they know tensors, and nothing else of this package.

inputs      the tensors that go in and come out
layers      attention and convolution blocks
encoders    one for each modality: tensors -> tokens in one width
fusion      tokens of all modalities -> one vector
model       encoders + fusion + heads
build       every size, in one place
"""
