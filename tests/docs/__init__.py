"""The documentation is tested: examples run, generated parts are current, links resolve.

`python -m tests.docs.update` brings README.md and docs/ up to date with what the program prints.
"""
