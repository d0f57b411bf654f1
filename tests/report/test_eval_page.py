import argparse
import html
import html.parser
import json
import re
import shutil
import subprocess
import time

import pytest

from aya_train.cli import main, report_command
from aya_train.report import eval_boards, eval_page, eval_runs, eval_view, published_figures
from tests.report import eval_outputs

XCOPA = ('est', 'hat', 'ind', 'ita', 'que', 'swa', 'tam', 'tha', 'tur', 'vie', 'zho')
TEXTS = {
  'ara': ('قال الرئيس (2024) إن الاقتصاد نما بنسبة 3%.', 'نما الاقتصاد 3%.'),
  'tha': ('เศรษฐกิจไทยเติบโตร้อยละ 3 ในปี 2567', 'เศรษฐกิจโต'),
  'amh': ('የኢትዮጵያ ኢኮኖሚ በ2024 አደገ።', 'ኢኮኖሚው አደገ።'),
  'heb': ('הכלכלה צמחה (2024).', 'צמיחה של 3%!'),
  'eng': ('The economy <grew>.', '<script>alert(1)</script>'),
}


def tasks(share, seed, languages=XCOPA, texts=TEXTS):
  found = [
    eval_outputs.ranked(code, f'p{k}', eval_outputs.hits(share, 100, f'{seed}{code}{k}'))
    for code in languages
    for k in range(5)
  ]
  for code, (reference, answer) in texts.items():
    inputs = f'Write a summary:\n{reference}'
    found.append(
      eval_outputs.generated(code, [answer] * 2, [reference] * 2, value=40 * share, inputs=inputs)
    )
  return found


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  root = tmp_path_factory.mktemp('runs')
  for step, share in ((100, 0.55), (200, 0.6), (300, 0.7)):
    eval_outputs.write(root / f'ours/step_{step}', tasks(share, step), step=step)
  eval_outputs.write(root / 'other', tasks(0.55, 'o'))
  return [str(root / 'ours'), str(root / 'other')]


@pytest.fixture(scope='module')
def written(runs, tmp_path_factory):
  """Page, figures and card of the runs."""
  page, figures, card = (tmp_path_factory.mktemp('page') / n for n in ('p.html', 'f.json', 'c.md'))
  eval_page.write(runs, page, json_output=figures, markdown_output=card)
  return page, figures, card


class Reader(html.parser.HTMLParser):
  """Texts with the direction and language that the page gives them, and what it loads."""

  def __init__(self):
    super().__init__()
    self.paragraphs, self.loaded, self.tables, self.open = [], [], [], None

  def handle_starttag(self, tag, attrs):
    attrs = dict(attrs)
    self.loaded += [attrs[k] for k in ('src', 'href', 'xlink:href', 'action') if attrs.get(k)]
    if tag == 'p' and 'dir' in attrs:
      self.open = [attrs['dir'], attrs.get('lang', ''), '']
      self.paragraphs.append(self.open)

  def handle_data(self, data):
    if self.open is not None:
      self.open[2] += data

  def handle_endtag(self, tag):
    if tag == 'p':
      self.open = None


def read(path):
  reader = Reader()
  reader.feed(path.read_text(encoding='utf-8'))
  return reader


def test_a_page_of_several_runs_and_steps(written):
  page, figures, card = written
  text, reader = page.read_text(), read(page)
  assert all(link.startswith('#') for link in reader.loaded)
  assert 'http' not in re.sub(r'http://www.w3.org/\S+', '', text)
  assert 'url(' not in text.replace('url(#', '')
  anchors = set(re.findall(r' id="([^"]+)"', text))
  assert {link[1:] for link in reader.loaded} <= anchors
  for words in ('ours, step 300 against ours, step 100', 'of 43', 'Amharic (amh)', 'low resource'):
    assert words in text
  assert '<script>alert' not in text and '&lt;script&gt;alert' in text

  shown = json.loads(figures.read_text(), parse_constant=lambda c: pytest.fail(c))
  (xcopa, xlsum) = shown['groups']
  assert (xcopa['title'], len(xcopa['languages']), len(xlsum['languages'])) == ('xcopa', 11, 5)
  assert xcopa['beside'] == {'mT0-13B': '77.55', 'BLOOMZ': '64.36'}
  assert xcopa['paper_beside'] == {'Aya': '76.7', 'mT0x': '71.7'}
  assert [curve['title'] for curve in shown['curves']] == ['xcopa', 'xlsum']
  (line,) = shown['curves'][0]['lines']
  assert line['steps'] == [100, 200, 300] and all(v['low'] < v['high'] for v in line['values'])
  assert [c['after'] for c in shown['comparisons']] == ['ours, step 200', 'ours, step 300', 'other']
  assert '| xcopa | accuracy | 11 |' in card.read_text()
  assert '| 77.55 | 64.36 | 76.7 | 71.7 |' in card.read_text()


