"""`python -m aya_train` is `aya-train`."""

from aya_train.cli import main

if __name__ == '__main__':
  main.console()
