"""ImageNet: the images of ILSVRC 2012, to which cells are carried over."""