def test_published_rows_are_in_the_page_digit_for_digit(written):
  page = written[0]
  cells = re.findall(r'<tr><td>([^<]+)</td>(.*?)</tr>', page.read_text())
  rows = {}
  for model, rest in cells:
    rows.setdefault(model, []).append(re.findall(r'<td class="n"[^>]*>([^<]*)</td>', rest))
  for statistic, place in (('median', 0), ('max', 1)):
    table = published_figures.languages_of('xcopa', statistic)
    for model in published_figures.models():
      assert rows[model][place][2:] == [table[code][model] for code in sorted(table)]


def test_every_line_has_its_direction_and_language(written):
  found = {text: (direction, language) for direction, language, text in read(written[0]).paragraphs}
  assert found['Write a summary:'][0] == 'ltr'
  expected = {
    'ara': ('rtl', 'ar'),
    'heb': ('rtl', 'he'),
    'tha': ('ltr', 'th'),
    'amh': ('ltr', 'am'),
  }
  for code, (reference, answer) in TEXTS.items():
    assert found[reference] == found[answer] == expected.get(code, ('ltr', 'en'))


def view_of(*folders):
  boards = [eval_boards.board(e) for e in eval_runs.read_all([str(f) for f in folders])]
  return boards, eval_view.of(boards)


def test_fewer_languages_than_published_are_compared_on_those(tmp_path):
  folder = eval_outputs.write(tmp_path / 'a', tasks(0.6, 'a', ('est', 'tha'), {}))
  boards, view = view_of(folder)
  (xcopa,) = view['groups']
  table = published_figures.languages_of('xcopa')
  mean = (float(table['est']['mT0-13B']) + float(table['tha']['mT0-13B'])) / 2
  assert float(xcopa['beside']['mT0-13B']) == pytest.approx(mean, abs=0.006)
  assert xcopa['complete'] == [False]
  assert any('2 of the 11 published languages are here' in note for note in xcopa['notes'])
  assert '<small class="ci">of 11</small>' in eval_page.render(boards, view)


def test_what_is_not_as_published_is_said(tmp_path):
  odd = [eval_outputs.ranked('zho', 'p', [True] * 16, benchmark='xwinograd', split='test')]
  odd += [eval_outputs.ranked('est', 'p', [True] * 100, split='test')]
  odd += [eval_outputs.ranked('est', 'p', [True] * 100, protocol='ranked_harness')]
  odd += [eval_outputs.ranked('est', 'p', [True] * 100, benchmark='nobodys_benchmark')]
  _, view = view_of(eval_outputs.write(tmp_path / 'a', odd))
  notes = {group['title']: ' '.join(group['notes']) for group in view['groups']}
  assert 'Chinese (zho) 16 of 504' in notes['xwinograd']
  assert "Published on the split 'validation', measured on test" in notes['xcopa']
  assert 'Published over 5 prompts, measured with 1' in notes['xcopa']
  assert '65.8 in Table 5 of the Aya paper and 65.4 in its text' in notes['xcopa']
  assert 'none stands beside it' in notes['xcopa, harness']
  assert 'Nobody published this benchmark' in notes['nobodys_benchmark']
  harness = next(g for g in view['groups'] if g['protocol'] == 'harness')
  assert harness['published'] == [] and harness['beside'] == {} and harness['paper'] == []


@pytest.mark.parametrize('damage', ['none', 'nan', 'empty', 'no predictions', 'torn', 'unfinished'])
def test_one_run_with_little_or_damaged_content_has_a_page(tmp_path, damage):
  some = [] if damage == 'none' else tasks(0.6, 'a', ('est',), {'ara': TEXTS['ara']})
  folder = eval_outputs.write(tmp_path / 'a', some)
  path = folder / 'results.json'
  written = json.loads(path.read_text())
  for result in written['tasks'].values():
    if damage == 'nan':
      result['metrics'] = {name: float('nan') for name in result['metrics']}
    if damage == 'empty':
      result['num_examples'] = 0
  if damage == 'unfinished':
    written['tasks'] = dict([*written['tasks'].items()][:1])
  path.write_text(json.dumps(written))
  for file in (folder / 'predictions').glob('*.jsonl'):
    if damage == 'no predictions':
      file.unlink()
    if damage == 'torn':
      file.write_bytes(file.read_bytes()[:-40])
  figures = tmp_path / 'f.json'
  page = eval_page.write([str(folder)], tmp_path / 'p.html', json_output=figures).read_text()
  json.loads(figures.read_text(), parse_constant=lambda c: pytest.fail(c))
  told = {
    'none': ('has no tasks yet', 'There are no figures'),
    'nan': ('not finite, so not shown', 'has no figures'),
    'empty': ('has no examples',),
    'no predictions': ('There are no predictions to show',),
    'torn': ('torn or no prediction of the task', 'predictions can be read'),
    'unfinished': ('xcopa',),
  }[damage]
  for words in told:
    assert words in page
  assert (
    'Comparison</h2>' not in page
    and 'nan' not in re.sub(r'[<].*?[>]', '', page.split('<script>')[0]).split()
  )


