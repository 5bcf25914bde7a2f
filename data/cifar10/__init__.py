"""CIFAR-10: 60,000 images of 10 classes to train cells on."""
