"""Does CUDA work here? Asked of the driver, without torch."""

from __future__ import annotations

import ctypes


def cuda_works() -> bool:
    """Tell whether there is a device."""
    return cuda_devices() > 0


def cuda_devices() -> int:
    """Ask the NVIDIA driver, without importing torch, how many devices this process may use."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        count = ctypes.c_int()
        works = driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0
        return count.value if works else 0
    except (OSError, AttributeError):
        return 0
