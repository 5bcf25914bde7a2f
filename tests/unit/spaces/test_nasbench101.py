from itertools import product
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bonas_core.errors import InvalidArchitectureError, SettingsError
from bonas_core.spaces.base import ControlledSpace, Genotypes, MutationRules, SearchSpace
from bonas_core.spaces.encoding import PADDING
from bonas_core.spaces.nasbench101 import OPERATIONS, NASBench101

SPACE = NASBench101()
AUTHORS = NASBench101("authors")
TABLE = Path(__file__).parents[4] / "shared/data/nasbench101_cells_20k.parquet"

CHAIN = "input;conv3x3;output|0-1,1-2"
DIRECT = "input;output|0-1"
KNOWN_HASHES = {
    DIRECT: "043721b9c7fe8c5fad811d47d83132ec",
    "input;conv3x3;conv3x3;output|0-1,0-3,1-2,2-3": "b5fb4f6193360330b6ff6a52cbf0cad7",
    "input;conv1x1;conv3x3;conv3x3;conv3x3;maxpool3x3;output|0-1,0-2,0-3,0-5,1-6,2-6,3-4,4-6,5-6": (
        "28cfc7874f6d200472e1a9dcd8650aa0"
    ),
    "input;conv1x1;conv3x3;maxpool3x3;conv3x3;conv3x3;output|0-1,0-2,0-5,0-6,1-5,2-3,3-4,4-5,5-6": (
        "02e5a0247bbdcf2860b7e96f74961594"
    ),
    "input;conv3x3;conv3x3;conv3x3;conv3x3;output|0-1,0-2,0-3,0-4,0-5,1-4,2-3,3-4,4-5": (
        "0da48e9f9faecf504244c65b82e0ba71"
    ),
}
"""Published or independently computed official hashes (see the algorithms document, section 2.4)."""


def cell(text: str) -> np.ndarray:
    return SPACE.parse([text])[0]


def relabelled(genotype: np.ndarray, priority: list[int]) -> np.ndarray:
    """The same cell with its interior vertices in another order that still lets all edges lead forward."""
    graph = SPACE.architecture(genotype)
    sources = [{i for i, j in graph.edges if j == v} for v in range(graph.vertices)]
    order: list[int] = []
    while len(order) < graph.vertices:
        ready = [v for v in range(graph.vertices) if v not in order and sources[v] <= set(order)]
        order.append(min(ready, key=priority.__getitem__))
    place = {v: p for p, v in enumerate(order)}
    edges = {(place[i], place[j]) for i, j in graph.edges}
    pairs = [(i, j) for i in range(graph.vertices) for j in range(i + 1, graph.vertices)]
    bits = "".join("1" if pair in edges else "0" for pair in pairs)
    return SPACE.from_bits([bits], [[graph.operations[v] for v in order]])[0]


def assert_cells(genotypes: Genotypes) -> None:
    assert genotypes.dtype == np.int8
    assert SPACE.valid(genotypes).all()
    np.testing.assert_array_equal(SPACE.prune(genotypes), genotypes)


def test_it_is_a_search_space() -> None:
    assert isinstance(SPACE, SearchSpace)


@pytest.mark.parametrize(("text", "official"), KNOWN_HASHES.items())
def test_the_official_hash_is_reproduced(text: str, official: str) -> None:
    assert SPACE.official_hash(SPACE.parse([text])) == [official]
    assert SPACE.architecture(cell(text)).key == official


def test_the_graphs_of_the_table_have_the_hashes_of_the_table() -> None:
    if not TABLE.exists():
        pytest.skip(f"the table of 20,001 NAS-Bench-101 cells is not at {TABLE}")
    table = pq.read_table(TABLE, columns=["hash", "num_vertices", "num_edges", "adjacency", "ops"])
    columns = table.to_pydict()
    cells = SPACE.from_bits(columns["adjacency"], columns["ops"])
    assert_cells(cells)
    assert SPACE.vertices(cells).tolist() == columns["num_vertices"]
    assert cells[:, :21].sum(axis=1).tolist() == columns["num_edges"]
    assert SPACE.official_hash(cells) == columns["hash"]
    assert len(set(SPACE.keys(cells).tolist())) == 20_001


# Enumeration