def test_three_hundred_tasks_are_small_and_quick(tmp_path):
  """60 languages with 5 prompts: a page of less than 2 MB."""
  codes = [c.code for c in eval_view.aya101.LANGUAGES[:60]]
  folder = eval_outputs.write(tmp_path / 'a', tasks(0.6, 'a', codes, {}), step=1)
  begin = time.process_time()
  page = eval_page.write([str(folder)], tmp_path / 'p.html')
  assert time.process_time() - begin < 20
  assert len(page.read_bytes()) < 2_000_000


def test_more_evaluations_than_fit_side_by_side(tmp_path):
  for step in range(1, 11):
    eval_outputs.write(
      tmp_path / f'ours/{step}', tasks(0.5 + step / 50, 'a', ('est',), {}), step=step
    )
  eval_outputs.write(tmp_path / 'b', tasks(0.5, 'b', ('est',), {}))
  boards, view = view_of(tmp_path / 'ours')
  assert len(view['columns']) == eval_view.COLUMNS
  assert view['columns'][0] == 'ours, step 1' and view['columns'][-1] == 'ours, step 10'
  assert len(view['runs']) == 10 and view['curves'][0]['lines'][0]['steps'] == [*range(1, 11)]
  assert 'in the curves and --json only' in eval_page.render(boards, view)
  _, both = view_of(tmp_path / 'ours', tmp_path / 'b')
  assert both['columns'] == ['ours, step 10', 'b']


def test_a_benchmark_without_a_language_has_examples_by_the_script_of_their_letters(tmp_path):
  rows = [('ما هذا؟', ('نعم', 'لا')), ('ኢትዮጵያ የት ናት?', ('እዚህ', 'እዚያ'))]
  tasks = [
    eval_outputs.ranked('', f'p{i}', [True], benchmark='mine', inputs=text, options=options)
    for i, (text, options) in enumerate(rows)
  ]
  eval_outputs.write(tmp_path / 'run', tasks)
  page = tmp_path / 'page.html'
  eval_page.write([str(tmp_path / 'run')], page)
  text = page.read_text(encoding='utf-8')
  assert '<h3>Arabic</h3>' in text and '<h3>Ge&#39;ez</h3>' in text
  assert '<ol dir="rtl">' in text and '<ol dir="ltr">' in text
  assert 'several languages' not in text


def test_an_empty_answer_is_said_to_be_one(tmp_path):
  task = eval_outputs.generated('tha', [''], ['ฝน'])
  boards, view = view_of(eval_outputs.write(tmp_path / 'a', [task]))
  assert '<small>no answer</small>' in eval_page.render(boards, view)
  (row,) = view['lengths']
  assert (row['empty'], row['mean']['value'], row['references']) == (100, 0, 2)


def test_what_the_training_measured_is_shown_where_it_lies(tmp_path):
  model_dir = tmp_path / 'runs/mine'
  folder = model_dir / 'checkpoints/20'
  task = eval_outputs.ranked('tha', 'p', [True, False])
  eval_outputs.write(tmp_path / 'evals', [task], step=20, checkpoint=str(folder))
  folder.mkdir(parents=True)
  (model_dir / 'run.json').write_text(json.dumps({'first_step': 0}))
  train = {'kind': 'train', 'loss_per_target_token': 2.0, 'accuracy': 0.5}
  decoded = {'kind': 'infer_eval/xcopa.tha.p', 'accuracy': 60.0}
  records = [{'step': step, **kind} for step in (10, 20) for kind in (train, decoded)]
  (model_dir / 'metrics.jsonl').write_text(''.join(json.dumps(r) + '\n' for r in records))
  boards, view = view_of(tmp_path / 'evals')
  page = eval_page.render(boards, view)
  assert 'Loss per target token; training mine' in page
  assert 'xcopa: accuracy while training, mean of 1 tasks; training mine' in page
  (model_dir / 'config.gin').write_text('this is = no gin (')
  assert 'training mine' not in eval_page.render(boards, view)


def test_shades_go_from_guessing_to_the_best():
  assert [eval_page.shade(v, 50, 90) for v in (40, 50, 70, 90)] == [0, 0, 35, 70]
  assert [eval_page.shade(v, 90, 50) for v in (90, 50)] == [0, 70]
  assert eval_page.shade(5, 5, 5) == 35


