'use strict';
const batch = JSON.parse(document.getElementById('batch').textContent);
const isPairs = batch.mode === 'pairs';
const place = 'aya-train annotate ' + batch.batch;
const at = (id) => document.getElementById(id);
const fresh = () => ({ name: '', current: 0, done: {} });
let state = fresh();
let shownAt = Date.now();

function say(text) { at('message').textContent = text; }

function isState(found) {
  return found !== null && typeof found === 'object' && found.done !== null
    && typeof found.done === 'object' && Number.isInteger(found.current);
}

function load() {
  try {
    const found = JSON.parse(localStorage.getItem(place));
    if (isState(found)) state = { ...fresh(), ...found };
  } catch (error) {
    say('This browser keeps nothing for this page: export before you close it.');
  }
  state.current = Math.min(Math.max(state.current, 0), batch.items.length - 1);
}

function keep() {
  try {
    localStorage.setItem(place, JSON.stringify(state));
  } catch (error) {
    say('This browser keeps nothing for this page: export before you close it.');
  }
}

function record(id) { return state.done[id] || {}; }

function change(values) {
  const id = batch.items[state.current].id;
  state.done[id] = { ...record(id), ...values };
  keep();
}

// Browsers take the square of a paragraph's length to lay it out: minutes for 200,000 letters of
// Arabic or Thai in one line. Longer ones stand in pieces, cut at a space where there is one.
const longest = 2000;
const joined = /^[\p{M}\p{Cf}\uDC00-\uDFFF]/u;

function pieces(line) {
  const found = [];
  let from = 0;
  while (line.length - from > longest) {
    let to = line.lastIndexOf(' ', from + longest) + 1;
    if (to <= from + longest / 2) {
      to = from + longest;
      if (line.codePointAt(to - 1) > 0xffff) to++;
      while (to < line.length && to < from + 2 * longest && joined.test(line.slice(to, to + 2))) to++;
    }
    found.push(line.slice(from, to));
    from = to;
  }
  found.push(line.slice(from));
  return found;
}

function put(id, text) {
  const box = at(id);
  box.dir = text.dir;
  box.classList.toggle('empty', !text.text.trim());
  if (!text.text.trim()) {
    box.textContent = '(an empty answer)';
    return;
  }
  const lines = text.text.split('\n');
  box.replaceChildren(...lines.flatMap((line, i) =>
    pieces(i + 1 < lines.length ? line + '\n' : line).map((piece) => {
      const span = document.createElement('span');
      span.dir = text.lines[i];
      span.textContent = piece;
      return span;
    })));
}

function fill(id, value, dir, lang) {
  const box = at(id);
  box.dir = dir;
  box.lang = lang;
  box.value = value;
}

function decidedCount() { return batch.items.filter((item) => record(item.id).verdict).length; }

function show() {
  const item = batch.items[state.current];
  const was = record(item.id);
  at('place').textContent = (state.current + 1) + ' of ' + batch.items.length;
  at('language').textContent = item.language;
  const done = decidedCount();
  at('bar').value = done / batch.items.length;
  at('count').textContent = done + ' of ' + batch.items.length + ' done';
  if (isPairs) {
    put('prompt', item.prompt);
    item.texts.forEach((text, i) => put('text-' + i, text));
    for (const id of ['answers', 'choices']) at(id).dir = item.dir === 'rtl' ? 'rtl' : 'ltr';
    for (const id of ['prompt', 'text-0', 'text-1']) at(id).lang = item.lang;
    at('side-0').classList.toggle('chosen', was.verdict === 'first');
    at('side-1').classList.toggle('chosen', was.verdict === 'second');
    at('same').classList.toggle('hidden', item.texts[0].text !== item.texts[1].text);
  } else {
    at('about').textContent = item.about;
    fill('edited-prompt', was.edited_prompt ?? item.prompt.text, item.prompt.dir, item.lang);
    fill('edited-answer', was.edited_answer ?? item.texts[0].text, item.texts[0].dir, item.lang);
    mark();
  }
  for (const button of at('choices').querySelectorAll('button[data-verdict]')) {
    const pressed = button.dataset.verdict === was.verdict
      || (button.dataset.verdict === 'approved' && was.verdict === 'edited');
    button.setAttribute('aria-pressed', String(pressed));
  }
  at('comment').value = was.comment || '';
  at('back').disabled = state.current === 0;
  at('next').disabled = state.current === batch.items.length - 1;
  shownAt = Date.now();
}

// What a textarea does to line ends is no edit.
function plain(text) { return text.replace(/\r\n?/g, '\n'); }

function isEdited() {
  const item = batch.items[state.current];
  return plain(at('edited-prompt').value) !== plain(item.prompt.text)
    || plain(at('edited-answer').value) !== plain(item.texts[0].text);
}

function mark() { at('approve').textContent = isEdited() ? 'Approve as edited' : 'Approve'; }

function go(to) {
  state.current = Math.min(Math.max(to, 0), batch.items.length - 1);
  keep();
  show();
  window.scrollTo(0, 0);
}

function goOpen() {
  const count = batch.items.length;
  for (let step = 1; step <= count; step++) {
    const i = (state.current + step) % count;
    if (!record(batch.items[i].id).verdict) return go(i);
  }
  show();
  say('All are done. Export, and send the file to whoever gave you this page.');
}