def test_the_enumeration_has_the_published_number_of_cells_of_every_size() -> None:
    cells = SPACE.enumerate()
    assert dict(zip(*np.unique(SPACE.vertices(cells), return_counts=True), strict=True)) == {
        2: 1,
        3: 6,
        4: 84,
        5: 2_441,
        6: 62_010,
        7: 359_082,
    }
    assert SPACE.size == len(cells) == sum(SPACE.count_by_vertices.values())


def test_the_enumeration_holds_pruned_valid_cells_that_all_differ() -> None:
    cells = SPACE.enumerate()
    assert_cells(cells)
    assert len(np.unique(SPACE.keys(cells))) == len(cells)


def test_the_enumeration_of_small_cells_is_all_that_raw_matrices_give() -> None:
    found: set[str] = set()
    for n in (2, 3, 4):
        for bits in product("01", repeat=n * (n - 1) // 2):
            for ops in product(OPERATIONS, repeat=n - 2):
                try:
                    cells = SPACE.from_bits(["".join(bits)], [["input", *ops, "output"]])
                except InvalidArchitectureError:
                    continue
                found.update(SPACE.official_hash(cells))
    assert found == set(SPACE.official_hash(SPACE.enumerate()[: 1 + 6 + 84]))


def test_the_enumeration_is_shared_and_cannot_be_overwritten() -> None:
    assert SPACE.enumerate() is AUTHORS.enumerate()
    with pytest.raises(ValueError, match="read-only"):
        SPACE.enumerate()[0] = 0


@pytest.mark.slow
def test_the_official_hash_tells_all_cells_apart() -> None:
    assert len(set(SPACE.official_hash(SPACE.enumerate()))) == SPACE.size


# Identity


@settings(deadline=None)
@given(st.integers(0, SPACE.size - 1), st.permutations(range(7)))
def test_another_order_of_the_vertices_changes_neither_key_nor_hash(row: int, priority: list[int]) -> None:
    original = SPACE.enumerate()[row]
    both = np.stack([original, relabelled(original, priority)])
    assert len(set(SPACE.keys(both).tolist())) == 1
    assert len(set(SPACE.official_hash(both))) == 1


def test_keys_differ_exactly_where_hashes_differ() -> None:
    rng = np.random.default_rng(1)
    small = SPACE.enumerate()[rng.integers(91, size=300)]
    cells = np.concatenate([AUTHORS.sample(1_500, rng), SPACE.sample(300, rng), small])
    cells = np.concatenate([cells, [relabelled(row, rng.permutation(7).tolist()) for row in cells[::5]]])
    keys, hashes = SPACE.keys(cells).tolist(), SPACE.official_hash(cells)
    assert len(set(keys)) == len(set(hashes)) == len(set(zip(keys, hashes, strict=True)))


# Pruning


def test_pruning_drops_dead_ends_and_unreached_vertices_and_keeps_the_order() -> None:
    raw = "input;conv1x1;maxpool3x3;conv3x3;maxpool3x3;conv1x1;output|0-1,0-2,2-4,3-4,4-6,5-6,0-6"
    assert SPACE.format(SPACE.parse([raw])) == ["input;maxpool3x3;maxpool3x3;output|0-1,0-3,1-2,2-3"]


def test_a_raw_row_without_a_path_is_pruned_to_nothing_and_not_valid() -> None:
    raw = np.zeros((1, 26), dtype=np.int8)
    raw[0, 0] = 1
    pruned = SPACE.prune(raw)
    assert not pruned[:, :21].any()
    assert not SPACE.valid(pruned).any()


def test_edges_are_counted_after_pruning() -> None:
    raw = np.ones((1, 26), dtype=np.int8)
    assert SPACE.valid(SPACE.prune(raw)).tolist() == [False]
    raw[0, [10, 14, 17, 19, 20]] = 0  # the edges from interior vertices to the output
    assert SPACE.format(SPACE.prune(raw)) == [DIRECT]
    assert SPACE.valid(SPACE.prune(raw)).tolist() == [True]


# Sampling


@pytest.mark.parametrize("space", [SPACE, AUTHORS], ids=["uniform", "authors"])
def test_samples_are_valid_and_repeat_with_the_seed(space: NASBench101) -> None:
    cells = space.sample(500, np.random.default_rng(5))
    assert cells.shape == (500, 26)
    assert_cells(cells)
    np.testing.assert_array_equal(cells, space.sample(500, np.random.default_rng(5)))
    assert (cells != space.sample(500, np.random.default_rng(6))).any()


@pytest.mark.parametrize("space", [SPACE, AUTHORS], ids=["uniform", "authors"])
def test_no_sample_is_asked_for_and_none_is_drawn(space: NASBench101) -> None:
    assert space.sample(0, np.random.default_rng(0)).shape == (0, 26)


def test_uniform_samples_hit_all_sizes_and_all_small_cells_equally_often() -> None:
    count = 1_000_000
    cells = SPACE.sample(count, np.random.default_rng(2))
    vertices = SPACE.vertices(cells)
    for n, size in SPACE.count_by_vertices.items():
        expected = count * size / SPACE.size
        assert abs(np.count_nonzero(vertices == n) - expected) < 5 * np.sqrt(expected)
    small = np.sort(SPACE.keys(SPACE.enumerate()[:2_532]))
    hits = np.bincount(np.searchsorted(small, SPACE.keys(cells[vertices <= 5])), minlength=2_532)
    expected = count / SPACE.size
    excess = ((hits - expected) ** 2 / expected - 1).sum()  # mean 0, variance 2 + 1/expected a cell
    assert abs(excess) < 5 * np.sqrt(2_532 * (2 + 1 / expected))


def test_the_authors_way_of_sampling_favours_small_cells() -> None:
    rng = np.random.default_rng(3)
    small = [(SPACE.vertices(space.sample(2_000, rng)) <= 5).mean() for space in (SPACE, AUTHORS)]
    assert small[0] < 0.02
    assert small[1] > 0.5


def test_an_unknown_way_of_sampling_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"sampling `grid` is unknown; use one of uniform, authors"):
        NASBench101("grid")  # type: ignore[arg-type]


