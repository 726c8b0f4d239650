"""Splits, generated images, and folders of the user's with all that can be wrong in them."""

import numpy as np
import pytest
import torch
from PIL import Image

from bo_surrogates.errors import InputError
from problems.documented.data import DATA_SETS, load_data
from problems.documented.generated_images import colour_shifts, gratings


@pytest.fixture(scope="module")
def digits():
    return load_data("digits")


def test_the_split_is_stratified_and_complete(digits):
    counts = [y.bincount() for y in (digits.train_y, digits.validation_y, digits.test_y)]
    total = sum(counts)
    assert total.sum() == 1797
    for count, share in zip(counts, (0.6, 0.2, 0.2), strict=True):
        assert (count / total - share).abs().max() < 0.01
    assert digits.shape == (1, 8, 8)
    assert digits.classes == 10


def test_no_image_is_in_two_parts(digits):
    # The set holds no duplicates, so a shared image would be a leak.
    images = torch.cat([digits.train_x, digits.validation_x, digits.test_x]).flatten(1)
    assert len(images.unique(dim=0)) == 1797


@pytest.mark.parametrize("name", [n for n, d in DATA_SETS.items() if not d.needs_folder])
def test_training_inputs_have_mean_0_and_variance_1_by_channel_or_feature(name):
    x = load_data(name).train_x
    rows = x.transpose(0, 1).flatten(1)
    assert rows.mean(dim=1).abs().max() < 1e-4
    assert (rows.var(dim=1) - 1).abs().max() < 1e-3
    assert (x.ndim == 4) == DATA_SETS[name].images


def test_the_split_is_a_function_of_its_seed_and_the_digest_tells(digits):
    load_data.cache_clear()
    assert torch.equal(load_data("digits").train_x, digits.train_x)
    other = load_data("digits", seed=1)
    assert not torch.equal(other.train_x, digits.train_x)
    assert load_data("digits").digest() == digits.digest() != other.digest()


def test_a_limit_keeps_all_classes_and_leaves_the_other_parts_alone(digits):
    few = load_data("digits", limit=100)
    assert len(few.train_y) == 100
    assert few.train_y.bincount().min() >= 9
    assert torch.equal(few.test_y, digits.test_y)


def test_an_unknown_data_set_and_shares_that_leave_nothing_are_refused():
    with pytest.raises(InputError, match="unknown data set 'digit'; did you mean 'digits'"):
        load_data("digit")
    with pytest.raises(InputError, match="train_fraction"):
        load_data("digits", train_fraction=0.001)
    with pytest.raises(InputError, match="read from a folder: say which"):
        load_data("cifar10")
    with pytest.raises(InputError, match="leave out '/tmp'"):
        load_data("digits", "/tmp")


# ---- generated ----------------------------------------------------------------------------------
def test_the_spectrum_of_gratings_peaks_at_their_orientation_and_period():
    x, y = gratings(400, seed=0)
    power = torch.fft.fft2(x[:, 0]).abs().square()
    frequency = torch.fft.fftfreq(32)
    for label in range(8):
        mean = power[y == label].mean(dim=0)
        mean[0, 0] = 0
        row, column = divmod(int(mean.argmax()), 32)
        fy, fx = frequency[row].item(), frequency[column].item()
        assert np.hypot(fx, fy) == pytest.approx(1 / (5.0, 3.4)[label % 2], rel=0.2)
        angle = np.degrees(np.arctan2(fy, fx)) % 180
        assert min(abs(angle - 45 * (label // 2)), 180 - abs(angle - 45 * (label // 2))) < 15


def test_the_class_of_a_colour_image_is_how_its_channels_are_shifted():
    x, y = colour_shifts(400, seed=0)
    moves = {0: (0, 1), 1: (1, 0), 2: (0, -1), 3: (-1, 0)}
    for label in range(4):
        one = x[y == label]
        match = {
            other: (one[:, 1] * one[:, 0].roll(move, (1, 2)))[:, 2:-2, 2:-2].mean().item()
            for other, move in moves.items()
        }
        assert max(match, key=match.get) == label


# ---- files --------------------------------------------------------------------------------------
def write_cifar(folder, name, labels, classes, count):
    draw = np.random.default_rng(len(name))
    records = draw.integers(0, 256, (count, labels + 3072), dtype=np.uint8)
    records[:, :labels] = (np.arange(count) % classes)[:, None]
    folder.mkdir(parents=True, exist_ok=True)
    records.tofile(folder / name)
    return records


def test_cifar_10_in_its_binary_version(tmp_path):
    place = tmp_path / "cifar-10-batches-bin"
    batches = [write_cifar(place, f"data_batch_{i}.bin", 1, 10, 40) for i in range(1, 6)]
    test = write_cifar(place, "test_batch.bin", 1, 10, 20)
    data = load_data("cifar10", str(tmp_path), train_fraction=0.5)
    assert data.shape == (3, 32, 32)
    assert [len(y) for y in (data.train_y, data.validation_y, data.test_y)] == [100, 100, 20]
    pixels = test[:, 1:].reshape(20, 3, 32, 32).astype(float)
    standardized = (pixels - pixels.mean()) / pixels.std()
    assert np.corrcoef(standardized.ravel(), data.test_x.numpy().ravel())[0, 1] > 0.99
    assert torch.equal(data.test_y, torch.arange(20) % 10)
    assert len(batches) == 5


def test_cifar_100_by_its_fine_labels(tmp_path):
    train = write_cifar(tmp_path, "train.bin", 2, 100, 400)
    train[:, 0] = 7  # the coarse label, which is not asked for
    train.tofile(tmp_path / "train.bin")
    write_cifar(tmp_path, "test.bin", 2, 100, 100)
    data = load_data("cifar100", str(tmp_path), train_fraction=0.5)
    assert data.classes == 100
    assert data.train_y.bincount().tolist() == [2] * 100


def write_pictures(folder, count=6, size=(5, 4), mode="L"):
    draw = np.random.default_rng(0)
    for name in ("cats", "dogs"):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], 3)
            pixels = draw.integers(0, 256, shape, dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3)])
