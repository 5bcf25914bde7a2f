"""CIFAR-100: 60,000 images of 100 classes, to which cells are carried over."""