# Mutation


@pytest.mark.parametrize("space", [SPACE, AUTHORS], ids=["uniform", "authors"])
def test_mutants_are_valid_and_no_larger_than_their_parents(space: NASBench101) -> None:
    rng = np.random.default_rng(4)
    parents = space.sample(5_000, rng)
    before = parents.copy()
    children = SPACE.mutate(parents, rng)
    assert_cells(children)
    np.testing.assert_array_equal(parents, before)
    assert (SPACE.vertices(children) <= SPACE.vertices(parents)).all()
    assert (children[:, :21].sum(axis=1) <= parents[:, :21].sum(axis=1)).all()


def test_mutation_repeats_with_the_seed() -> None:
    parents = SPACE.sample(100, np.random.default_rng(0))
    first, second = (SPACE.mutate(parents, np.random.default_rng(9)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_mutants_of_a_chain_come_with_the_chances_of_the_rule() -> None:
    """Only the second edge can be rewired, to the direct cell; the operation is redrawn in 3 ways."""
    count = 12_000
    mutants = SPACE.format(SPACE.mutate(np.tile(cell(CHAIN), (count, 1)), np.random.default_rng(7)))
    chances = {
        CHAIN: 1 / 4 + 1 / 6,
        DIRECT: 1 / 4,
        "input;conv1x1;output|0-1,1-2": 1 / 6,
        "input;maxpool3x3;output|0-1,1-2": 1 / 6,
    }
    assert set(mutants) == set(chances)
    for text, chance in chances.items():
        assert abs(mutants.count(text) / count - chance) < 5 * np.sqrt(chance * (1 - chance) / count)


def test_the_direct_cell_has_no_mutants_and_no_neighbours() -> None:
    parents = np.tile(cell(DIRECT), (50, 1))
    np.testing.assert_array_equal(SPACE.mutate(parents, np.random.default_rng(0)), parents)
    assert SPACE.neighbours(parents[0]).shape == (0, 26)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, SPACE.size - 1))
def test_neighbours_are_exactly_what_mutation_reaches(row: int) -> None:
    parent = SPACE.enumerate()[row]
    neighbours = SPACE.neighbours(parent)
    assert_cells(neighbours)
    keys = SPACE.keys(neighbours).tolist()
    own = SPACE.keys(parent[None]).item()
    mutants = SPACE.keys(SPACE.mutate(np.tile(parent, (5_000, 1)), np.random.default_rng(0)))
    assert len(set(keys)) == len(keys)
    assert set(mutants.tolist()) | {own} == {*keys, own}
    assert own not in keys


# Other rules of mutation

RULES = {rule: NASBench101(mutation=rule) for rule in ("add-remove", "flip")}  # type: ignore[arg-type]


