"""What is known about each class: the features its table row starts from."""

import torch
from phones import PHONES, PITCH_CLASSES, SEMANTIC_VOCAB, THIRDS


def semantic_features() -> torch.Tensor:
    """(classes, F): phone, phone and third, third, pitch class, each one-hot."""
    ids = torch.arange(SEMANTIC_VOCAB)
    third = ids // PITCH_CLASSES
    parts = ((third // THIRDS, len(PHONES)), (third, len(PHONES) * THIRDS), (third % THIRDS, THIRDS))
    parts = (*parts, (ids % PITCH_CLASSES, PITCH_CLASSES))
    return torch.cat([torch.nn.functional.one_hot(index, size).float() for index, size in parts], dim=1)


def code_features(embed: torch.Tensor) -> torch.Tensor:
    """Codebook (codes, width) -> (codes, width + 2): the vectors at unit scale, their squared length, and one."""
    vectors = embed / embed.std()
    length = vectors.square().sum(1, keepdim=True)
    length = (length - length.mean()) / length.std()
    return torch.cat([vectors, length, torch.ones_like(length)], dim=1)


def one_hot_features(count: int) -> torch.Tensor:
    """Classes of which nothing is known."""
    return torch.eye(count)
