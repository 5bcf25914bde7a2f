import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from bonas_core.image_training.augmentation import Augmentation

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


def test_resized_crops_have_the_size_of_the_whole_and_lie_within_it() -> None:
    ramp = torch.arange(16.0).expand(1, 3, 16, 16)  # every pixel says in which column it was
    crops = Augmentation(resized_crop=0.08).moved(ramp.expand(3000, -1, -1, -1), seeded())
    assert crops.shape == (3000, 3, 16, 16)
    assert torch.allclose(crops[:, :, :1].expand_as(crops), crops, atol=1e-4)
    first, last = crops[:, 0, 0, 0], crops[:, 0, 0, -1]
    assert first.min() >= 0
    assert last.max() <= 15 + 1e-4
    wide = crops[:, 0, 0, 8] - crops[:, 0, 0, 7]  # share of the width
    assert wide.min() > (0.08 * 3 / 4) ** 0.5 - 0.01
    assert wide.max() <= 1 + 1e-4
    assert (wide**2).mean().item() == pytest.approx(0.54, abs=0.03)  # the area is uniform, the ratio is 1 on average
    middle = ((first + last) / 2).mean().item()
    assert middle == pytest.approx(7.5, abs=0.2)
    whole = Augmentation(resized_crop=1.0).moved(ramp, seeded())
    assert whole.shape == ramp.shape


def test_colours_are_changed_within_their_limits() -> None:
    pixels = PIXELS.float()
    grey = (pixels * torch.tensor([0.299, 0.587, 0.114]).reshape(1, 3, 1, 1)).sum(dim=1, keepdim=True)
    brighter = Augmentation(brightness=0.4).moved(PIXELS, seeded())
    factor = (brighter / pixels)[brighter < 255]
    assert 0.6 - 1e-5 <= factor.min() < 0.7
    assert 1.3 < factor.max() <= 1.4 + 1e-5
    flat = Augmentation(contrast=1.0).moved(grey.expand(-1, 3, -1, -1), seeded())
    assert torch.allclose(flat[:, 0], flat[:, 1], atol=1e-3)  # what is grey stays grey
    assert (flat.std(dim=(1, 2, 3)) / grey.std(dim=(1, 2, 3))).min() < 0.2
    for changed in (Augmentation(saturation=0.2), Augmentation(hue=0.1)):
        calm = 110 + PIXELS.float() / 16  # so that nothing is cut off
        moved = changed.moved(calm, seeded())
        weights = torch.tensor([0.299, 0.587, 0.114]).reshape(1, 3, 1, 1)
        assert torch.allclose((moved * weights).sum(dim=1), (calm * weights).sum(dim=1), atol=0.01)
        assert (moved - calm).abs().max() > 0.5


def test_members_of_a_team_change_their_rows_as_one_process_changes_the_batch() -> None:
    changes = Augmentation(resized_crop=0.08, flip=True, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.2)
    whole = changes.moved(PIXELS, seeded())
    rows = slice(16, 40)
    assert torch.allclose(changes.moved(PIXELS[rows], seeded(), len(PIXELS), rows), whole[rows], atol=1e-3)


def test_what_was_added_later_is_part_of_a_recipe_where_it_is_used() -> None:
    assert Augmentation(crop=4).recipe == {"crop": 4, "flip": False, "cutout": 0}
    assert Augmentation(hue=0.1).recipe == {"crop": 0, "flip": False, "cutout": 0, "hue": 0.1}