def test_the_command(runs, tmp_path, capsys):
  output, figures = tmp_path / 'out/page.html', tmp_path / 'f.json'
  arguments = ['report', 'eval', *runs, '--output', str(output), '--json', str(figures)]
  main.main([*arguments, '--beside', 'mT0-300M'])
  assert f'wrote {output}' in capsys.readouterr().out
  assert json.loads(figures.read_text())['groups'][0]['beside'] == {'mT0-300M': '52.55'}


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['eval'], 'is it the MODEL_DIR of a run'),
    (['eval', '{}/nothing'], 'no results.json in'),
    (
      ['eval', '{}/ours', '--beside', 'gpt-9'],
      r"nobody published \['gpt-9'\]; known are XGLM-7.5B",
    ),
    (['eval', '{}/ours', '--output', '{}'], 'is a folder'),
  ],
)
def test_the_command_refuses_in_words(tmp_path, arguments, message):
  eval_outputs.write(tmp_path / 'ours', tasks(0.6, 'a', ('est',), {}))
  parser = argparse.ArgumentParser()
  report_command.add_arguments(parser)
  with pytest.raises((OSError, ValueError), match=message):
    report_command.run(parser.parse_args([a.format(tmp_path) for a in arguments]))


@pytest.mark.heavy
@pytest.mark.skipif(shutil.which('chromium') is None, reason='needs Chromium')
@pytest.mark.parametrize('width', [420, 1280])
def test_a_browser_shows_it_without_overflow(runs, tmp_path, width):
  """Nothing is wider than the window, Arabic lines begin at the right, a click sorts."""
  page = eval_page.write(runs, tmp_path / 'page.html')
  probe = """
  <script>
  addEventListener('load', () => {
    document.querySelectorAll('details').forEach(d => d.open = true);
    const edge = document.documentElement.clientWidth + 1;
    const wide = [...document.querySelectorAll('body *')].filter(e => !e.closest('.wide') &&
      !e.closest('svg') && e.getBoundingClientRect().right > edge);
    const rtl = [...document.querySelectorAll('.ex p[dir=rtl]')].map(p => {
      const range = document.createRange(); range.selectNodeContents(p);
      const box = p.getBoundingClientRect(), text = range.getBoundingClientRect();
      return Math.abs(box.right - text.right) < 2; });
    const th = document.querySelector('#means ~ .wide th.n'); th.click();
    const body = th.closest('table').tBodies[0];
    const values = [...body.rows].map(r => parseFloat(r.cells[th.cellIndex].textContent));
    document.title = JSON.stringify([wide.length, rtl.length, rtl.every(x => x), values,
      document.documentElement.scrollWidth <= innerWidth]);
  });
  </script>"""
  page.write_text(page.read_text().replace('</body>', probe + '</body>'))
  command = ['chromium', '--headless=new', '--no-sandbox', '--disable-gpu', '--dump-dom']
  command += [f'--window-size={width},900', f'--user-data-dir={tmp_path / "chromium"}']
  done = subprocess.run([*command, f'file://{page}'], capture_output=True, text=True, timeout=120)
  title = html.unescape(re.search('<title>(.*?)</title>', done.stdout)[1])
  wide, count, right, values, fits = json.loads(title)
  assert (wide, right, fits) == (0, True, True) and count > 2
  assert values == sorted(values, reverse=True)


def test_hostile_texts_and_wrong_types_leave_whole_files(tmp_path):
  folder = tmp_path / 'a|<b>'
  task = eval_outputs.ranked('tha', 'p', [1, 0, 1], inputs='\0 \x1b[0m </script><b>')
  eval_outputs.write(folder, [task])
  file = folder / f'predictions/{task[0].name}.jsonl'
  wrong = [
    {'inputs': None},
    {'prediction': 3},
    {'options': ['x', 4]},
    {'option_scores': ['a']},
    {'fields': []},
    {'prediction': '\ud83d', 'inputs': '\udc00'},
  ]
  rows = [
    json.dumps({'task': task[0].name, 'inputs': 'p', 'prediction': 'x', 'index': 5 + i, **row})
    for i, row in enumerate(wrong)
  ]
  file.write_text(file.read_text() + '\n'.join(rows) + '\n')
  page, figures, card = (tmp_path / name for name in ('p.html', 'p.json', 'p.md'))
  eval_page.write([str(folder)], page, json_output=figures, markdown_output=card)
  text = page.read_bytes()
  assert b'\0' not in text and b'</script><b>' not in text
  assert 'line 4, 5, 6, 7, 8: torn or no prediction' in text.decode()
  json.loads(figures.read_text())
  for table in re.findall(r'(?:^\|.*\n)+', card.read_text(), re.M):
    header, ruler, *rows = table.splitlines()
    assert set(ruler) <= set('|-:') and rows
    columns = {len(re.findall(r'(?<!\\)\|', line)) for line in (header, ruler, *rows)}
    assert len(columns) == 1