function decide(verdict) {
  say('');
  const item = batch.items[state.current];
  const seconds = (record(item.id).seconds || 0) + (Date.now() - shownAt) / 1000;
  if (!isPairs && verdict === 'approved' && isEdited()) verdict = 'edited';
  change({ verdict, seconds: Math.round(10 * seconds) / 10, at: new Date().toISOString() });
  if (state.current < batch.items.length - 1) go(state.current + 1);
  else goOpen();
}

function keepEdit(name, value, original) {
  const values = { [name]: plain(value) === plain(original) ? undefined : value };
  const was = record(batch.items[state.current].id).verdict;
  if (was === 'approved' || was === 'edited') values.verdict = isEdited() ? 'edited' : 'approved';
  change(values);
  mark();
}

function putBack() {
  const id = batch.items[state.current].id;
  const was = record(id);
  delete was.edited_prompt;
  delete was.edited_answer;
  if (was.verdict === 'edited') was.verdict = 'approved';
  keep();
  show();
}

function exported() {
  const annotations = batch.items.filter((item) => record(item.id).verdict).map((item) => ({
    id: item.id,
    prompt: item.prompt.text,
    texts: item.texts.map((text) => text.text),
    key: item.key,
    ...record(item.id),
  }));
  return {
    format: batch.format,
    version: 1,
    mode: batch.mode,
    batch: batch.batch,
    annotator: state.name.trim(),
    exported: new Date().toISOString(),
    items: batch.items.length,
    annotations,
  };
}

function save() {
  if (!state.name.trim()) {
    say('Write your name first: it tells annotators apart.');
    at('name').focus();
    return;
  }
  const done = decidedCount();
  const data = new Blob([JSON.stringify(exported(), null, 1)], { type: 'application/json' });
  const link = document.createElement('a');
  link.href = URL.createObjectURL(data);
  const who = state.name.trim().replace(/[^\p{L}\p{N}]+/gu, '_');
  link.download = batch.mode + '_' + batch.batch + '_' + who + '.json';
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  say('Exported ' + done + ' of ' + batch.items.length + '.');
}

async function take(file) {
  try {
    const found = JSON.parse(await file.text());
    if (found.format !== batch.format || found.batch !== batch.batch) {
      say('That file is of another page.');
      return;
    }
    state = fresh();
    state.name = String(found.annotator || '');
    const known = new Set(batch.items.map((item) => item.id));
    for (const { id, prompt, texts, key, ...values } of found.annotations) {
      if (known.has(id)) state.done[id] = values;
    }
    at('name').value = state.name;
    keep();
    go(0);
    say('Took ' + Object.keys(state.done).length + ' decisions from ' + file.name + '.');
  } catch (error) {
    say('That file cannot be read: ' + error.message);
  }
}

// By the key's place too: an Arabic keyboard writes ١ where others write 1, a French one &.
const byPlace = /^(?:Digit|Numpad)([0-9])$/;
const actions = isPairs
  ? { 1: 'first', 2: 'second', 0: 'tie', 9: 'both_bad' }
  : { 1: 'approved', 0: 'skipped' };

document.addEventListener('keydown', (event) => {
  if (event.isComposing || event.ctrlKey || event.metaKey || event.altKey) return;
  const isText = event.target.matches('textarea, input');
  if (isText) {
    if (event.key === 'Escape') event.target.blur();
    return;
  }
  const found = byPlace.exec(event.code);
  const digit = /^[0-9]$/.test(event.key) ? event.key : found ? found[1] : null;
  if (digit !== null && digit in actions) decide(actions[digit]);
  else if (digit === '9' && !isPairs) putBack();
  else if (event.key === 'ArrowLeft') go(state.current - 1);
  else if (event.key === 'ArrowRight') go(state.current + 1);
  else if (event.key === 'n' || event.code === 'KeyN') goOpen();
  else return;
  event.preventDefault();
});

at('choices').addEventListener('click', (event) => {
  const button = event.target.closest('button');
  if (button && button.dataset.verdict) decide(button.dataset.verdict);
});
at('back').addEventListener('click', () => go(state.current - 1));
at('next').addEventListener('click', () => go(state.current + 1));
at('open').addEventListener('click', goOpen);
at('export').addEventListener('click', save);
at('name').addEventListener('input', (event) => { state.name = event.target.value; keep(); });
at('comment').addEventListener('input', (event) => change({ comment: event.target.value }));
at('import').addEventListener('change', (event) => {
  if (event.target.files.length) take(event.target.files[0]);
  event.target.value = '';
});
at('reset').addEventListener('click', () => {
  if (!confirm('Forget all ' + decidedCount() + ' decisions kept in this browser?')) return;
  state = fresh();
  at('name').value = '';
  keep();
  show();
  say('');
});
if (!isPairs) {
  at('edited-prompt').addEventListener('input', (event) =>
    keepEdit('edited_prompt', event.target.value, batch.items[state.current].prompt.text));
  at('edited-answer').addEventListener('input', (event) =>
    keepEdit('edited_answer', event.target.value, batch.items[state.current].texts[0].text));
  at('restore').addEventListener('click', putBack);
}
load();
at('name').value = state.name;
show();
