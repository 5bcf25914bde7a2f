"""Methods of search: BONAS, those that it is compared with, and the one interface that all of them share."""