def test_a_folder_a_class(tmp_path, mode, channels):
    write_pictures(tmp_path, mode=mode)
    data = load_data("folder", str(tmp_path), train_fraction=0.5)
    assert data.shape == (channels, 4, 5)
    assert data.classes == 2
    assert len(data.train_y) == 6


def test_folders_of_training_and_test(tmp_path):
    write_pictures(tmp_path / "train")
    write_pictures(tmp_path / "test", count=2)
    data = load_data("folder", str(tmp_path), train_fraction=0.5)
    assert [len(y) for y in (data.train_y, data.validation_y, data.test_y)] == [6, 6, 4]


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "folder"])
def test_a_folder_that_is_missing_or_empty_or_a_file_is_refused(tmp_path, name):
    with pytest.raises(InputError, match="no such folder"):
        load_data(name, str(tmp_path / "none"))
    with pytest.raises(InputError, match="is empty"):
        load_data(name, str(tmp_path))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        load_data(name, str(tmp_path / "file"))


def test_the_pickled_version_of_cifar_is_refused_with_what_to_do(tmp_path):
    place = tmp_path / "cifar-10-batches-py"
    place.mkdir()
    (place / "data_batch_1").write_bytes(b"pickle")
    with pytest.raises(InputError, match=r"pickles.*cifar-10-binary\.tar\.gz"):
        load_data("cifar10", str(tmp_path))


def test_cifar_files_that_are_cut_or_missing_or_of_another_set_are_refused_by_name(tmp_path):
    (tmp_path / "other.txt").write_text("")
    with pytest.raises(InputError, match=r"no train\.bin"):
        load_data("cifar100", str(tmp_path))
    write_cifar(tmp_path, "train.bin", 2, 100, 200)
    with pytest.raises(InputError, match=r"test\.bin: cannot be read"):
        load_data("cifar100", str(tmp_path))
    (tmp_path / "test.bin").write_bytes(b"0" * 100)
    with pytest.raises(InputError, match="expected records of 3074 bytes"):
        load_data("cifar100", str(tmp_path))
    write_cifar(tmp_path, "test.bin", 2, 200, 200)
    with pytest.raises(InputError, match="a label is 199, expected 0 to 99"):
        load_data("cifar100", str(tmp_path))


def test_pictures_that_cannot_be_used_are_refused_by_name(tmp_path):
    write_pictures(tmp_path)
    odd = tmp_path / "dogs" / "odd.png"
    Image.new("L", (9, 9)).save(odd)
    with pytest.raises(InputError, match=r"odd\.png: has .*\(1, 9, 9\).*\(1, 4, 5\)"):
        load_data("folder", str(tmp_path))
    odd.write_text("not a picture")
    with pytest.raises(InputError, match=r"odd\.png: not an image"):
        load_data("folder", str(tmp_path))
    odd.unlink()
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="class 'empty' holds no image"):
        load_data("folder", str(tmp_path))
