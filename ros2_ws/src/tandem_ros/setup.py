"""Packaging for colcon and ament; pip installs this package with the rest of Tandem from the repository's root."""

from setuptools import find_packages, setup

NAME = "tandem_ros"
NODES = ("simulation", "policy", "recorder", "episodes")

setup(
    name=NAME,
    version="0.1.0",
    packages=find_packages(),
    package_data={NAME: ["*.xml"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
    ],
    install_requires=["setuptools"],
    zip_safe=False,
    entry_points={"console_scripts": [f"{node} = {NAME}.nodes.{node}:main" for node in NODES]},
)
