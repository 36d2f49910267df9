"""Packaging for colcon and ament: launch files only. The `launch` folder links to the one at the repository's root."""

from glob import glob

from setuptools import setup

NAME = "tandem_bringup"

setup(
    name=NAME,
    version="0.1.0",
    packages=[],
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        (f"share/{NAME}/launch", sorted(glob("launch/*.launch.py"))),
    ],
    install_requires=["setuptools"],
    zip_safe=False,
)
