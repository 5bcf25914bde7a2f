"""A training function of one's own: any function of an architecture that returns a number is an objective.

The function here trains a small network of scikit-learn whose layers are what the cell says. The same function serves
the command line, where it is resumable, tracked and reported:

    python examples/own_function.py
    bonas search quickstart --set evaluator='{kind: "own_function:train"}' --id mine      (from the folder examples)
"""

from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

from bonas_core import Architecture, EvaluationContext, Outcome, Search

IMAGES, LABELS = load_digits(return_X_y=True)
WIDTHS = {"nor_conv_3x3": 32, "nor_conv_1x1": 16, "avg_pool_3x3": 8, "skip_connect": 4}


def train(cell: Architecture, context: EvaluationContext) -> Outcome:
    """Validation accuracy of a perceptron with a hidden layer for each operation of a cell."""
    widths = tuple(WIDTHS[operation] for operation in cell.operations if operation in WIDTHS)
    train_x, valid_x, train_y, valid_y = train_test_split(IMAGES, LABELS, test_size=0.3, random_state=0)
    network = MLPClassifier(widths or (2,), max_iter=8, random_state=context.seed)
    network.fit(train_x / 16, train_y)
    return Outcome(network.score(valid_x / 16, valid_y), metrics={"layers": len(widths)})


if __name__ == "__main__":
    search = Search("nasbench201", train, trials=20, seed=1)
    best = search.run()
    print(f"best of {len(search.trials)}: {best.architecture}, accuracy {best.objective:.3f} (trial {best.trial})")
