"""Ask and tell: a search over NAS-Bench-201 cells whose loop is yours.

Evaluate where and how you like: on a cluster, by hand, several at a time. Here four cells are "trained" at a time, and
what they come to is told in another order than that in which they were asked for. With a folder, the search goes on
where it was when its process died.

    python examples/ask_tell.py [FOLDER]
"""

import sys

from bonas_core import Architecture, Search

WORTH = {"nor_conv_3x3": 3.0, "nor_conv_1x1": 2.0, "skip_connect": 1.5, "avg_pool_3x3": 0.5}


def train(cell: Architecture) -> float:
    """Stands for a training: an accuracy, as a fraction."""
    return sum(WORTH.get(operation, 0.0) for operation in cell.operations) / 20


def main() -> None:
    """Searches, four cells at a time."""
    with Search("nasbench201", trials=24, folder=sys.argv[1] if sys.argv[1:] else None) as search:
        while not search.is_over():
            asked = [search.ask() for _ in range(4)]
            for cell in reversed(asked):
                search.tell(cell, train(cell.architecture))
        best = search.best
        print(f"best of {len(search.trials)}: {best.architecture}, {best.objective:.3f} (trial {best.trial})")


if __name__ == "__main__":
    main()
