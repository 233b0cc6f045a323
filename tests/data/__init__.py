import numpy as np


def check_splits(dataset, sizes, pixels, classes):
    for split, size in zip((dataset.train, dataset.validation, dataset.test), sizes, strict=True):
        assert split.inputs.shape == (size, pixels)
        assert split.targets.shape == (size, classes)
        assert split.inputs.min() == 0
        assert split.inputs.max() == 1
        assert set(np.unique(split.targets)) == {0, 1}
        assert (split.targets.sum(axis=1) == 1).all()
        assert (split.labels == split.targets.argmax(axis=1)).all()
