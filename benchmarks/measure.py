"""Side-by-side timings and peak memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch
from torch.profiler import ProfilerActivity, profile

Function = Callable[[], object]


def paired_times(
    functions: Mapping[str, Function],
    *,
    device: torch.device,
    budget: float = 15.0,
    most: int = 101,
    sample: float = 0.05,
) -> dict[str, list[float]]:
    """Seconds of every function, interleaved A B C A B C … after two warm-up rounds, so that drift affects all equally.

    Rounds run until ``budget`` seconds are spent, but at least three and at most ``most``. A short function is called
    several times per turn, for about ``sample`` seconds, and the mean is taken, so that one hiccup of the machine does
    not dominate it.
    """
    for function in functions.values():
        function()
    calls = {name: max(1, round(sample / seconds(function, device))) for name, function in functions.items()}
    times: dict[str, list[float]] = {name: [] for name in functions}
    began = time.perf_counter()
    for done in range(most):
        if done >= 3 and time.perf_counter() - began > budget:
            break
        for name, function in functions.items():
            times[name].append(seconds(function, device, calls=calls[name]))
    return times


def seconds(function: Function, device: torch.device, *, calls: int = 1) -> float:
    """Wall-clock seconds per call, the mean of several, including the device's work."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(calls):
        function()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - began) / calls


def ratio(times: Mapping[str, list[float]], numerator: str, denominator: str) -> dict[str, float]:
    """Median, minimum and maximum of the ratios of paired runs."""
    pairs = [a / b for a, b in zip(times[numerator], times[denominator], strict=True)]
    return {"median": statistics.median(pairs), "min": min(pairs), "max": max(pairs)}


def peak_bytes(function: Function, device: torch.device) -> int:
    """Peak memory of one call beyond what was allocated before it, such as inputs and parameters."""
    function()  # do not count what a first call leaves behind, such as .grad
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        function()
    events = [e for e in trace.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak
