from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from bonas_core.errors import InputError, InvalidArchitectureError, SettingsError
from bonas_core.evaluators.base import EvaluationContext, Outcome
from bonas_core.problem import build
from bonas_core.registry import resolve
from bonas_core.search import run
from bonas_core.settings import parse_settings
from bonas_core.spaces.architecture import Architecture
from bonas_core.spaces.base import ControlledSpace, Genotypes, SearchSpace
from bonas_core.spaces.nasnet import OPERATIONS, Cell, NASNet, _place_values

SPACE = NASNet()
SIZES = [(1, 1), (4, 1), (4, 2), (5, 1), (5, 2), (7, 1), (7, 2)]
SPACES = {size: NASNet(*size) for size in SIZES}
DARTS_V2 = (
    "|sep_conv_3x3~0|sep_conv_3x3~1|+|sep_conv_3x3~0|sep_conv_3x3~1|+|sep_conv_3x3~1|skip_connect~0|+"
    "|skip_connect~0|dil_conv_3x3~2|"
)
Blocks = tuple[tuple[tuple[int, int], ...], ...]

sizes = st.sampled_from(SIZES)
seeds = st.integers(0, 2**32 - 1)


def blocks_of(genotype: np.ndarray, blocks: int) -> list[Blocks]:
    """Cells as nested tuples of (operation, source)."""
    cells = genotype.reshape(-1, blocks, 2, 2).tolist()
    return [tuple(tuple((op, source) for op, source in block) for block in cell) for cell in cells]


def renamed(cell: Blocks, order: tuple[int, ...]) -> Blocks | None:
    """The cell whose k-th block is block order[k] of this one; None where a source would come after its user."""
    new = {0: 0, 1: 1, **{old + 2: place + 2 for place, old in enumerate(order)}}
    blocks = tuple(tuple((op, new[source] if op else 0) for op, source in cell[old]) for old in order)
    fits = all(source < place + 2 for place, block in enumerate(blocks) for _, source in block)
    return blocks if fits else None


def spellings(cell: Blocks) -> set[Blocks]:
    """Every way to write a cell with sorted terms, by trying all orders of its blocks."""
    found = (renamed(cell, order) for order in permutations(range(len(cell))))
    return {tuple(tuple(sorted(block)) for block in one) for one in found if one is not None}


def relabelled(genotypes: Genotypes, space: NASNet, rng: np.random.Generator) -> Genotypes:
    """The same cells with their blocks in another order, terms swapped, and `none` on any source."""
    rows = []
    for row in genotypes:
        genes: list[int] = []
        for cell in blocks_of(row, space.blocks):
            other = None
            while other is None:
                other = renamed(cell, tuple(rng.permutation(space.blocks).tolist()))
            for place, block in enumerate(other):
                for op, source in (block, block[::-1])[rng.integers(2)]:
                    genes += [op, source if op else int(rng.integers(place + 2))]
        rows.append(genes)
    return np.array(rows, dtype=np.int8)


