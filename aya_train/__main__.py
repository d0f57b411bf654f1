"""`python -m aya_train` is `aya-train`."""

from aya_train.main import console

if __name__ == '__main__':
  console()
