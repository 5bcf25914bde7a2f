"""Where things are kept: the home folder of BONAS, the folders of searches and trainings, and servers that are away."""