def outputs(cell: Blocks, inputs: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """What a cell computes if an operation has the same weights wherever it stands: its blocks, in sorted order."""
    values = list(inputs)
    for block in cell:
        values.append(
            sum(np.sin((op + 2) * values[source] + 0.3 * op**2) for op, source in block if op) + 0 * values[0]
        )
    blocks = np.array(values[2:])
    return blocks[np.lexsort(blocks.T)]


INPUTS = (np.linspace(-1, 2, 5), np.cos(np.arange(5.0)))


@pytest.mark.parametrize("size", SIZES)
def test_it_is_a_space_for_every_method(size: tuple[int, int]) -> None:
    space = SPACES[size]
    assert isinstance(space, SearchSpace)
    assert isinstance(space, ControlledSpace)
    if size != (1, 1):
        assert type(resolve("space", space.name)()) is NASNet
        assert resolve("space", space.name)().name == space.name


@given(sizes, seeds)
@hypothesis_settings(max_examples=30)
def test_samples_are_valid_and_survive_being_printed_and_read(size: tuple[int, int], seed: int) -> None:
    space = SPACES[size]
    cells = space.sample(20, np.random.default_rng(seed))
    assert cells.shape == (20, 4 * size[0] * size[1])
    assert space.valid(cells).all()
    assert np.array_equal(space.parse(space.format(cells)), cells)
    assert [space.from_cells(space.to_cells(cell)).tolist() for cell in cells] == cells.tolist()


def test_samples_are_uniform_over_operations_and_sources() -> None:
    terms = SPACE.sample(40_000, np.random.default_rng(0)).reshape(-1, 4, 2, 2)
    share = np.bincount(terms[..., 0].ravel()) / terms[..., 0].size
    assert share == pytest.approx(np.full(8, 1 / 8), abs=0.01)
    for block in range(4):
        live = terms[:, block, :, 0] != 0
        share = np.bincount(terms[:, block, :, 1][live]) / live.sum()
        assert share == pytest.approx(np.full(block + 2, 1 / (block + 2)), abs=0.01)


@given(sizes, seeds, st.integers(1, 8))
@hypothesis_settings(max_examples=60)
def test_relabelled_cells_have_equal_keys_texts_and_graphs(size: tuple[int, int], seed: int, operations: int) -> None:
    space, rng = SPACES[size], np.random.default_rng(seed)
    cells = space.sample(8, rng)
    cells.reshape(8, -1, 2)[..., 0] %= operations  # few operations make many blocks alike
    other = relabelled(cells, space, rng)
    assert np.array_equal(space.keys(cells), space.keys(other))
    assert np.array_equal(space.canonical(cells), space.canonical(other))
    first, second = space.encode(cells), space.encode(other)
    assert np.array_equal(first.labels, second.labels)
    assert np.array_equal(first.adjacency, second.adjacency)
    assert [space.architecture(a).key for a in cells] == [space.architecture(b).key for b in other]


@given(sizes, seeds)
@hypothesis_settings(max_examples=30)
def test_the_canonical_form_is_a_relabelling_and_its_own(size: tuple[int, int], seed: int) -> None:
    space = SPACES[size]
    cells = space.sample(10, np.random.default_rng(seed))
    forms = space.canonical(cells)
    assert np.array_equal(space.canonical(forms), forms)
    assert space.valid(forms).all()
    if space.blocks <= 5:
        for cell, form in zip(cells, forms, strict=True):
            for own, canonical in zip(blocks_of(cell, space.blocks), blocks_of(form, space.blocks), strict=True):
                assert tuple(tuple(sorted(block)) for block in canonical) in spellings(own)


@given(seeds, st.integers(2, 4), st.sampled_from([2, 3, 8]))
@hypothesis_settings(max_examples=40)
def test_keys_are_equal_exactly_where_some_order_of_blocks_makes_cells_equal(seed: int, blocks: int, ops: int) -> None:
    space, rng = NASNet(blocks), np.random.default_rng(seed)
    cells = space.sample(6, rng)
    cells.reshape(6, -1, 2)[..., 0] %= ops
    cells = np.concatenate([cells, space.mutate(relabelled(cells, space, rng), rng)])  # near misses
    keys = space.keys(cells)
    every = [spellings(blocks_of(cell, blocks)[0]) for cell in cells]
    for i in range(len(cells)):
        for j in range(i):
            assert (keys[i] == keys[j]) == (every[i] == every[j])


def test_blocks_that_are_alike_but_differently_used_are_told_apart() -> None:
    twice, once, both = SPACE.parse(
        [
            "|sep_conv_3x3~0|none~0|+|sep_conv_3x3~0|none~0|+|skip_connect~2|max_pool_3x3~2|+|none~0|none~0|",
            "|sep_conv_3x3~0|none~0|+|sep_conv_3x3~0|none~0|+|skip_connect~2|max_pool_3x3~3|+|none~0|none~0|",
            "|sep_conv_3x3~0|none~0|+|sep_conv_3x3~0|none~0|+|skip_connect~3|max_pool_3x3~2|+|none~0|none~0|",
        ]
    )
    keys = SPACE.keys(np.array([twice, once, both]))
    assert keys[0] != keys[1] == keys[2]


@pytest.mark.parametrize("blocks", range(1, 8))
def test_keys_of_one_cell_are_the_place_in_all_canonical_forms(blocks: int) -> None:
    assert len(_place_values(blocks)) == blocks  # which asserts that the largest fits into 64 bits
    space = NASNet(blocks)
    most = ";".join(["+".join(f"|dil_conv_5x5~{b + 1}|dil_conv_5x5~{b + 1}|" for b in range(blocks))])
    terms = [1 + 7 * (b + 2) for b in range(blocks)]
    largest = int(np.prod([n * (n + 1) // 2 for n in terms], dtype=object)) - 1
    assert int(space.keys(space.parse([most]))[0]) == largest


def test_there_are_as_many_keys_as_cells_of_one_block() -> None:
    space = NASNet(1)
    choices = np.stack(np.meshgrid(*[np.arange(n) for n in space.decisions()], indexing="ij"), -1).reshape(-1, 4)
    cells, valid = space.from_decisions(choices.astype(np.int8))
    assert len(np.unique(space.keys(cells[valid]))) == 15 * 16 // 2 - 1  # pairs of 14 terms and none, but two nones


def same_function(genotypes: Genotypes, others: Genotypes, space: NASNet) -> list[bool]:
    return [
        all(
            np.allclose(outputs(a, INPUTS), outputs(b, INPUTS), atol=1e-9)
            for a, b in zip(blocks_of(one, space.blocks), blocks_of(other, space.blocks), strict=True)
        )
        for one, other in zip(genotypes, others, strict=True)
    ]


def check_functions(count: int, sampled: int, space: NASNet) -> None:
    """No two of `count` random cells with equal keys differ in what they compute, and those relabelled never do."""
    rng = np.random.default_rng(0)
    cells = space.sample(count, rng)
    keys = space.keys(cells)
    order = np.argsort(keys, kind="stable")
    twins = np.flatnonzero(keys[order][1:] == keys[order][:-1])
    assert all(same_function(cells[order[twins]], cells[order[twins + 1]], space))
    chosen = rng.choice(count, sampled, replace=False)
    other = relabelled(cells[chosen], space, rng)
    assert np.array_equal(space.keys(other), keys[chosen])
    assert all(same_function(cells[chosen], other, space))
    # and the check can fail: cells that are not alike compute something else
    assert not any(same_function(cells[chosen[:-1]], cells[chosen[1:]], space))


def test_cells_of_equal_key_compute_the_same() -> None:
    check_functions(10_000, 200, SPACE)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(4, 1), (4, 2), (5, 1), (7, 1)])
def test_of_a_hundred_thousand_cells_those_of_equal_key_compute_the_same(size: tuple[int, int]) -> None:
    check_functions(100_000, 5_000, SPACES[size])


def test_enough_pairs_of_equal_key_occur_among_cells_of_two_blocks() -> None:
    space = NASNet(2)
    cells = space.sample(3_000, np.random.default_rng(1))
    keys = space.keys(cells)
    order = np.argsort(keys, kind="stable")
    twins = np.flatnonzero(keys[order][1:] == keys[order][:-1])
    assert len(twins) > 100
    assert all(same_function(cells[order[twins]], cells[order[twins + 1]], space))


def difference(one: np.ndarray, other: np.ndarray) -> int:
    return int((one.reshape(-1, 2) != other.reshape(-1, 2)).any(axis=1).sum())


@given(sizes, seeds)
@hypothesis_settings(max_examples=30)
def test_a_mutation_changes_one_term_at_most_and_stays_valid(size: tuple[int, int], seed: int) -> None:
    space, rng = SPACES[size], np.random.default_rng(seed)
    parents = space.sample(50, rng)
    before = parents.copy()
    children = space.mutate(parents, rng)
    assert np.array_equal(parents, before)
    assert space.valid(children).all()
    assert max(map(difference, parents, children)) <= 1


def test_mutations_reach_exactly_the_neighbours() -> None:
    space, rng = NASNet(2), np.random.default_rng(0)
    for parent in space.sample(3, rng):
        neighbours = space.neighbours(parent)
        assert space.valid(neighbours).all()
        children = space.mutate(np.repeat(parent[None], 20_000, axis=0), rng)
        own = space.keys(parent[None])
        assert set(space.keys(children).tolist()) - set(own.tolist()) == set(space.keys(neighbours).tolist())
        assert len(np.unique(space.keys(neighbours))) == len(neighbours)


def test_the_paper_s_mutation_changes_sources_and_operations_equally_often() -> None:
    parents = np.repeat(SPACE.parse([DARTS_V2]), 40_000, axis=0)
    children = SPACE.mutate(parents, np.random.default_rng(0)).reshape(-1, 8, 2)
    changed = children != parents.reshape(-1, 8, 2)
    sources = (changed[..., 1] & (children[..., 0] != 0)).any(axis=1)
    assert sources.mean() == pytest.approx(1 / 2, abs=0.01)
    assert changed[..., 0].any(axis=1).mean() == pytest.approx(1 / 2 * 7 / 8, abs=0.01)


def test_a_cell_is_invalid_where_nothing_leads_from_its_inputs() -> None:
    nothing = np.zeros((1, 16), dtype=np.int8)
    on_nothing = nothing.copy()
    on_nothing[0, 4:6] = 3, 2  # the second block skips the first, which is nothing
    assert not SPACE.valid(np.concatenate([nothing, on_nothing])).any()
    two = NASNet(4, 2)
    good = SPACE.parse([DARTS_V2])
    assert two.valid(np.hstack([good, good])).all()
    assert not two.valid(np.hstack([good, nothing])).any()


@given(sizes, seeds)
@hypothesis_settings(max_examples=30)
def test_decisions_spell_cells(size: tuple[int, int], seed: int) -> None:
    space, rng = SPACES[size], np.random.default_rng(seed)
    cells = space.sample(10, rng)
    choices = space.to_decisions(cells)
    assert (choices < np.array(space.decisions())).all()
    back, valid = space.from_decisions(choices)
    assert valid.all()
    assert np.array_equal(back, cells)
    drawn, valid = space.from_decisions((rng.random((50, choices.shape[1])) * space.decisions()).astype(np.int8))
    assert np.array_equal(valid, space.valid(drawn))
    assert np.array_equal(space.parse(space.format(drawn[valid])), drawn[valid])


def test_the_graph_of_a_cell_is_that_of_the_original() -> None:
    cell = SPACE.architecture(SPACE.parse([DARTS_V2])[0])
    assert cell.operations == (
        "older-input", "input", "sep_conv_3x3", "sep_conv_3x3", "sep_conv_3x3", "sep_conv_3x3", "sep_conv_3x3",
        "skip_connect", "skip_connect", "dil_conv_3x3", "output",
    )  # fmt: skip
    into = {v: [i for i, j in cell.edges if j == v] for v in range(cell.vertices)}
    assert [into[v] for v in range(2, 10)] == [[0], [1], [0], [1], [1], [0], [0], [2, 3]]
    assert into[10] == list(range(2, 10))
    assert cell.text == DARTS_V2


@given(sizes, seeds)
@hypothesis_settings(max_examples=20)
def test_graphs_of_whole_pools_are_those_of_single_cells(size: tuple[int, int], seed: int) -> None:
    space = SPACES[size]
    cells = space.canonical(space.sample(5, np.random.default_rng(seed)))
    graphs = space.encode(cells)
    for row, cell in enumerate(cells):
        architecture = space.architecture(cell)
        assert tuple(space.vocabulary[label] for label in graphs.labels[row]) == architecture.operations
        assert tuple(map(tuple, np.argwhere(graphs.adjacency[row]).tolist())) == architecture.edges


def test_the_inputs_of_two_cells_are_told_apart() -> None:
    space = NASNet(4, 2)
    one, other = DARTS_V2, DARTS_V2.replace("sep_conv", "dil_conv")
    graphs = space.encode(space.parse([f"{one};{other}", f"{other};{one}"]))
    assert not np.array_equal(graphs.labels[0], graphs.labels[1])
    assert {"reduction-input", "reduction-older-input"} <= {space.vocabulary[label] for label in graphs.labels[0]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"`` of block 0 is not `operation~source`; write it as `\|sep_conv_3x3~0\|"),
        (DARTS_V2.replace("~", "-"), "is not `operation~source`"),
        (DARTS_V2.replace("dil_conv_3x3", "dil_conv_7x7"), "`dil_conv_7x7` is not an operation; use one of none, max"),
        (DARTS_V2.replace("skip_connect~0|+", "skip_connect~5|+"), "block 2 has source 5; its sources are 0 to 3"),
        (DARTS_V2.replace("|sep_conv_3x3~0|sep", "|none~0|skip_connect~1|sep", 1), "block 0 has 3 terms; give it 2"),
        (DARTS_V2 + "+" + DARTS_V2, "a cell has 8 blocks, in space nasnet it has 4; change the space"),
        (DARTS_V2 + ";" + DARTS_V2, "has 2 cells, space nasnet has 1; write it as"),
        ("+".join(["|none~0|none~0|"] * 4), "nothing leads from the inputs of a cell to its output; put an operation"),
        ("|none~0|none~0|+|skip_connect~2|none~0|+|none~0|none~0|+|none~0|none~0|", "nothing leads from the inputs"),
    ],
)
def test_what_is_no_cell_is_refused_with_the_rule_and_the_remedy(text: str, message: str) -> None:
    with pytest.raises(InvalidArchitectureError, match=message) as caught:
        SPACE.parse([DARTS_V2, text])
    assert "\n" not in str(caught.value)


@given(st.text(alphabet="|~+;_0123 sepconvkip", max_size=80))
@hypothesis_settings(max_examples=200)
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        cells = SPACE.parse([text])
    except InvalidArchitectureError:
        return
    assert SPACE.valid(cells).all()


def test_the_examples_in_messages_are_cells() -> None:
    for space in SPACES.values():
        assert space.valid(space.parse([space._example()])).all()


def test_spaces_that_do_not_exist_are_refused() -> None:
    for blocks, cells in ((0, 1), (8, 1), (4, 3), (4, 0)):
        with pytest.raises(SettingsError, match="use 1 or 2 cells of 1 to 7 blocks"):
            NASNet(blocks, cells)
    with pytest.raises(InputError, match="too large to enumerate"):
        SPACE.enumerate()


def test_every_operation_has_a_term_in_the_vocabulary() -> None:
    assert SPACE.vocabulary[: len(OPERATIONS)] == OPERATIONS
    assert len(set(NASNet(4, 2).vocabulary)) == len(OPERATIONS) + 5


def test_cells_of_other_kinds_are_refused() -> None:
    (cell,) = SPACE.to_cells(SPACE.parse([DARTS_V2])[0])
    with pytest.raises(InvalidArchitectureError, match=r"concatenates sources \[4, 5\]; cells of this space"):
        SPACE.from_cells([Cell(cell.blocks, (4, 5))])


