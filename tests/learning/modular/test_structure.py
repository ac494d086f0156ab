"""Choices, names and blocks of a modular model, and what is refused."""

import numpy as np
import pytest

from learning.modular.structure import NOISE, SELECTOR, SHARED, blocks_of, cut, group, masks, objection, owners, paste
from schemas.blocks import BLOCK, STATISTICS, Tensor, layout
from schemas.modules import Cost, Structure, complete
from schemas.sets import bitmap

MODULE = Cost(10, 8, 5, 100)
STRUCTURE = Structure(Cost(7, 7, 3, 50), ((MODULE, MODULE, Cost()), (MODULE, Cost(1, 1, 1, 1), Cost())))


def tensors(*groups: tuple[str, int]) -> tuple[Tensor, ...]:
    return tuple(Tensor(f"t{i}", (size,), name) for i, (name, size) in enumerate(groups))


# Two layers of two shrunk modules; one of them longer than a block; the shared part and a module with statistics.
LAYOUT = layout(
    tensors(
        (SHARED, 5),
        (SHARED, 2),
        (STATISTICS, 3),
        (SELECTOR, 4),
        (NOISE, 4),
        ("0/0", BLOCK),
        ("0/0", 6),
        (STATISTICS, 2),
        ("0/1", 8),
        (STATISTICS, 2),
        ("1/0", 3),
        ("1/1", 3),
    )
)


def test_costs_add_up_and_are_what_the_formulas_say():
    cost = STRUCTURE.cost(((0, 2), (0, 1, 2)))
    assert cost == Cost(7 + 10 + 10 + 1, 7 + 8 + 8 + 1, 3 + 5 + 5 + 1, 50 + 100 + 100 + 1)
    assert cost.bytes == 4 * 28
    assert cost.memory(16) == 4 * (3 * 24 + 16 * 14)
    assert cost.training_macs == 3 * 251
    assert STRUCTURE.cost(STRUCTURE.whole) == STRUCTURE.cost(((0, 1, 2), (0, 1, 2)))


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        (((0, 2),), "a choice of 1 layers for a model of 2"),
        (((0, 2), (2, 0)), "layer 1 has modules 0 to 2; chosen are .* ascending"),
        (((0, 2), (0, 0, 2)), "each once"),
        (((0, 2), (0, 3)), "layer 1 has modules 0 to 2"),
        (((0, 1), (0, 2)), "of layer 0 a shrunk module and the residual one, 2"),
        (((0, 2), (2,)), "of layer 1 a shrunk module"),
    ],
)
def test_a_choice_that_cannot_be_is_said_in_words(choice, words):
    with pytest.raises(ValueError, match=words):
        complete(STRUCTURE, choice)


def test_a_structure_has_layers_of_two_modules_at_least():
    with pytest.raises(ValueError, match="a layer a shrunk module and the residual one"):
        Structure(Cost(), ((Cost(),),))


def test_each_block_has_one_owner_and_statistics_are_whose_weights_stand_before_them():
    assert owners(LAYOUT) == (
        *[SHARED] * 2,  # weights, statistics
        SELECTOR,
        NOISE,
        *["0/0"] * 3,  # a whole block, six values, statistics
        *["0/1"] * 2,
        "1/0",
        "1/1",
    )
    assert LAYOUT.plain == {1, 6, 8}  # the server optimiser leaves them alone


def test_control_an_owner_in_two_places_or_two_owners_of_a_block_are_found():
    with pytest.raises(ValueError, match="do not stand together"):
        owners(layout(tensors((SHARED, 2), ("0/0", 2), (SHARED, 2))))
    wrong = layout(tensors((SHARED, 4)))
    with pytest.raises(ValueError, match="block 0 holds values of '' and of what comes after"):
        owners(type(wrong)(tensors((SHARED, 2), ("0/0", 2)), (4,)))


def test_a_device_fetches_just_its_modules_and_never_the_noise():
    assert blocks_of(LAYOUT, ((1, 2), (0, 2))) == (0, 1, 2, 7, 8, 9)
    assert blocks_of(LAYOUT, ((1, 2), (0, 2)), selector=False) == (0, 1, 7, 8, 9)
    assert blocks_of(LAYOUT, ((0, 1, 2), (0, 1, 2))) == (0, 1, 2, 4, 5, 6, 7, 8, 9, 10)
    assert group(1, 0) == "1/0"


@pytest.mark.parametrize(
    ("choice", "words"),
    [(((0, 2),), "a choice of 1 layers for a model of 2"), (((0, 2), (3,)), "the model has no modules 1/3")],
)
def test_blocks_of_modules_that_are_not_there_are_refused(choice, words):
    with pytest.raises(ValueError, match=words):
        blocks_of(LAYOUT, choice)


def test_what_is_cut_and_pasted_is_those_blocks_alone():
    vector = np.arange(sum(LAYOUT.sizes), dtype=np.float32)
    blocks = blocks_of(LAYOUT, ((1, 2), (0, 2)))
    part = cut(vector, LAYOUT, blocks)
    assert len(part) == 7 + 3 + 4 + 8 + 2 + 3
    back = paste(vector, LAYOUT, blocks, part + 0.5)
    assert np.array_equal(cut(back, LAYOUT, blocks), part + 0.5)
    rest = [b for b in range(len(LAYOUT.sizes)) if b not in blocks]
    assert np.array_equal(cut(back, LAYOUT, rest), cut(vector, LAYOUT, rest))
    assert np.array_equal(vector, np.arange(len(vector)))
    with pytest.raises(ValueError, match=r"6 blocks have 27 values, the part has shape \(26,\)"):
        paste(vector, LAYOUT, blocks, part[1:])


# ------------------------------------------------------------------ sets of blocks


def test_modules_go_whole_and_the_shared_part_with_all_of_them():
    mine, n = masks(LAYOUT), len(LAYOUT.sizes)
    choice = blocks_of(LAYOUT, ((0, 2), (1, 2)), selector=False)
    assert objection(mine, bitmap(choice, n)) == ""
    assert objection(mine, b"") == ""
    long = [b for b, name in enumerate(owners(LAYOUT)) if name == "0/0"]
    without = objection(mine, bitmap(set(choice) - {long[0]}, n))
    assert (
        without == "module 0/0 has 3 blocks, and only 2 of them are named: it goes whole"
    )  # its statistics are the third
    assert "the shared part" in objection(mine, bitmap(long, n))


def test_a_model_without_modules_may_be_cut_anywhere():
    plain = layout(tensors((SHARED, BLOCK + 1), (STATISTICS, 3), (SHARED, 2)))
    assert objection(masks(plain), bitmap([1], len(plain.sizes))) == ""
