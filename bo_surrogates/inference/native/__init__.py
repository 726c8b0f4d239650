"""A compiled kernel for small networks: values, and log posteriors' gradients, trajectories, Adam.

`networks/posterior.py` and `networks/evaluation.py` say what is computed; the same is computed by
torch where there is no kernel. Networks of surrogates are so small that torch spends its time
between operations, and a trajectory is thousands of them. Here one network stays in the processor's
nearest cache for a whole trajectory (or run of Adam), and networks are divided among threads.

C++ rather than Numba: compiled by Numba, plain loops over contiguous rows reach a sixth to a third
of the kernel's speed (`python -m benchmarks.gradients`; table in `benchmarks/README.md`), because
blocks of registers cannot be said there. They take 10 s to compile, too, and Numba is 200 MB to
install and limits the version of NumPy. Most machines have a C++ compiler, and one that has none
still runs all of this by torch.

- `source/`: the kernel, for GCC and Clang, with vectors as wide as the processor's.
- `library.py`: compiles it at its first use (seconds, once for a machine), keeps it in the user's
  cache, loads it. `BO_SURROGATES_NATIVE=0` in the environment does without, `CXX` chooses the
  compiler; `python -m bo_surrogates.inference.native` says what there is.
- `kernel.py`: its functions on tensors.
"""