class Convolutions:
    """Scores a cell by its convolutions: something that every method can find out."""

    objective, unit, direction, fingerprint = "convolutions", "fraction", "maximise", "convolutions"

    def __init__(self, space: SearchSpace) -> None:
        self.space = space

    def evaluate(self, architecture: Architecture, context: EvaluationContext) -> Outcome:
        return Outcome(sum("conv" in operation for operation in architecture.operations) / len(architecture.operations))


@pytest.mark.parametrize(
    ("space", "method"),
    [
        ("nasnet", {"sampler": "evolution", "pool": 100}),
        ("nasnet-two-cells", {"sampler": "reinforce", "pool": 100, "controller": {"samples": 40, "units": 8}}),
        ("nasnet-5-blocks", {"name": "regularised-evolution"}),
        ("nasnet-7-blocks", {"name": "local-search"}),
        ("nasnet", {"name": "bananas"}),
    ],
)
def test_methods_search_it(space: str, method: dict[str, Any]) -> None:
    tree = {
        "space": space,
        "evaluator": {"kind": f"{__name__}:Convolutions"},
        "method": method,
        **({} if "name" in method else {"predictor": {"epochs": 2, "ensemble": 1}}),
        "budget": {"trials": 12},
    }
    log = run(build(parse_settings(tree, "convolutions")))
    assert len({trial.key for trial in log.rows}) == 12
