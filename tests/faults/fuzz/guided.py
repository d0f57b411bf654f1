"""Inputs guided by coverage, where atheris is there: `python -m tests.faults.fuzz.guided NAME`.

Takes libFuzzer's flags too: `-runs=100000`. Stops at the first input that breaks the law of
trials.py, and prints it.
"""

import pathlib
import sys
import tempfile

import atheris

with atheris.instrument_imports(include=['aya_train']):
  from tests.faults.fuzz import parsers, trials


def main() -> None:
  parser = parsers.named(sys.argv[1])
  with tempfile.TemporaryDirectory() as root:
    corpus, folder = pathlib.Path(root) / 'corpus', pathlib.Path(root) / 'inputs'
    corpus.mkdir()
    folder.mkdir()
    for i, sample in enumerate(parser.samples()):
      (corpus / str(i)).write_bytes(sample)

    def one(data: bytes) -> None:
      if problem := trials.fault(parser, data, folder):
        raise AssertionError(f'{problem}\n{data[:400]!r}')

    # libFuzzer's own limit of time takes the signal that a trial needs.
    flags = ['-timeout=0', '-rss_limit_mb=0', '-max_len=20000']
    atheris.Setup([sys.argv[0], *flags, *sys.argv[2:], str(corpus)], one)
    atheris.Fuzz()


if __name__ == '__main__':
  main()
