"""The one compiled module; everything else about the package stands in pyproject.toml."""

from pathlib import Path

from pybind11.setup_helpers import Pybind11Extension
from setuptools import setup

setup(
    ext_modules=[
        Pybind11Extension(
            "embeddings.kernel",
            ["embeddings/kernel/module.cpp"],
            depends=sorted(map(str, Path("embeddings/kernel").glob("*.hpp"))),
            cxx_std=20,
            # A processor that can multiply and add at once would round scores in another way than the others.
            extra_compile_args=["-ffp-contract=off"],
        )
    ]
)
