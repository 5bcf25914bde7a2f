import numpy as np
import pytest
import torch
from test_baselines import searched, trials_of

from bonas_core.methods import weaknas
from bonas_core.methods.bananas import Bananas
from bonas_core.methods.base import initial_design
from bonas_core.methods.perceptrons import MLPEnsemble
from bonas_core.methods.rounds import Ranking, RoundStrategy
from bonas_core.methods.weaknas import WeakNAS, one_hot
from bonas_core.spaces.nasbench101 import NASBench101
from bonas_core.spaces.nasbench201 import NASBench201
from bonas_core.trials import Trials

SPACE = NASBench201()
SMALL = MLPEnsemble(layers=1, width=16, members=2, epochs=40, learning_rate=0.01)
MAKERS = [lambda: Bananas(SPACE, ensemble=SMALL), lambda: WeakNAS(SPACE, predictor=SMALL)]


@pytest.mark.parametrize("make", MAKERS)
def test_a_round_is_the_same_whether_asked_for_at_once_or_one_by_one(make):
    one, five, ten = (searched(make(), 40, batch=batch).keys[:40] for batch in (1, 5, 10))
    np.testing.assert_array_equal(one, five)
    np.testing.assert_array_equal(one, ten)


@pytest.mark.parametrize("make", MAKERS)
def test_a_round_learns_from_the_trials_before_it_alone(make):
    trials = trials_of(initial_design(SPACE, 24, 0))
    scores = trials.scores.copy()
    scores[20:] = 0.9
    changed = Trials(trials.genotypes, trials.keys, scores, trials.finished, trials.diverged)
    first, second = (make().propose(t, 3, 0) for t in (trials, changed))
    assert [p.predicted_mean for p in first] == [p.predicted_mean for p in second]
    scores[19] = 0.9
    changed = Trials(trials.genotypes, trials.keys, scores, trials.finished, trials.diverged)
    assert [p.predicted_mean for p in first] != [p.predicted_mean for p in make().propose(changed, 3, 0)]


@pytest.mark.parametrize("make", MAKERS)
def test_the_model_is_trained_once_a_round(make, monkeypatch: pytest.MonkeyPatch):
    strategy: RoundStrategy = make()
    ranked = []
    rank = strategy.rank
    monkeypatch.setattr(strategy, "rank", lambda trials, seed: ranked.append(len(trials)) or rank(trials, seed))
    searched(strategy, 31)
    assert ranked == [10, 20, 30]


def test_bananas_proposes_mutations_of_the_best_cells():
    genotypes = initial_design(SPACE, 30, 0)
    proposals = Bananas(SPACE, ensemble=SMALL).propose(trials_of(genotypes, scores=np.arange(30) / 30), 10, 0)
    best = genotypes[-5:]
    for proposal in proposals:
        assert (proposal.genotype != best).sum(axis=1).min() == 1
        assert proposal.sampler == "bananas"


def test_thompson_samples_of_bananas_are_drawn_about_the_prediction():
    trials = trials_of(initial_design(SPACE, 30, 0))
    ranking = Bananas(SPACE, ensemble=SMALL).rank(trials, 0)
    assert (ranking.std > 0).all()
    assert np.corrcoef(ranking.mean, np.arange(len(ranking.mean)))[0, 1] < 0  # the best stand first, by and large
    assert (np.diff(ranking.mean) > 0).any()  # but not strictly


@pytest.mark.parametrize("scale", [1, 1000])
def test_bananas_learns_in_the_unit_of_scores_that_are_no_fractions(scale: float):
    genotypes = initial_design(SPACE, 60, 0)
    scores = -scale * (1 + (genotypes != 3).mean(axis=1))
    ranking = Bananas(SPACE, fractions=False).rank(trials_of(genotypes, scores=scores), 0)
    true = -scale * (1 + (ranking.genotypes != 3).mean(axis=1))
    assert np.abs(ranking.mean - true).mean() < 0.15 * scale


def test_weaknas_draws_a_round_from_the_first_hundred():
    trials = trials_of(initial_design(SPACE, 60, 0))
    strategy = WeakNAS(SPACE, predictor=SMALL)
    ranking = strategy.rank(trials, 0)
    best = np.sort(ranking.mean)[::-1]
    proposals = strategy.propose(trials, 10, 0)
    predicted = [p.predicted_mean for p in proposals]
    assert min(predicted) >= best[100]
    assert predicted != sorted(predicted, reverse=True)


