"""Heat maps on disk, and where they land on the cell."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from allreview.cells.decoding import cell_pixels
from allreview.errors import UserError
from allreview.recipe import Preparation
from allreview.review.saliency.overlays import (
    METHODS,
    load_heatmap,
    missing,
    overlay,
    picture,
    save_heatmap,
    share_on_cell,
    source_heat,
    view_box,
)
from allreview.settings import current_settings

VIOLET = (90, 40, 110)


def _cell(size: tuple[int, int] = (450, 450), radius: int = 100) -> Image.Image:
    """A violet disc in the middle of a black frame."""
    width, height = size
    y, x = np.mgrid[:height, :width]
    inside = (x - width / 2) ** 2 + (y - height / 2) ** 2 < radius**2
    return Image.fromarray(np.where(inside[..., None], VIOLET, (0, 0, 0)).astype(np.uint8))


def test_a_heat_map_comes_back_as_it_was() -> None:
    settings = current_settings()
    heat = np.linspace(0, 1, 224 * 224, dtype=np.float32).reshape(224, 224)
    save_heatmap(settings, 3, "gradcam", "ab" * 32, heat)
    path = settings.run_folder(3) / "saliency" / "gradcam" / f"{'ab' * 32}.png"
    with Image.open(path) as stored:
        assert (stored.mode, stored.size) == ("L", (224, 224))
    back = load_heatmap(settings, 3, "gradcam", "ab" * 32)
    assert back is not None
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, heat, atol=0.5 / 255 + 1e-6)


def test_what_is_out_of_range_is_clipped() -> None:
    settings = current_settings()
    save_heatmap(settings, 1, "gradcam", "a", np.array([[-1, np.nan], [0.5, 7]], dtype=np.float32))
    back = load_heatmap(settings, 1, "gradcam", "a")
    assert back is not None
    np.testing.assert_allclose(back, [[0, 0], [0.5, 1]], atol=0.003)


def test_missing_and_damaged_heat_maps() -> None:
    settings = current_settings()
    assert load_heatmap(settings, 1, "scorecam", "b") is None
    assert missing(settings, 1, "scorecam", ["a", "b"]) == ["a", "b"]
    save_heatmap(settings, 1, "scorecam", "b", np.zeros((4, 4), dtype=np.float32))
    assert missing(settings, 1, "scorecam", ["c", "b", "a"]) == ["c", "a"]
    assert missing(settings, 1, "gradcam", ["b"]) == ["b"]
    path = settings.run_folder(1) / "saliency" / "scorecam" / "b.png"
    path.write_bytes(path.read_bytes()[:30])
    assert load_heatmap(settings, 1, "scorecam", "b") is None


def test_a_failed_write_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = current_settings()
    heat = np.ones((4, 4), dtype=np.float32)
    save_heatmap(settings, 1, "gradcam", "a", heat)

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space"):
        save_heatmap(settings, 1, "gradcam", "a", heat * 0)
    folder = settings.run_folder(1) / "saliency" / "gradcam"
    assert [path.name for path in folder.iterdir()] == ["a.png"]
    kept = load_heatmap(settings, 1, "gradcam", "a")
    assert kept is not None
    assert kept.min() == 1


def test_an_unknown_method_names_the_known_ones() -> None:
    with pytest.raises(UserError, match="gradcam, gradcam_plus_plus, scorecam, smoothgrad"):
        load_heatmap(current_settings(), 1, "../../etc", "a")


@pytest.mark.parametrize("crop", [None, 100, 300, 600])
@pytest.mark.parametrize("size", [(450, 450), (360, 363), (400, 200), (201, 400)])
def test_heat_lands_where_the_network_saw_the_spot(size: tuple[int, int], crop: int | None) -> None:
    width, height = size
    spot = (width // 2 + 20, height // 2 - 30)
    source = np.zeros((height, width, 3), dtype=np.uint8)
    source[spot[1] - 6 : spot[1] + 7, spot[0] - 6 : spot[0] + 7] = 255
    seen = cell_pixels(Image.fromarray(source), Preparation(224, crop))[..., 0].astype(np.float32) / 255
    heat = source_heat(seen, size, crop)
    assert heat.shape == (height, width)
    y, x = np.mgrid[:height, :width]
    centre = (x * heat).sum() / heat.sum(), (y * heat).sum() / heat.sum()
    assert centre == pytest.approx(spot, abs=0.6)


def test_outside_the_crop_there_is_no_heat() -> None:
    heat = source_heat(np.ones((32, 32), dtype=np.float32), (450, 450), 300)
    assert heat[75:375, 75:375].min() == 1
    assert heat.sum() == 300 * 300


def test_background_stays_black_and_cold_regions_stay_as_they_are() -> None:
    cell = _cell()
    heat = np.zeros((224, 224), dtype=np.float32)
    heat[:, 112:] = 1
    before, after = np.asarray(cell), np.asarray(overlay(cell, heat, crop=None, opacity=0.7))
    background = ~before.any(axis=2)
    assert not after[background].any()
    assert (after[:, :220] == before[:, :220]).all()
    hot = after[225, 300].astype(int)
    assert hot[0] > VIOLET[0] + 80
    assert hot[1] > VIOLET[1] + 80


def test_opacity_goes_from_nothing_to_all() -> None:
    cell = _cell()
    heat = np.ones((224, 224), dtype=np.float32)
    assert np.array_equal(np.asarray(overlay(cell, heat, crop=None, opacity=0)), np.asarray(cell))
    change = [
        np.abs(
            np.asarray(overlay(cell, heat, crop=None, opacity=opacity)).astype(int) - np.asarray(cell)
        ).sum()
        for opacity in (0.2, 0.6, 1.0)
    ]
    assert change[0] < change[1] < change[2]
    assert tuple(np.asarray(overlay(cell, heat, crop=None, opacity=1.0))[225, 225]) == (0xF7, 0xD1, 0x3D)


def test_the_source_image_is_not_changed() -> None:
    cell = _cell()
    before = cell.tobytes()
    overlay(cell, np.ones((8, 8), dtype=np.float32), crop=300, opacity=1)
    picture(cell, 100)
    assert cell.tobytes() == before


def test_heat_beside_the_cell_is_told_and_not_blown_up() -> None:
    cell = _cell()
    beside = np.zeros((224, 224), dtype=np.float32)
    beside[:20] = 1
    beside[112, 112] = 0.02
    assert share_on_cell(cell, beside, crop=None) < 0.01
    assert np.array_equal(np.asarray(overlay(cell, beside, crop=None, opacity=1)), np.asarray(cell))
    inside = np.zeros((224, 224), dtype=np.float32)
    inside[100:120, 100:120] = 1
    assert share_on_cell(cell, inside, crop=None) == pytest.approx(1)
    assert share_on_cell(cell, beside * 0, crop=None) == 0


def test_weak_heat_on_the_cell_is_stretched_to_be_seen() -> None:
    cell = _cell()
    heat = np.zeros((224, 224), dtype=np.float32)
    heat[:10] = 1
    heat[90:130, 90:130] = 0.3
    after = np.asarray(overlay(cell, heat, crop=None, opacity=0.8))[225, 225]
    assert after[0] > VIOLET[0] + 80


def test_an_all_black_image_and_a_full_background() -> None:
    heat = np.ones((16, 16), dtype=np.float32)
    black = Image.new("RGB", (60, 40))
    assert not np.asarray(overlay(black, heat, crop=None, opacity=1)).any()
    full = Image.new("RGB", (60, 40), VIOLET)
    assert (np.asarray(overlay(full, heat, crop=None, opacity=1)) == (0xF7, 0xD1, 0x3D)).all()


def test_pictures_are_lossless_and_no_larger_than_asked() -> None:
    cell = _cell((450, 300))
    with Image.open(io.BytesIO(picture(cell, 450))) as shown:
        assert np.array_equal(np.asarray(shown), np.asarray(cell))
    with Image.open(io.BytesIO(picture(cell, 200))) as shown:
        assert (shown.format, shown.size) == ("PNG", (200, 133))


def test_real_cells_keep_their_frame(cnmc: Path) -> None:
    heat = np.random.default_rng(0).random((224, 224), dtype=np.float32)
    for path in sorted(cnmc.rglob("*.bmp"))[::60]:
        cell = Image.open(path).convert("RGB")
        after = np.asarray(overlay(cell, heat, crop=300, opacity=1))
        frame = ~np.asarray(cell).any(axis=2)
        assert frame.mean() > 0.5
        assert after[frame].mean() < 0.1
        assert (after != np.asarray(cell)).any()


def test_every_method_has_a_name_for_people() -> None:
    assert set(METHODS) == {"gradcam", "gradcam_plus_plus", "scorecam", "smoothgrad"}
    assert all(METHODS.values())


def test_every_cell_is_magnified_alike_and_none_is_cut() -> None:
    assert view_box(_cell(radius=100), 1.5) == view_box(_cell(radius=40), 1.5) == (75, 75, 375, 375)
    assert view_box(_cell(radius=160), 1.5) == (0, 0, 450, 450)
    assert view_box(_cell(radius=100), 1.0) == (0, 0, 450, 450)
    assert view_box(Image.new("RGB", (360, 363), VIOLET), 2.0) == (0, 0, 360, 363)
    assert view_box(Image.new("RGB", (60, 40)), 2.0) == (0, 0, 60, 40)
