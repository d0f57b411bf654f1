import dataclasses
import json
import random

import pytest

from aya_train.cli import main
from aya_train.report import preference_page
from tests import browser
from tests.annotation import test_batch_files
from tests.report import judged_answers, test_preference_tables

pytest.importorskip('evalica', reason='the extra judge is missing')


@pytest.fixture(scope='module')
def chromium():
  with browser.started() as found:
    yield found


def lines(path, verdicts):
  path.write_text(''.join(json.dumps(v.to_dict()) + '\n' for v in verdicts))
  return str(path)


def test_the_page_of_real_judgements_and_a_judge_in_a_browser(chromium, tmp_path, capsys):
  people = judged_answers.tata()
  draw = random.Random(0)
  judge = [
    dataclasses.replace(
      v,
      by='judge',
      annotator='gpt-x',
      order=order,
      protocol='arena_hard',
      verdict=draw.choice([v.verdict, v.verdict, 'A>>B', 'B>A']),
    )
    for v in people[:400]
    for order in ('ab', 'ba')
  ]
  page = tmp_path / 'page.html'
  files = [lines(tmp_path / f'{i}.jsonl', v) for i, v in enumerate((people, judge))]
  assert main.main(['report', 'preference', *files, '--output', str(page)]) == 0
  assert f'wrote {page}' in capsys.readouterr().out
  with browser.opened(chromium, viewport=browser.NARROW) as window:
    window.goto(page.as_uri())
    assert not browser.overflows(window)
    text = window.text_content('body')
    # 902 wins and 586 ties of 1,530: by hand from the file, as the test of figures does.
    assert 'mt5_xxl is preferred to mt5_small in 78.1 %' in ' '.join(text.split())
    for words in ('Judge gpt-x', 'Yoruba (yor)', 'Strong verdicts × 3', "Krippendorff's alpha"):
      assert words in text
    details = window.locator('details')
    assert details.count() > 5
    details.nth(0).click()
    assert window.locator('details[open] .text').count() == 3


def test_long_names_neither_widen_the_page_nor_push_figures_out_of_sight(chromium, tmp_path):
  name = 'aya_' + 'x' * 60
  given = []
  for i, verdict in enumerate(['A>B', 'B>A', 'A>B', 'A=B']):
    found = dataclasses.replace(test_preference_tables.verdict(i, verdict), system_a=name)
    given += [found, dataclasses.replace(found, by='judge', annotator=name, verdict='B>A')]
  page = tmp_path / 'page.html'
  page.write_text(preference_page.render(given))
  with browser.opened(chromium, viewport=browser.NARROW) as window:
    window.goto(page.as_uri())
    for details in window.locator('details').all():
      details.evaluate('each => { each.open = true }')
    assert not browser.overflows(window)
    assert window.locator('.wide td:first-child').first.bounding_box()['width'] < 200


def test_texts_of_any_script_run_their_way_and_are_no_html(chromium, tmp_path):
  given = []
  for i, (language, (prompt, good, bad)) in enumerate(test_batch_files.TEXTS.items()):
    v = test_preference_tables.verdict(
      *(i, 'A>B'), language=language, inputs=prompt, answer_a=good, answer_b=bad
    )
    given.append(dataclasses.replace(v, raw=test_batch_files.NASTY))
    given.append(dataclasses.replace(v, by='judge', annotator='<i>g</i>', verdict='B>A'))
  page = tmp_path / 'page.html'
  page.write_text(preference_page.render(given))
  with browser.opened(chromium) as window:
    window.goto(page.as_uri())
    shown = window.locator('.text')
    assert shown.count() == 9
    assert {*shown.all_text_contents()} == {
      text or '(an empty answer)' for texts in test_batch_files.TEXTS.values() for text in texts
    }
    assert window.locator('[lang=ar]').first.get_attribute('dir') == 'rtl'
    assert window.locator('[lang=th]').first.get_attribute('dir') == 'ltr'
    assert window.evaluate('window.hacked') is None
    assert 'Judge <i>g</i>' in window.text_content('body')


def test_small_samples_and_length_are_warned_of():
  few = [test_preference_tables.verdict(i, 'A>B') for i in range(12)]
  page = ' '.join(preference_page.render(few).split())
  assert 'Small sample: 12 prompts tell a win rate to about ± 28 points' in page
  assert 'No pair was judged by two people' in page
  assert 'all differ in length by as much' in page
  longer = [
    test_preference_tables.verdict(
      *(i, 'A>B' if random.Random(i).random() < (0.95 if i % 3 else 0.1) else 'B>A'),
      answer_a='a' * (100 if i % 3 else 10),
      answer_b='b' * 50,
    )
    for i in range(300)
  ]
  page = ' '.join(preference_page.render(longer).split())
  assert 'Length matters: at equal length the rate is' in page
  assert 'The longer answer tends to be preferred' in page
  assert 'Small sample' not in page


def test_a_verdict_alone_and_a_single_judgement_make_a_page():
  assert '100.0 %' in preference_page.render([test_preference_tables.verdict(0, 'A>B')])


def test_files_without_a_comparison_are_refused(tmp_path, capsys):
  path = lines(tmp_path / 'v.jsonl', [test_preference_tables.verdict(0, None, problem='failed')])
  assert main.main(['report', 'preference', path]) == 1
  assert 'no judgement about two answers' in capsys.readouterr().err
  assert main.main(['report', 'preference', str(tmp_path / 'none')]) == 1
  assert 'none is not there' in capsys.readouterr().err