def test_weaknas_goes_down_its_ranking_where_the_first_hundred_are_used_up():
    trials = trials_of(initial_design(SPACE, 60, 0))
    strategy = WeakNAS(SPACE, predictor=SMALL, top=4)
    predicted = [p.predicted_mean for p in strategy.propose(trials, 12, 0)]
    assert predicted[4:] == sorted(predicted[4:], reverse=True)


def test_weaknas_ranks_a_large_space_as_in_full_precision(monkeypatch: pytest.MonkeyPatch):
    trials = trials_of(initial_design(SPACE, 30, 0))

    def ranking() -> Ranking:
        return WeakNAS(SPACE, predictor=SMALL).rank(trials, 0)

    monkeypatch.setattr(weaknas, "bfloat16_is_fast", lambda: False)
    full = ranking()
    monkeypatch.setattr(weaknas, "bfloat16_is_fast", lambda: True)
    rough = ranking()
    np.testing.assert_array_equal(rough.keys[:500], full.keys[:500])
    np.testing.assert_array_equal(rough.mean[:500], full.mean[:500])
    assert 0 < abs(np.sort(rough.mean) - np.sort(full.mean)).max() < 0.05 * full.mean.std()


def test_features_of_weaknas_tell_all_cells_apart_and_never_stand_still():
    cells = NASBench101(sampling="authors").sample(300, np.random.default_rng(0))
    space = NASBench101(sampling="authors")
    _, first = np.unique(space.keys(cells), return_index=True)
    bits = one_hot(space.encode(cells[first]))
    assert len(np.unique(bits, axis=0)) == len(first)
    assert one_hot(SPACE.encode(SPACE.enumerate())).shape == (SPACE.size, 30)


def test_members_of_an_ensemble_differ_and_learn():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 4)).astype(np.float32)
    y = x[:, 0] - np.abs(x[:, 1]).astype(np.float64)
    for loss in ("mse", "mae"):
        ensemble = MLPEnsemble(layers=2, width=20, members=3, loss=loss, epochs=100, learning_rate=0.01, batch_size=32)
        weights = ensemble.fit(x[:150], y[:150], 0)
        predicted = ensemble.predict(weights, x[150:])
        assert predicted.shape == (3, 50)
        assert np.abs(predicted - y[150:]).mean(axis=1).max() < 0.3
        assert not np.allclose(predicted[0], predicted[1])


def test_a_member_is_trained_as_if_it_were_alone():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 4)).astype(np.float32), rng.normal(size=30)
    pair = MLPEnsemble(layers=2, width=8, members=2, epochs=0)
    trained = MLPEnsemble(layers=2, width=8, members=2, epochs=5, batch_size=30)
    alone = MLPEnsemble(layers=2, width=8, members=1, epochs=5, batch_size=30)
    start = pair.fit(x, y, 0)
    together = trained.predict(trained.fit(x, y, 0), x)

    def begin(self: MLPEnsemble, features: int, generator: object) -> list:
        return [tensor[:1].clone().requires_grad_() for tensor in start]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MLPEnsemble, "_initial", begin)
        single = alone.predict(alone.fit(x, y, 1), x)
    np.testing.assert_allclose(single[0], together[0], atol=1e-5)


@pytest.mark.parametrize("width", [8, 200])
def test_weight_decay_is_half_the_sum_of_squared_weights_in_the_loss(width: int):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 4)).astype(np.float32), rng.normal(size=30)
    decayed = MLPEnsemble(layers=1, width=width, epochs=5, batch_size=30, weight_decay=3.0)
    start = MLPEnsemble(layers=1, width=width, epochs=0).fit(x, y, 0)

    W, b, v, c = parameters = [tensor[0].clone().requires_grad_() for tensor in start]
    adam = torch.optim.Adam(parameters, lr=1e-3)
    for _ in range(5):
        adam.zero_grad()
        error = (torch.from_numpy(x) @ W + b).relu() @ v + c - torch.from_numpy(y[:, None].astype(np.float32))
        (error.square().mean() + 3.0 / 2 * (W.square().sum() + v.square().sum()) / 30).backward()
        adam.step()
    for ours, theirs in zip(decayed.fit(x, y, 0), parameters, strict=True):
        np.testing.assert_allclose(ours[0], theirs.detach(), atol=1e-6)


def test_training_ends_early_where_patience_says_so():
    x, y = np.zeros((10, 3), dtype=np.float32), np.zeros(10)
    patient = MLPEnsemble(layers=1, width=4, epochs=10_000_000, patience=3)
    assert np.abs(patient.predict(patient.fit(x, y, 0), x)).max() == 0
