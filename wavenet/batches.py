"""What stands between a data set of batches and the training loop."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from wavenet.errors import UserError
from wavenet.stopwatch import part


class Guarded(Dataset[Any]):
    """Hands a user's mistake (an unreadable recording) to the loop as an item: a worker would make it a traceback."""

    def __init__(self, batches: Dataset[Any]) -> None:
        self.batches = batches

    def __getitem__(self, step: int) -> Any:
        try:
            with part("data"):
                return self.batches[step]
        except UserError as error:
            return error


def moved(batch: Any, device: torch.device) -> Any:
    """The same batch on `device`: its tensors, in tuples, lists and dicts of any depth."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {name: moved(item, device) for name, item in batch.items()}
    if isinstance(batch, (tuple, list)):
        items = [moved(item, device) for item in batch]
        return type(batch)(*items) if hasattr(batch, "_fields") else type(batch)(items)
    return batch
