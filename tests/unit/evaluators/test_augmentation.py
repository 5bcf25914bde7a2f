import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from bonas_core.evaluators.augmentation import Augmentation

PIXELS = torch.randint(1, 256, (64, 3, 6, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_without_settings_images_stay_as_they_are() -> None:
    nothing = Augmentation()
    assert not nothing
    assert nothing.moved(PIXELS, seeded()) is PIXELS
    assert nothing.cut_out(PIXELS, seeded()) is PIXELS


@given(st.integers(0, 2**32 - 1), st.integers(0, 4), st.booleans())
@hypothesis_settings(max_examples=30)
def test_a_moved_image_is_one_of_the_cuts_of_its_padded_self(seed: int, crop: int, flip: bool) -> None:
    images = PIXELS[:6]
    moved = Augmentation(crop=crop, flip=flip).moved(images, seeded(seed))
    assert moved.dtype == torch.uint8
    assert moved.shape == images.shape
    padded = torch.nn.functional.pad(images, (crop,) * 4)
    for image, border in zip(moved, padded, strict=True):
        cuts = [border[:, y : y + 6, x : x + 5] for y in range(2 * crop + 1) for x in range(2 * crop + 1)]
        cuts += [cut.flip(2) for cut in cuts] if flip else []
        assert any(torch.equal(image, cut) for cut in cuts)


def test_half_the_images_are_mirrored_and_every_cut_occurs() -> None:
    many = PIXELS[:1].expand(2000, -1, -1, -1)
    mirrored = (Augmentation(flip=True).moved(many, seeded()) == PIXELS[0].flip(2)).all(dim=(1, 2, 3))
    assert mirrored.float().mean().item() == pytest.approx(0.5, abs=0.05)
    cuts = Augmentation(crop=1).moved(many, seeded()).flatten(1).unique(dim=0)
    assert len(cuts) == 9


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_a_square_around_every_pixel_is_cut_out_and_cut_off_at_the_edges(size: int) -> None:
    ones = torch.ones(3000, 2, 6, 5)
    cut = Augmentation(cutout=size).cut_out(ones, seeded())
    assert torch.equal(cut[:, 0], cut[:, 1])
    holes = {tuple(map(tuple, (hole == 0).nonzero().tolist())) for hole in cut[:, 0].unique(dim=0)}
    expected = set()
    for y in range(6):
        for x in range(5):
            rows = range(max(0, y - size // 2), min(6, y - size // 2 + size))
            columns = range(max(0, x - size // 2), min(5, x - size // 2 + size))
            expected.add(tuple((row, column) for row in rows for column in columns))
    assert holes == expected


def test_changes_follow_from_the_generator_alone() -> None:
    change = Augmentation(crop=2, flip=True, cutout=3)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = change.cut_out(change.moved(PIXELS, seeded(5)).float(), seeded(6))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(change.cut_out(change.moved(PIXELS, seeded(5)).float(), seeded(6)), first)
    assert not torch.equal(change.moved(PIXELS, seeded(7)), change.moved(PIXELS, seeded(5)))


def test_a_part_of_a_batch_is_changed_as_it_is_in_the_whole() -> None:
    augmentation = Augmentation(crop=2, flip=True, cutout=3)

    def changed(rows: slice) -> torch.Tensor:
        generator = seeded(4)
        moved = augmentation.moved(PIXELS[rows], generator, len(PIXELS), rows)
        return augmentation.cut_out(moved.float(), generator, len(PIXELS), rows)

    generator = seeded(4)
    whole = augmentation.cut_out(augmentation.moved(PIXELS, generator).float(), generator)
    parts = [changed(slice(begin, begin + 16)) for begin in range(0, len(PIXELS), 16)]
    assert torch.equal(torch.cat(parts), whole)
