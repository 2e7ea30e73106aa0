#!/usr/bin/env python3
"""Runs NVRTC, NVIDIA's Python bindings, numba-cuda and Triton, as PyPI has them, on whatever libcuda.so.1 is found.

    ptx-emu run -- "$(tools/emulator/install_python.sh DIRECTORY)" tools/emulator/frameworks.py [nvrtc] [bindings] [numba] [triton]

A vector addition, a reduction with atomics, a softmax over rows and a product of matrices each, compared with NumPy.
"""

import ctypes
import sys
from pathlib import Path

import numpy as np

from driver import Driver

SIZE = 1000
ROWS, COLUMNS = 7, 100
M, N, K = 70, 66, 40


def inputs():
    random = np.random.default_rng(0)
    x, y = random.standard_normal((2, SIZE), dtype=np.float32)
    rows = random.standard_normal((ROWS, COLUMNS), dtype=np.float32)
    a, b = random.standard_normal((M, K), dtype=np.float32), random.standard_normal((K, N), dtype=np.float32)
    return x, y, rows, a, b


def softmax(x):
    e = np.exp(x.astype(np.float64) - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def agree(what, found, expected, tolerance=1e-5):
    error = np.max(np.abs(found - expected) / np.maximum(np.abs(expected), 1))
    print(f"{what}: worst error {error:.1e}")
    if not error <= tolerance:
        sys.exit(f"{what}: the worst error is {error}, at most {tolerance} is right")


CUDA = r"""
extern "C" __global__ void add(const float* x, const float* y, float* o, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) o[i] = x[i] + y[i];
}
extern "C" __global__ void total(const float* x, float* o, int n) {
  float sum = 0;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) sum += x[i];
  for (int d = 16; d; d /= 2) sum += __shfl_xor_sync(~0u, sum, d);
  if (threadIdx.x % 32 == 0) atomicAdd(o, sum);
}
extern "C" __global__ void softmax(const float* x, float* o, int n) {
  __shared__ float part[128];
  x += blockIdx.x * n, o += blockIdx.x * n;
  float m = -3.4e38f, sum = 0;
  for (int i = threadIdx.x; i < n; i += 128) m = fmaxf(m, x[i]);
  part[threadIdx.x] = m;
  __syncthreads();
  for (int i = 0; i < 128; ++i) m = fmaxf(m, part[i]);
  __syncthreads();
  for (int i = threadIdx.x; i < n; i += 128) sum += expf(x[i] - m);
  part[threadIdx.x] = sum;
  __syncthreads();
  sum = 0;
  for (int i = 0; i < 128; ++i) sum += part[i];
  for (int i = threadIdx.x; i < n; i += 128) o[i] = expf(x[i] - m) / sum;
}
extern "C" __global__ void matmul(const float* a, const float* b, float* c, int m, int n, int k) {
  __shared__ float ta[16][16], tb[16][16];
  int i = blockIdx.y * 16 + threadIdx.y, j = blockIdx.x * 16 + threadIdx.x;
  float sum = 0;
  for (int s = 0; s < k; s += 16) {
    ta[threadIdx.y][threadIdx.x] = i < m && s + threadIdx.x < k ? a[i * k + s + threadIdx.x] : 0;
    tb[threadIdx.y][threadIdx.x] = s + threadIdx.y < k && j < n ? b[(s + threadIdx.y) * n + j] : 0;
    __syncthreads();
    for (int t = 0; t < 16; ++t) sum += ta[threadIdx.y][t] * tb[t][threadIdx.x];
    __syncthreads();
  }
  if (i < m && j < n) c[i * n + j] = sum;
}
"""


def nvrtc_ptx(source):
    """PTX for sm_80, by the NVRTC beside this Python."""
    found = [p for path in sys.path for p in Path(path).glob("nvidia/cu13/lib/libnvrtc.so.*")]
    nvrtc = ctypes.CDLL(str(found[0]) if found else "libnvrtc.so.13")
    program, size = ctypes.c_void_p(), ctypes.c_size_t()

    def call(name, *arguments):
        code = getattr(nvrtc, name)(*arguments)
        if code:
            nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
            log = ctypes.create_string_buffer(size.value + 1)
            nvrtc.nvrtcGetProgramLog(program, log)
            sys.exit(f"{name} gave {code}: {log.value.decode()}")

    call("nvrtcCreateProgram", ctypes.byref(program), source.encode(), b"kernels.cu", 0, None, None)
    options = [b"--gpu-architecture=compute_80", b"-lineinfo"]
    call("nvrtcCompileProgram", program, len(options), (ctypes.c_char_p * len(options))(*options))
    call("nvrtcGetPTXSize", program, ctypes.byref(size))
    ptx = ctypes.create_string_buffer(size.value)
    call("nvrtcGetPTX", program, ptx)
    return ptx.value.decode()


def launches(driver, run):
    """The four kernels: `run(name, grid, block, arguments)` launches one."""
    x, y, rows, a, b = inputs()
    i32 = ctypes.c_int32
    o = np.zeros_like(x)
    dx, dy, do = driver.upload(x), driver.upload(y), driver.upload(o)
    run("add", (dx, dy, do, i32(SIZE)))
    agree("add", driver.download(do, o), x + y)
    one = np.zeros(1, np.float32)
    total = driver.upload(one)
    run("total", (dx, total, i32(SIZE)))
    agree("sum with atomics", driver.download(total, one), x.sum(dtype=np.float64), 1e-4)
    out = np.zeros_like(rows)
    dr, ds = driver.upload(rows), driver.upload(out)
    run("softmax", (dr, ds, i32(COLUMNS)))
    agree("softmax", driver.download(ds, out), softmax(rows))
    driver.free(dx, dy, do, total, dr, ds)
    return a, b


def nvrtc():
    driver = Driver()
    ptx = nvrtc_ptx(CUDA)
    blocks = {"add": ((4, 1, 1), (256, 1, 1)), "total": ((3, 1, 1), (128, 1, 1)), "softmax": ((ROWS, 1, 1), (128, 1, 1))}
    blocks["matmul"] = (((N + 15) // 16, (M + 15) // 16, 1), (16, 16, 1))

    def run(name, arguments):
        driver.launch(driver.function(ptx, name), *blocks[name], 0, *arguments)

    a, b = launches(driver, run)
    c = np.zeros((M, N), np.float32)
    da, db, dc = driver.upload(a), driver.upload(b), driver.upload(c)
    run("matmul", (da, db, dc, ctypes.c_int32(M), ctypes.c_int32(N), ctypes.c_int32(K)))
    agree("matmul", driver.download(dc, c), a @ b)
    driver.free(da, db, dc)
    driver.close()


def triton():
    import triton_kernels

    driver = Driver()
    kernels = triton_kernels.compiled()
    grids = {"add": (4, 1, 1), "total": (4, 1, 1), "softmax": (ROWS, 1, 1), "matmul": ((M + 63) // 64, (N + 63) // 64, 1)}

    def run(name, arguments):
        kernel = kernels[name]
        # Scratch memory comes last, of which these kernels have none.
        ptx = kernel.asm["ptx"]
        scratch = ptx.count(".param .", 0, ptx.index(".reqntid")) - len(arguments)
        arguments = (*arguments, *(ctypes.c_uint64(0) for _ in range(scratch)))
        threads = (32 * kernel.metadata.num_warps, 1, 1)
        driver.launch(driver.function(ptx, name), grids[name], threads, kernel.metadata.shared, *arguments)

    a, b = launches(driver, run)
    a, b, c = a.astype(np.float16), b.astype(np.float16), np.zeros((M, N), np.float32)
    da, db, dc = driver.upload(a), driver.upload(b), driver.upload(c)
    run("matmul", (da, db, dc, ctypes.c_int32(M), ctypes.c_int32(N), ctypes.c_int32(K)))
    agree("matmul", driver.download(dc, c), a.astype(np.float64) @ b.astype(np.float64))
    driver.free(da, db, dc)
    driver.close()


def bindings():
    """NVIDIA's own Python bindings of driver and NVRTC."""
    from cuda.bindings import driver as cu
    from cuda.bindings import nvrtc as rtc

    def ok(answer):
        code, *values = answer
        if code.value:
            sys.exit(f"bindings: {code}")
        return values[0] if len(values) == 1 else values

    ok(cu.cuInit(0))
    device = ok(cu.cuDeviceGet(0))
    ok(cu.cuCtxSetCurrent(ok(cu.cuDevicePrimaryCtxRetain(device))))
    program = ok(rtc.nvrtcCreateProgram(CUDA.encode(), b"kernels.cu", 0, [], []))
    ok(rtc.nvrtcCompileProgram(program, 1, [b"--gpu-architecture=compute_80"]))
    ptx = bytearray(ok(rtc.nvrtcGetPTXSize(program)))
    ptx = bytes(ptx)
    ok(rtc.nvrtcGetPTX(program, ptx))
    # A library, whose kernels are launched as they are.
    library = ok(cu.cuLibraryLoadData(ptx, [], [], 0, [], [], 0))
    kernel = ok(cu.cuLibraryGetKernel(library, b"add"))
    x, y, *_ = inputs()
    o = np.zeros_like(x)
    addresses = [ok(cu.cuMemAlloc(x.nbytes)) for _ in range(3)]
    for at, array in zip(addresses, (x, y, o), strict=True):
        ok(cu.cuMemcpyHtoD(at, array.ctypes.data, array.nbytes))
    types = (ctypes.c_void_p,) * 3 + (ctypes.c_int,)
    values = (*(int(at) for at in addresses), SIZE)
    ok(cu.cuLaunchKernel(kernel, 4, 1, 1, 256, 1, 1, 0, 0, (values, types), 0))
    ok(cu.cuMemcpyDtoH(o.ctypes.data, addresses[2], o.nbytes))
    agree("add", o, x + y)
    for at in addresses:
        ok(cu.cuMemFree(at))
    ok(cu.cuLibraryUnload(library))
    ok(cu.cuCtxSetCurrent(cu.CUcontext(0)))
    ok(cu.cuDevicePrimaryCtxRelease(device))


def numba():
    from numba import cuda

    import numba_kernels as kernels

    x, y, rows, a, b = inputs()
    dx, dy, dr, da, db = (cuda.to_device(array) for array in (x, y, rows, a, b))
    o, one = cuda.to_device(np.zeros_like(x)), cuda.to_device(np.zeros(1, np.float32))
    kernels.add[4, 256](dx, dy, o)
    agree("add", o.copy_to_host(), x + y)
    kernels.total[3, kernels.THREADS](dx, one)
    agree("sum with atomics", one.copy_to_host(), x.sum(dtype=np.float64), 1e-4)
    out, c = cuda.to_device(np.zeros_like(rows)), cuda.to_device(np.zeros((M, N), np.float32))
    kernels.softmax[ROWS, kernels.THREADS](dr, out)
    agree("softmax", out.copy_to_host(), softmax(rows))
    kernels.matmul[((M + 15) // 16, (N + 15) // 16), (16, 16)](da, db, c)
    agree("matmul", c.copy_to_host(), a @ b)
    # numba-cuda leaves its memory to the end of the process.
    cuda.current_context().reset()


if __name__ == "__main__":
    parts = {"nvrtc": nvrtc, "bindings": bindings, "numba": numba, "triton": triton}
    for name in sys.argv[1:] or parts:
        if name not in parts:
            sys.exit(f"no part {name}; there are {', '.join(parts)}")
        print(f"{name}:")
        parts[name]()
