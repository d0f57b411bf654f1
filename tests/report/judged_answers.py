"""Real answers that people judged (TATA), and others, as verdicts about pairs."""

import collections
import csv
import itertools
import pathlib
import random

import pytest

from aya_train.annotation import pair_verdicts

SHARED = pathlib.Path(__file__).parents[2].parent / 'shared/data'
TATA = SHARED / 'tata/all_human_annotations.csv'


def tata_rows():
  if not TATA.exists():
    pytest.skip(f'{TATA} is not there')
  with TATA.open(encoding='utf-8', newline='') as file:
    return [row for row in csv.DictReader(file) if row['interpretable']]


def tata(systems=('mt5_xxl', 'mt5_small')):
  """Two outputs of one table: the one that people can interpret wins; both or neither is a tie.

  24 tables were judged twice: their second judgements are of another annotator.
  """
  outputs = collections.defaultdict(list)
  for row in tata_rows():
    outputs[row['id'], row['model']].append(row)
  found = []
  for name in dict.fromkeys(name for name, _ in outputs):
    for number, (a, b) in enumerate(itertools.combinations(systems, 2)):
      pairs = zip(outputs[name, a], outputs[name, b], strict=False)
      for turn, (one, other) in enumerate(pairs):
        difference = float(one['interpretable']) - float(other['interpretable'])
        found.append(
          pair_verdicts.Verdict(
            task='tata',
            index=len(found),
            id=name,
            language=one['lang'],
            inputs=name,
            system_a=a,
            system_b=b,
            answer_a=one['output'],
            answer_b=other['output'],
            order=random.Random(f'{name} {number}').choice(['ab', 'ba']),
            verdict='A>B' if difference > 0 else 'B>A' if difference < 0 else 'A=B',
            by=pair_verdicts.PERSON,
            annotator=('first', 'second')[turn],
          )
        )
  return found
