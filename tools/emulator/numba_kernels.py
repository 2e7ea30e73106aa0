"""The kernels of frameworks.py in Python, which numba-cuda compiles when they are called."""

import math

from numba import cuda, float32

THREADS = 128


@cuda.jit
def add(x, y, o):
    i = cuda.grid(1)
    if i < o.size:
        o[i] = x[i] + y[i]


@cuda.jit
def total(x, o):
    part = float32(0)
    for i in range(cuda.grid(1), x.size, cuda.gridsize(1)):
        part += x[i]
    cuda.atomic.add(o, 0, part)


@cuda.jit
def softmax(x, o):
    part = cuda.shared.array(THREADS, float32)
    row, t = cuda.blockIdx.x, cuda.threadIdx.x
    largest = float32(-3.4e38)
    for i in range(t, x.shape[1], THREADS):
        largest = max(largest, x[row, i])
    part[t] = largest
    cuda.syncthreads()
    for i in range(THREADS):
        largest = max(largest, part[i])
    cuda.syncthreads()
    part[t] = float32(0)
    for i in range(t, x.shape[1], THREADS):
        part[t] += math.exp(x[row, i] - largest)
    cuda.syncthreads()
    sum = float32(0)
    for i in range(THREADS):
        sum += part[i]
    for i in range(t, x.shape[1], THREADS):
        o[row, i] = math.exp(x[row, i] - largest) / sum


@cuda.jit
def matmul(a, b, c):
    i, j = cuda.grid(2)
    if i < c.shape[0] and j < c.shape[1]:
        sum = float32(0)
        for k in range(a.shape[1]):
            sum += a[i, k] * b[k, j]
        c[i, j] = sum
