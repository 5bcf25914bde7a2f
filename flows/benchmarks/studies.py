"""The studies: which searches the tables and figures of the paper, and the questions around them, are made of."""

from __future__ import annotations

from typing import Any

from flows.benchmarks.searches import Method, Study


def _bonas(recipe: str, sampler: str, **more: Any) -> dict[str, Any]:
    named = {name.replace("__", "."): value for name, value in more.items()}
    return {"method.name": "bonas", "method.recipe": recipe, "method.sampler": sampler, **named}


def _evolution(preset: str, **more: Any) -> Method:
    overrides = {"method.name": "regularised-evolution", "method.preset": preset, **more}
    return Method(overrides, "none", _paper(87402.7, 535.5))


def _paper(nb101: float, nb201: float) -> dict[str, float]:
    return {"nasbench101": nb101, "nasbench101-surrogate": nb101, "nasbench201": nb201}


_EA, _RS, _RL = _paper(1520.9, 72.5), _paper(3587.8, 320.0), _paper(2804.5, 308.4)

TABLE2 = Study(
    "Table 2, samples to the optimum",
    {
        "bonas-ea": Method(_bonas("best", "evolution"), "pool", _EA),
        "bonas-rs": Method(_bonas("best", "random"), "pool", _RS),
        "bonas-rl": Method(_bonas("best", "reinforce"), "pool", _RL),
        "bonas-all": Method(_bonas("best", "exhaustive"), "enumerating"),
        "bonas-paper-ea": Method(_bonas("paper", "evolution"), "pool", _EA),
        "bonas-paper-rs": Method(_bonas("paper", "random"), "pool", _RS),
        "bonas-paper-rl": Method(_bonas("paper", "reinforce"), "pool", _RL),
        "random": Method({"method.name": "random"}, "none", _paper(188139.8, 7712.3)),
        "re": Method({"method.name": "regularised-evolution"}, "none", _paper(87402.7, 535.5)),
        "re-real": _evolution("real"),
        "re-nas-benchmarks": _evolution("nas-benchmarks"),
        "re-notebook": _evolution("nasbench-notebook"),
        "re-naszilla": _evolution("naszilla"),
        "re-autodl": _evolution("autodl"),
        "re-repeats": Method(
            {"method.name": "regularised-evolution", "method.repeats": True}, "none", _paper(87402.7, 535.5)
        ),
        "local-search": Method({"method.name": "local-search"}, "none"),
        "bananas": Method({"method.name": "bananas"}, "pool"),
        "weaknas": Method({"method.name": "weaknas"}, "enumerating"),
        "linear": Method({"method.name": "linear"}, "pool"),
        "optuna-tpe": Method({"method.name": "optuna-tpe"}, "none"),
        "optuna-gp": Method({"method.name": "optuna-gp"}, "none"),
    },
    "The paper's figures are Table 2, 50 repetitions, objective and settings as far as it names them; those of "
    "NAS-Bench-101 are of its real table and all 423,624 cells.",
    default=(
        "bonas-ea",
        "bonas-rs",
        "bonas-rl",
        "bonas-all",
        "bonas-paper-ea",
        "bonas-paper-rs",
        "random",
        "re",
        "re-repeats",
        "local-search",
        "bananas",
        "weaknas",
    ),
)

FIGURE4 = Study(
    "Figure 4, the best so far",
    TABLE2.methods,
    "The curves are drawn in `figure4.png`, the paper's are its Figure 4.",
    default=("bonas-ea", "bonas-rs", "bonas-rl", "random", "re", "local-search", "bananas", "weaknas"),
    figure=True,
)

FIGURE5 = Study(
    "Figure 5, the four losses",
    {
        f"{recipe}-{loss}": Method(_bonas(recipe, "evolution", predictor__loss=loss), "pool")
        for recipe in ("paper", "best")
        for loss in ("mse", "exp", "log", "linear")
    },
    "The paper finds the exponentially weighted loss (exp) to need the fewest samples, in NAS-Bench-101.",
    default=("paper-mse", "paper-exp", "paper-log", "paper-linear"),
    reference="paper-mse",
    figure=True,
)

PROTOCOL = Study(
    "What the paper's 72.5 is: targets and inner steps",
    {
        f"{targets}-{'sequential' if batch == 1 else 'ten-at-once'}": Method(
            _bonas("paper", "evolution", predictor__targets=targets, method__batch=batch), "pool", _EA
        )
        for targets in ("standardise", "logit", "rank")
        for batch in (1, 10)
    },
    "All are the recipe `paper`, whose own row is `standardise-sequential`. `ten-at-once` picks ten by the same "
    "predictor and regression, then evaluates them.",
    reference="standardise-sequential",
)

BATCHES = Study(
    "Samples to the optimum with several trials at a time",
    {
        "one": Method({}, "enumerating"),
        **{
            f"{mode}-{slots}": Method(
                {"dispatch.slots": slots, "method.batch": slots, "dispatch.mode": mode}, "enumerating"
            )
            for mode in ("synchronous", "asynchronous")
            for slots in (4, 10)
        },
    },
    "`synchronous-q`: q trials are chosen, then all are evaluated; `asynchronous-q`: whenever a trial ends the next is "
    "chosen, with q - 1 still in flight.",
    reference="one",
)

PARTS = Study(
    "Parts of BONAS exchanged one by one, samples to the optimum",
    {
        **{
            name: Method(_bonas("best", "exhaustive", method__acquisition=name), "enumerating")
            for name in ("ei", "ucb", "thompson", "mean", "pi")
        },
        "gp": Method(_bonas("best", "exhaustive", method__regression="gp"), "enumerating"),
        **{
            f"pyg-{model}": Method(
                _bonas("best", "exhaustive", predictor__kind="pyg", predictor__model=model), "enumerating"
            )
            for model in ("GCN", "GIN", "GAT", "GraphSAGE", "PNA")
        },
        "linear": Method({"method.name": "linear"}, "pool"),
    },
    "`ei` is the default: expected improvement, Bayesian linear regression, the dense GCN. `gp` is a Gaussian process "
    "on its embedding, `pyg-*` are networks of torch-geometric in its place.",
    default=("ei", "ucb", "thompson", "mean", "pi", "gp", "linear"),
    reference="ei",
)

STUDIES = {
    "table2": TABLE2,
    "figure4": FIGURE4,
    "figure5": FIGURE5,
    "protocol": PROTOCOL,
    "batches": BATCHES,
    "parts": PARTS,
}
"""Studies by the name that `bonas benchmark` takes."""
