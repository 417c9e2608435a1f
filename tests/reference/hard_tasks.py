"""The selection of hard classes by hand (Sun et al. 2019 [70], section 4.3)."""

from torch import Tensor

from omnitraining.batches import Episode


def failure_classes(outputs: Tensor, episode: Episode) -> list[int]:
    """The class of training with the lowest accuracy of each task; of several, the first."""
    found = []
    for answers, labels, classes in zip(outputs, episode.query_y, episode.classes, strict=True):
        accuracies = []
        for label in range(episode.ways):
            own = [a.argmax().item() for a, y in zip(answers, labels, strict=True) if y == label]
            accuracies.append(sum(answer == label for answer in own) / len(own))
        found.append(classes[accuracies.index(min(accuracies))].item())
    return found
