import json

import pytest

from aya_train.annotation import answer_pairs, batch_files, batches, exports
from tests import browser

NASTY = '</script><script>window.hacked = 1</script><img src=x onerror="window.hacked = 1">'
TEXTS = {  # prompt, answers of 'good' and 'bad'
  'arb': ('Question, in Arabic?\n\nما هي عاصمة مصر؟', 'القاهرة 🐪', f'NASA قالت {NASTY}'),
  'tha': ('เมืองหลวงของไทยคืออะไร', 'กรุงเทพมหานคร\u2028\u2029จบ', "it's <b>ใหญ่</b> &amp; เก่า"),
  'amh': ('የኢትዮጵያ ዋና ከተማ ምንድን ነው?', 'አዲስ አበባ', ''),
}


@pytest.fixture(scope='module')
def chromium():
  with browser.started() as found:
    yield found


def pair_page(tmp_path, language, count=3):
  prompt, good, bad = TEXTS[language]
  rows = [
    answer_pairs.Answered('t', i, None, language, f'{prompt} {i}', {'good': good, 'bad': bad})
    for i in range(count)
  ]
  [batch] = batches.split('pairs', batches.pairs(rows, count, 0), False)
  [page] = batch_files.write([batch], tmp_path)
  return batch, page


def data_page(tmp_path, language='arb', count=3):
  prompt, answer, _ = TEXTS[language]
  rows = [
    batches.DataRow('xp3', 'xp3.ar', language, f'{prompt} {i}\r\n', answer) for i in range(count)
  ]
  [batch] = batches.split('data', batches.data_items(rows, 0), False)
  [page] = batch_files.write([batch], tmp_path)
  return batch, page


def save(page, tmp_path):
  with page.expect_download() as download:
    page.click('#export')
  path = tmp_path / download.value.suggested_filename
  download.value.save_as(path)
  return path


def test_no_text_of_a_batch_is_part_of_the_page():
  text = batch_files.embedded({'x': f'{NASTY}\u2028&', 'y': '\ud800'})
  assert not {*text} & {*'<>&\u2028'} and text.isascii()
  assert json.loads(text) == {'x': f'{NASTY}\u2028&', 'y': '\ud800'}


@pytest.mark.parametrize('language', TEXTS)
def test_answers_are_compared_by_keyboard_kept_and_exported(chromium, tmp_path, language):
  batch, path = pair_page(tmp_path, language)
  with browser.opened(chromium) as page:
    page.goto(path.as_uri())
    rtl = language == 'arb'
    assert page.get_attribute('#prompt', 'dir') == ('rtl' if rtl else 'ltr')
    assert (
      page.get_attribute('#prompt', 'lang') == {'arb': 'ar', 'tha': 'th', 'amh': 'am'}[language]
    )
    if rtl:  # of a template that mixes languages each line runs its own way
      ways = page.locator('#prompt span').evaluate_all('all => all.map((e) => e.dir)')
      assert ways == ['ltr', 'rtl', 'rtl']
    left, right = (page.locator(f'#side-{i}').bounding_box()['x'] for i in (0, 1))
    assert (left > right) == rtl  # the first answer stands where reading begins
    for i, item in enumerate(batch.items):
      assert page.text_content('#place') == f'{i + 1} of 3'
      shown = [page.text_content(f'#text-{side}') for side in (0, 1)]
      assert shown == [text or '(an empty answer)' for text in item.texts]
      if i < 2:
        page.keyboard.press('ArrowRight')
    page.keyboard.press('ArrowLeft')
    page.keyboard.press('ArrowLeft')
    page.keyboard.press('1')
    page.fill('#comment', 'لأن 2')  # digits in a comment decide nothing
    page.keyboard.press('Escape')
    # A keyboard that writes other digits.
    page.evaluate(
      "document.body.dispatchEvent(new KeyboardEvent('keydown', "
      "{key: '٢', code: 'Digit2', bubbles: true}))"
    )
    assert page.text_content('#count') == '2 of 3 done'
    page.reload()
    assert page.text_content('#place') == '3 of 3'
    page.click('#export')
    assert 'name' in page.text_content('#message')
    page.fill('#name', 'አበበ <b>')
    page.click('button[data-verdict=both_bad]')
    assert 'All are done' in page.text_content('#message')
    exported = save(page, tmp_path)
    assert page.evaluate('window.hacked') is None
  found = exports.read([exported]).verdicts
  assert [v.first_won for v in found] == [1, 0, 0.5]
  assert [v.raw for v in found] == ['', 'لأن 2', '']
  assert {v.annotator for v in found} == {'አበበ <b>'}
  assert [(v.inputs, {v.answer_a, v.answer_b}) for v in found] == [
    (i.prompt, {*i.texts}) for i in batch.items
  ]
  assert all(v.seconds is not None for v in found)


