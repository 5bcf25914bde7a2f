"""Image networks that architectures stand for, the layers that they are made of, and cells from publications."""
