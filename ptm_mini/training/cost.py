"""What a stage of training costs: numbers that learn, seconds an epoch, peak memory of a step."""
from contextlib import contextmanager
from typing import NamedTuple

import torch


class Cost(NamedTuple):
    stage: str                    # such as "lora noisy_audio"
    parameters: int               # numbers that learn in it
    epochs: int
    seconds: float                # of all epochs, without validation
    memory: int                   # bytes at the peak of a training step; 0 for the router, which takes none
    validation: float             # accuracy of the epoch that was kept; None where there was no epoch
    machine: str


class StepMemory:
    """Bytes at the peak of one training step, whose forward pass runs inside `counted`.

    On CUDA the allocator's own figure. On the CPU a count: what autograd keeps for the backward pass, each storage once,
    plus parameters, gradients and optimiser state.
    """

    def __init__(self, module, optimiser, device):
        self.module, self.optimiser, self.device, self.kept = module, optimiser, device, {}

    @contextmanager
    def counted(self):
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            yield
            return
        own = {p.untyped_storage().data_ptr() for p in self.module.parameters()}

        def keep(tensor):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                self.kept[storage.data_ptr()] = storage.nbytes()
            return tensor.detach()                 # itself would be a cycle of references, and never be freed

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            yield

    def peak(self):
        """The bytes, when the step is done"""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        parameters = list(self.module.parameters())
        state = [value for values in self.optimiser.state.values() for value in values.values() if torch.is_tensor(value)]
        gradients = [p.grad for p in parameters if p.grad is not None]
        return sum(self.kept.values()) + sum(tensor.nbytes for tensor in (*parameters, *gradients, *state))


def machine_of(device):
    """The device in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} thread{'s' * (torch.get_num_threads() > 1)}"
