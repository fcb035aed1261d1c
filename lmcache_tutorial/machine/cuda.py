"""Does CUDA work here? Asked of the driver, without torch."""

from __future__ import annotations

import ctypes


def cuda_works() -> bool:
    """Ask the NVIDIA driver, without importing torch, whether it has a device."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        count = ctypes.c_int()
        return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0
    except (OSError, AttributeError):
        return False