def test_the_rule_of_the_paper_is_the_default() -> None:
    assert SPACE.mutation == SPACE.mutations[0] == "rewire"
    assert isinstance(SPACE, MutationRules)
    changed = AUTHORS.with_mutation("flip")
    assert (changed.sampling, changed.mutation) == ("authors", "flip")


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"mutation `swap` is unknown; use one of rewire, add-remove, flip"):
        SPACE.with_mutation("swap")


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1))
def test_mutants_by_other_rules_are_cells_and_repeat_with_the_seed(rule: str, seed: int) -> None:
    parents = AUTHORS.sample(200, np.random.default_rng(seed))
    before = parents.copy()
    children = RULES[rule].mutate(parents, np.random.default_rng(seed))
    assert_cells(children)
    np.testing.assert_array_equal(parents, before)
    np.testing.assert_array_equal(children, RULES[rule].mutate(parents, np.random.default_rng(seed)))


@pytest.mark.parametrize("rule", RULES)
def test_cells_grow_from_the_smallest_to_all_sizes(rule: str) -> None:
    cells = np.tile(cell(DIRECT), (2_000, 1))
    rng = np.random.default_rng(0)
    sizes: set[int] = set()
    for _ in range(12):
        cells = RULES[rule].mutate(cells, rng)
        sizes |= set(SPACE.vertices(cells).tolist())
    assert sizes == {2, 3, 4, 5, 6, 7}


def test_an_added_edge_brings_the_vertices_it_needs() -> None:
    """The direct cell loses its edge, so its children are chains of the one or two vertices that the new edge needs."""
    children = RULES["add-remove"].mutate(np.tile(cell(DIRECT), (3_000, 1)), np.random.default_rng(0))
    texts = set(RULES["add-remove"].format(children))
    ops = ("conv3x3", "conv1x1", "maxpool3x3")
    chains = {f"input;{a};output|0-1,1-2" for a in ops}
    chains |= {f"input;{a};{b};output|0-1,1-2,2-3" for a in ops for b in ops}
    assert texts == chains


def test_adding_and_removing_keeps_all_vertices_or_loses_some_to_pruning() -> None:
    parents = SPACE.enumerate()[-50_000::50]
    assert (SPACE.vertices(parents) == 7).all()
    children = RULES["add-remove"].mutate(parents, np.random.default_rng(0))
    same_edges = (children[:, :21] == parents[:, :21]).all(axis=1)
    assert ((children != parents)[same_edges].sum(axis=1) <= 1).all()
    moved = children[~same_edges & (SPACE.vertices(children) == 7)]
    assert len(moved) > 100
    assert (moved[:, 21:] == parents[~same_edges & (SPACE.vertices(children) == 7)][:, 21:]).all()
    change = moved[:, :21].astype(int) - parents[~same_edges & (SPACE.vertices(children) == 7)][:, :21]
    assert ((change == 1).sum(axis=1) == 1).all()
    assert ((change == -1).sum(axis=1) == 1).all()


def test_bits_flip_and_operations_change_with_the_chances_of_the_rule() -> None:
    count = 40_000
    chain = cell("input;conv3x3;conv3x3;conv3x3;conv3x3;conv3x3;output|0-1,1-2,2-3,3-4,4-5,5-6")
    children = RULES["flip"].mutate(np.tile(chain, (count, 1)), np.random.default_rng(7))
    full = children[SPACE.vertices(children) == 7]
    unchanged = (children == chain).all(axis=1).mean()
    assert unchanged > (6 / 7) ** 21 * (4 / 5) ** 5  # more, for rows that are no cell are drawn again
    ops = full[:, 21:]
    assert abs((ops == 0).mean() - 4 / 5) < 0.01
    assert abs((ops == 1).mean() - (ops == 2).mean()) < 0.01


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=25)
@given(row=st.integers(0, SPACE.size - 1))
def test_neighbours_by_other_rules_are_one_change_away(rule: str, row: int) -> None:
    parent = SPACE.enumerate()[row]
    n = int(SPACE.vertices(parent[None])[0])
    neighbours = RULES[rule].neighbours(parent)
    assert_cells(neighbours)
    assert SPACE.keys(parent[None]).item() not in SPACE.keys(neighbours)
    vertices = SPACE.vertices(neighbours)
    assert vertices.max() <= min(n + 1, 7)
    grown = neighbours[vertices == n + 1]
    assert (grown[:, :21].sum(axis=1) == parent[:21].sum() + 2).all()
    same = neighbours[vertices == n]
    changes = (same != parent).sum(axis=1)
    assert (changes == 1).all()
    if n < 7 and parent[:21].sum() <= 7:
        assert len(grown)


def test_single_changes_lead_both_ways() -> None:
    """A neighbour that lost or gained nothing but one edge, or changed an operation, has the cell as its neighbour."""
    space = RULES["flip"]
    for parent in SPACE.enumerate()[::20_011]:
        own = SPACE.keys(parent[None]).item()
        around = space.neighbours(parent)
        for neighbour in around[(SPACE.vertices(around) == SPACE.vertices(parent[None]))]:
            assert own in SPACE.keys(space.neighbours(neighbour))


# Text and tables


@settings(deadline=None)
@given(st.integers(0, SPACE.size - 1), st.permutations(range(7)))
def test_parse_reads_back_what_format_prints(row: int, priority: list[int]) -> None:
    both = np.stack([SPACE.enumerate()[row], relabelled(SPACE.enumerate()[row], priority)])
    np.testing.assert_array_equal(SPACE.parse(SPACE.format(both)), both)


FAULTS = {
    "input;output": "it is not `vertices|edges`; write it as `input;conv3x3;",
    "output|0-1": "it has 1 vertices; give it 2 to 7, input and output included",
    "input;conv3x3;conv3x3;conv3x3;conv3x3;conv3x3;conv3x3;output|0-7": "it has 8 vertices; give it 2 to 7",
    "conv3x3;output|0-1": "vertices run from `conv3x3` to `output`; begin with `input` and end with `output`",
    "input;conv5x5;output|0-1,1-2": "`conv5x5` is not an operation; use one of conv3x3, conv1x1, maxpool3x3",
    "input;conv3x3;output|0-1,1-3": "`1-3` is not an edge from an earlier to a later of its vertices 0 to 2; "
    "use one of 0-1, 0-2, 1-2",
    "input;conv3x3;output|0-1,2-1": "`2-1` is not an edge from an earlier to a later",
    "input;conv3x3;output|0-1,1-1": "`1-1` is not an edge from an earlier to a later",
    "input;conv3x3;output|0-1;1-2": "`0-1;1-2` is not an edge from an earlier to a later",
    "input;conv3x3;output|0-1,1-2,0-1": "edge `0-1` is given 2 times; give it once",
    "input;conv3x3;output|0-1": "no path leads from its input to its output; add the missing edges",
    "input;output|": "no path leads from its input to its output; add the missing edges",
    "input;conv3x3;conv3x3;conv3x3;output|0-1,0-2,0-3,0-4,1-2,1-3,1-4,2-3,2-4,3-4": (
        "10 edges lie on paths from input to output; keep at most 9"
    ),
}


@pytest.mark.parametrize(("text", "fault"), FAULTS.items())
def test_a_text_that_is_no_cell_is_refused_with_its_fault(text: str, fault: str) -> None:
    with pytest.raises(InvalidArchitectureError) as error:
        SPACE.parse([DIRECT, text])
    assert str(error.value).startswith(f"cell `{text}`: {fault}")
    assert "\n" not in str(error.value)


def test_bits_and_labels_of_cells_of_different_sizes_become_genotypes() -> None:
    cells = SPACE.from_bits(
        ["1", "101001", "110"],
        [
            ["input", "output"],
            ["input", "maxpool3x3", "conv1x1-bn-relu", "output"],
            ["input", "conv3x3-bn-relu", "output"],
        ],
    )
    assert SPACE.format(cells) == [DIRECT, DIRECT, DIRECT]
    assert SPACE.from_bits([], []).shape == (0, 26)


