"""`python -m aya_train` is `aya-train`."""

from aya_train.cli.main import console

if __name__ == '__main__':
  console()
