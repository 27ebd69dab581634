"""The user's data sets -> training examples. ``open_data`` detects the format of a path.

opening    the formats, and which one a path has          rows       a row, cut as serving cuts a window
labels     a row's labels -> labels of the model          parts      training, validation and test
manifest   JSON lines with the contents of sensors, and labels
columns    how rows have each kind's contents             column     what such a class does
folders    a folder per class: ImageNet, IMDB             idx        MNIST and its family
cifar      CIFAR-10, both batch formats                   texts      Wikipedia extracts and plain text
recorded   recordings of ``streamer record`` with labels by time
"""

from streamer.training.data.opening import Data, open_data
from streamer.training.data.rows import BadRow, Dataset

__all__ = ["BadRow", "Data", "Dataset", "open_data"]