@pytest.mark.parametrize(
    ("bits", "labels", "fault"),
    [
        ("1", ["input"], "it has 1 vertices; give it 2 to 7"),
        ("1" * 28, ["input", *[OPERATIONS[0]] * 6, "output"], "it has 8 vertices; give it 2 to 7"),
        ("11", ["input", OPERATIONS[0], "output"], "adjacency `11` is not 3 times 0 or 1 for its 3 vertices"),
        (
            "121",
            ["input", OPERATIONS[0], "output"],
            "adjacency `121` is not 3 times 0 or 1 for its 3 vertices",
        ),
        (
            "101",
            ["input", "conv5x5", "output"],
            "`conv5x5` is not an operation; use one of conv3x3-bn-relu, ",
        ),
        ("101", ["input", "input", "output"], "`input` is not an operation"),
        ("101", ["input", OPERATIONS[0], OPERATIONS[0]], "vertices run from `input` to `conv3x3-bn-relu`"),
        ("100", ["input", OPERATIONS[0], "output"], "no path leads from its input to its output"),
        ("1" * 10, ["input", *[OPERATIONS[0]] * 3, "output"], "10 edges lie on paths from input to output"),
    ],
)
def test_a_table_row_that_is_no_cell_is_refused_with_its_fault(bits: str, labels: list[str], fault: str) -> None:
    with pytest.raises(InvalidArchitectureError) as error:
        SPACE.from_bits(["1", bits], [["input", "output"], labels])
    assert str(error.value).startswith(f"cell in row 1: {fault}")
    assert "\n" not in str(error.value)


# Graphs


def test_an_architecture_shows_the_pruned_vertices_in_order() -> None:
    text = "input;conv3x3;maxpool3x3;output|0-1,0-3,1-2,2-3"
    graph = SPACE.architecture(cell(text))
    assert graph.operations == ("input", "conv3x3-bn-relu", "maxpool3x3", "output")
    assert graph.edges == ((0, 1), (0, 3), (1, 2), (2, 3))
    assert graph.text == text


def test_encoding_pads_to_the_largest_cell_of_the_batch() -> None:
    graphs = SPACE.encode(SPACE.parse([DIRECT, "input;conv1x1;maxpool3x3;output|0-1,1-2,2-3", CHAIN]))
    assert graphs.vocabulary == (*OPERATIONS, "input", "output")
    assert graphs.labels.tolist() == [[3, 4, PADDING, PADDING], [3, 1, 2, 4], [3, 0, 4, PADDING]]
    assert [list(zip(*np.nonzero(a), strict=True)) for a in graphs.adjacency] == [
        [(0, 1)],
        [(0, 1), (1, 2), (2, 3)],
        [(0, 1), (1, 2)],
    ]


def test_encoded_graphs_are_those_of_the_architectures() -> None:
    cells = SPACE.sample(50, np.random.default_rng(8))
    graphs = SPACE.encode(cells)
    for row, genotype in enumerate(cells):
        graph = SPACE.architecture(genotype)
        labels = graphs.labels[row][graphs.mask[row]]
        assert tuple(graphs.vocabulary[label] for label in labels) == graph.operations
        assert set(zip(*np.nonzero(graphs.adjacency[row]), strict=True)) == set(graph.edges)
    assert graphs.labels.shape == (50, 7)


# Decisions of a controller


@given(st.integers(0, SPACE.size - 1), st.permutations(range(7)))
def test_decisions_spell_the_cell_they_were_made_of(row: int, priority: list[int]) -> None:
    cells = np.stack([SPACE.enumerate()[row], relabelled(SPACE.enumerate()[row], priority)])
    choices = SPACE.to_decisions(cells)
    assert choices.dtype == np.int8
    assert (choices >= 0).all()
    assert (choices < SPACE.decisions()).all()
    spelt, valid = SPACE.from_decisions(choices)
    assert valid.all()
    np.testing.assert_array_equal(spelt, cells)


def test_random_decisions_spell_pruned_cells_or_are_invalid() -> None:
    draw = np.random.default_rng(9)
    choices = draw.integers(SPACE.decisions(), size=(2_000, 26), dtype=np.int8)
    cells, valid = SPACE.from_decisions(choices)
    assert_cells(cells[valid])
    np.testing.assert_array_equal(valid, SPACE.valid(SPACE.prune(choices)))
    assert 0.6 < valid.mean() < 0.9


def test_the_output_stands_last_in_decisions() -> None:
    choices = SPACE.to_decisions(SPACE.parse([CHAIN]))
    edges = {pair for pair, bit in zip(zip(*np.triu_indices(7, 1), strict=True), choices[0], strict=False) if bit}
    assert edges == {(0, 1), (1, 6)}


def test_it_is_a_space_for_controllers() -> None:
    assert isinstance(SPACE, ControlledSpace)
    assert SPACE.decisions() == (2,) * 21 + (3,) * 5
