"""Names of clusters: phrases that tell one from another."""

import numpy as np

from kinoswarm_model.data.labels import cluster_labels
from kinoswarm_protocol.limits import MAX_NAME


def test_a_label_is_made_of_phrases_that_the_cluster_has_and_others_lack() -> None:
    captions = [
        "the camera turns left in a hall of grey stone",
        "the camera moves forward in a hall of grey stone",
        "the camera turns right in a garden of green hedges",
    ]
    labels = cluster_labels(captions, np.array([0, 0, 1]), 2)
    assert labels == ["grey stone, hall", "green hedges, garden"]


def test_a_cluster_without_telling_words_has_its_number() -> None:
    assert cluster_labels(["the camera", "of"], np.array([0, 1]), 2) == ["cluster 0", "cluster 1"]


def test_words_of_any_language_count_and_labels_are_never_too_long() -> None:
    captions = ["кошка спит", "wort" * 100, "猫"]
    labels = cluster_labels(captions, np.array([0, 1, 2]), 3)
    assert labels[0] == "кошка спит"
    assert all(0 < len(label) <= MAX_NAME for label in labels)
