"""Packaging of bark-beam. Tools are configured in pyproject.toml; constraints.txt pins versions that work together."""

from pathlib import Path

from setuptools import find_packages, setup

GCP = ["gcsfs>=2026.10", "google-cloud-storage>=3.14.1"]
CONVERT = ["torch>=2.9", "transformers>=5.17"]

setup(
    name="bark-beam",
    version="0.1.0",
    description="Bulk speech synthesis: Bark's three transformers and EnCodec in JAX, fanned out by Apache Beam",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["bark_model", "bark_model.*", "pipeline", "pipeline.*", "configs"]),
    package_data={
        "bark_model": ["cpu_kernels.cc", "demo_checkpoint/**/*"],
        "configs": ["*.yaml", "demo/*"],
    },
    install_requires=[
        "apache-beam>=2.77",
        "flax>=0.12.8",
        "fsspec>=2026.9",
        "huggingface_hub>=1.5",
        "jax>=0.10",
        "ml_dtypes>=0.5",
        "numpy>=2.2",
        "pyarrow>=22",
        "PyYAML>=6.0.2",
        "safetensors>=0.8",
        "sentencex>=1.0.32",
        "soundfile>=0.13.1",
        "tokenizers>=0.23.1",
    ],
    extras_require={
        "gcp": GCP,
        "convert": CONVERT,
        "cuda": ["jax[cuda12]"],
        "tpu": ["jax[tpu]"],
        "test": [
            *GCP,
            *CONVERT,
            "hypothesis>=6.150",
            "pyright>=1.1.407",
            "pytest>=9",
            "pytest-timeout>=2.4",
            "ruff>=0.14",
        ],
    },
    entry_points={"console_scripts": ["bark-beam = pipeline.cli:main"]},
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
    ],
)