@pytest.mark.parametrize(
  ('language', 'words'),
  [('arb', 'الجواب هنا. '), ('tha', 'ก้'), ('eng', '👩‍👩‍👧')],
)
def test_a_very_long_line_is_shown_at_once_and_whole(chromium, tmp_path, language, words):
  answers = {name: (words * 200_000)[:200_000] + name for name in ('good', 'bad')}
  rows = [answer_pairs.Answered('t', 0, None, language, '?', answers)]
  [batch] = batches.split('pairs', batches.pairs(rows, 1, 0), False)
  [path] = batch_files.write([batch], tmp_path)
  with browser.opened(chromium, viewport=browser.NARROW) as page:
    page.goto(path.as_uri(), timeout=20_000)
    assert [page.text_content(f'#text-{side}') for side in (0, 1)] == [*batch.items[0].texts]
    pieces = page.locator('#text-0 > span').evaluate_all('all => all.map((e) => e.textContent)')
    assert max(map(len, pieces)) < 5000
    # No letter is parted from its marks, nor cut in two.
    assert not any(p[0] in '\u0e49\u200d' or '\ud800' <= p[0] <= '\udfff' for p in pieces)
    assert not browser.overflows(page)


def test_rows_are_approved_edited_and_skipped(chromium, tmp_path):
  batch, path = data_page(tmp_path)
  with browser.opened(chromium) as page:
    page.goto(path.as_uri())
    assert page.get_attribute('#edited-prompt', 'dir') == 'rtl'
    page.keyboard.press('1')  # a text that ends in \r\n is not edited by being shown
    page.fill('#edited-answer', 'القاهرة الكبرى')
    assert page.text_content('#approve') == 'Approve as edited'
    page.reload()
    assert page.input_value('#edited-answer') == 'القاهرة الكبرى'
    page.keyboard.press('1')
    page.fill('#edited-prompt', 'غير')
    page.keyboard.press('Escape')
    page.keyboard.press('9')
    page.keyboard.press('0')
    page.fill('#name', 'Ada')
    exported = save(page, tmp_path)
  found = exports.read([exported]).ratings
  assert [r.decision for r in found] == ['approved', 'edited', 'skipped']
  assert [r.edited_answer == r.answer for r in found] == [True, False, True]
  assert [r.edited_prompt == r.prompt for r in found] == [True] * 3
  assert {(r.source, r.task, r.language) for r in found} == {('xp3', 'xp3.ar', 'ara')}
  assert found[0].prompt == batch.items[0].prompt


def test_an_export_goes_on_in_another_browser_but_not_on_another_page(chromium, tmp_path):
  _, path = pair_page(tmp_path, 'tha')
  _, other = pair_page(tmp_path / 'other', 'amh')
  with browser.opened(chromium) as page:
    page.goto(path.as_uri())
    page.fill('#name', 'Ada')
    page.click('button[data-verdict=tie]')
    exported = save(page, tmp_path)
  with browser.opened(chromium, viewport=browser.NARROW) as page:
    page.goto(path.as_uri())
    assert not browser.overflows(page)
    page.set_input_files('#import', exported)
    page.wait_for_function("document.getElementById('message').textContent.includes('Took 1')")
    assert page.text_content('#count') == '1 of 3 done'
    assert page.input_value('#name') == 'Ada'
    page.goto(other.as_uri())
    page.set_input_files('#import', exported)
    page.wait_for_function("document.getElementById('message').textContent.includes('another')")
    assert page.text_content('#count') == '0 of 3 done'
