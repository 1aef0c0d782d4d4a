"""Packages are found here because `conf/` at the root is installed as the package `had.conf`."""

from setuptools import find_packages, setup

setup(
    packages=find_packages(include=["had", "had.*"])
    + [f"had.{name}" for name in find_packages(include=["conf", "conf.*"])],
    package_dir={"had.conf": "conf"},
    package_data={
        "": ["*.css", "*.yaml"],
        "had.hardware": ["specs/*.yaml", "tables/*.yaml"],
        "had.attention.backends": ["*.cu", "*.cuh"],
    },
)
