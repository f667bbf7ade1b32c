import base64

import cv2
import numpy as np
import pandas as pd

from pipeline.report.figures import curves_png, data_uri, enlarge, jpeg, mel_image, mel_sites, png, show_kept


def decode(data):
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def test_png_keeps_every_pixel_and_fits_into_an_address():
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    np.testing.assert_array_equal(decode(png(image)), image)
    uri = data_uri(png(image))
    assert base64.b64decode(uri.removeprefix("data:image/png;base64,")) == png(image)


def test_jpeg_keeps_colours_and_is_named_as_one():
    image = np.full((16, 24, 3), (200, 40, 90), np.uint8)
    assert np.abs(decode(jpeg(image)).astype(int) - image).max() <= 4
    assert base64.b64decode(data_uri(jpeg(image)).removeprefix("data:image/jpeg;base64,")) == jpeg(image)


def test_enlarge_repeats_pixels():
    small = np.arange(4, dtype=np.uint8).reshape(2, 2, 1)
    assert enlarge(small, 2)[:, :, 0].tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]


def test_mel_and_its_sites_lie_on_each_other():
    # One loud point in the second chunk: band 100, frame 5.
    chunks = np.zeros((2, 1, 128, 32), np.float32)
    chunks[1, 0, 96:104, 4:8] = 9.0
    image = mel_image(chunks)
    assert image.shape == (128, 64, 3)
    brightest = image.sum(2) == image.sum(2).max()
    rows, columns = np.nonzero(brightest)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (127 - 103, 127 - 96, 36, 39)
    kept = np.zeros((2, 64, 16), bool)
    kept[1, 48:52, 2:4] = True
    shown = show_kept(image, mel_sites(kept))
    np.testing.assert_array_equal(shown[brightest], image[brightest])
    assert (shown[~brightest] <= image[~brightest]).all()
    assert mel_image(chunks[:0]).shape == (128, 32, 3)


def test_dropped_sites_are_dark():
    image = np.full((4, 4, 3), 200, np.uint8)
    shown = show_kept(image, np.array([[True, False], [False, True]]))
    assert shown[:2, :2].min() == 200
    assert shown[:2, 2:].max() == 50


def test_curves_are_drawn():
    log = pd.DataFrame({"epoch": [1, 2], "train_loss": [1.0, 0.5], "valid_loss": [1.1, 0.7], "valid_f1": [0.2, 0.6]})
    empty = decode(curves_png({}, "f1"))
    drawn = decode(curves_png({"fe2e": log, "mesm": log.assign(valid_f1=0.1)}, "f1"))
    assert drawn.shape == empty.shape
    assert (drawn != empty).any()
    wide = decode(curves_png({"fe2e": log.assign(valid_mae=[2.5, 1.5])}, "mae"))
    assert wide.shape == empty.shape
