"""What classifiers hold in memory, known before any work: inputs are not streamed.

Batches of an epoch are drawn from all training showers, so the inputs of both classes are kept in
float32, and once more while they are joined. Data set 3 with `--full` (2 x 100,000 showers of
40,501 inputs) is refused on most machines instead of being killed after an hour.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from calo_train.errors import MachineError
from calo_train.evaluation.classifiers.catalogue import is_multi
from calo_train.evaluation.classifiers.inputs import num_inputs
from calo_train.machine import free_host_memory
from calo_train.quantities import format_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from calo_train.evaluation.classifiers.protocol import Protocol
    from calo_train.evaluation.deposits import Grid

_BYTES = 2 * 4  # float32, as classes and joined


def require_memory(
    protocols: Sequence[Protocol], grid: Grid, num_reference: int, sample_sizes: Sequence[int]
) -> None:
    """Raise MachineError when the inputs of a classifier do not fit into free memory."""
    free = free_host_memory()
    for protocol in protocols:
        num_classes = len(sample_sizes) if is_multi(protocol) else 2
        if num_classes < 2:
            continue
        number = _showers_per_class(protocol, num_reference, sample_sizes)
        inputs = num_inputs(protocol.inputs, grid)
        needed = _BYTES * num_classes * number * inputs
        if needed > free:
            fitting = free // (_BYTES * num_classes * inputs)
            raise MachineError(
                f"classifier {protocol.name} needs {format_size(needed)} for {num_classes} x "
                f"{number} showers of {inputs} inputs; {format_size(free)} are free",
                where=f"--classifier {protocol.name}, {grid.geometry.describe()}",
                do=f"take fewer showers with -n {max(fitting, 1)}, leave it out with --classifier "
                "high, or use a machine with more memory",
            )


def _showers_per_class(protocol: Protocol, num_reference: int, sample_sizes: Sequence[int]) -> int:
    """Count the largest class: the matched size, all showers, or the protocol's limit."""
    if is_multi(protocol):
        number = min(sample_sizes)
    else:
        largest = max(sample_sizes)
        number = min(largest, num_reference if protocol.uses_all else num_reference // 2)
    return number if protocol.max_showers is None else min(number, protocol.max_showers)
