"""Compiled kernels: of small networks, and of the covariances of infinitely wide ones.

Of small networks: values, and log posteriors' gradients, trajectories, Adam.
`networks/posterior.py` and `networks/evaluation.py` say what is computed; the same is computed by
torch where there is no kernel. Networks of surrogates are so small that torch spends its time
between operations, and a trajectory is thousands of them. Here one network stays in the processor's
nearest cache for a whole trajectory (or run of Adam), and networks are divided among threads.

C++ rather than Numba: compiled by Numba, plain loops over contiguous rows reach a sixth to a third
of the kernel's speed (`python -m benchmarks.gradients`; table in `benchmarks/README.md`), because
blocks of registers cannot be said there. They take 10 s to compile, too, and Numba is 200 MB to
install and limits the version of NumPy. Most machines have a C++ compiler, and one that has none
still runs all of this by torch.

The covariances are those of `kernels/recursion.py`: an entry passes all layers in registers, where
torch sends it through memory some twenty times a layer (`python -m benchmarks.kernels`).

- `source/`: the kernels, for GCC and Clang, with vectors as wide as the processor's: `kernel.cpp`
  of small networks, `recursion.cpp` of infinitely wide ones.
- `library.py`: compiles one at its first use (seconds, once for a machine), keeps it in the user's
  cache, loads it. `BO_SURROGATES_NATIVE=0` in the environment does without, `CXX` chooses the
  compiler; `python -m bo_surrogates.inference.native` says what there is.
- `kernel.py`, `covariances.py`: their functions on tensors; `tensors.py`: which they may read.
"""
