// The readers of configuration files: TOML and JSON with comments.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { parseJsonc } from '../dist/jsonc.js';
import { parseToml } from '../dist/toml.js';

test('TOML: what is valid', () => {
  const cases = [
    ['', {}],
    ['a = 1 # comment\n\n# comment\nb = "x"', { a: 1, b: 'x' }],
    ['a = 1\r\nb = 2\r\n', { a: 1, b: 2 }],
    ['"a b" = 1\n\'c.d\' = 2\n1-_ = 3', { 'a b': 1, 'c.d': 2, '1-_': 3 }],
    ['a.b . "c" = 1\na.d = 2', { a: { b: { c: 1 }, d: 2 } }],
    ['i = [0, +7, -1_000, 0xDEAD_beef, 0o17, 0b1_0]', { i: [0, 7, -1000, 0xdeadbeef, 15, 2] }],
    ['f = [1.5, -0.25e1, 1e3, 6_0.0_1, +inf, -inf]', { f: [1.5, -2.5, 1000, 60.01, Infinity, -Infinity] }],
    ['n = nan', { n: NaN }],
    ['t = true\nf = false', { t: true, f: false }],
    ['s = "tab\\t quote\\" \\u00e9 \\U0001F600 back\\\\"', { s: 'tab\t quote" é 😀 back\\' }],
    ["s = 'C:\\n\"'", { s: 'C:\\n"' }],
    ['s = """\none\n  two \\\n\n   three"""', { s: 'one\n  two three' }],
    ['s = """a""b"""""\n', { s: 'a""b""' }],
    ["s = '''\n\\one\n'two''''", { s: "\\one\n'two'" }],
    ['a = [\n 1, # one\n 2,\n]', { a: [1, 2] }],
    ['a = [[1], ["x", {b = 1}], []]', { a: [[1], ['x', { b: 1 }], []] }],
    ['p = { x = 1, y.z = "a" }\nq = {}', { p: { x: 1, y: { z: 'a' } }, q: {} }],
    ['[a]\nx = 1\n[a.b.c]\ny = 2\n[a.b]\nz = 3', { a: { x: 1, b: { c: { y: 2 }, z: 3 } } }],
    ['[ a . "b" ]', { a: { b: {} } }],
    ['[[q]]\nn = 1\n[q.sub]\nm = 1\n[[q]]\nn = 2\n[[q.list]]\nk = 1\n[[q.list]]', { q: [{ n: 1, sub: { m: 1 } }, { n: 2, list: [{ k: 1 }, {}] }] }],
    ['[a]\nb.c = 1\n[a.b.d]\ne = 1', { a: { b: { c: 1, d: { e: 1 } } } }],
    ['__proto__ = 1\n[constructor]\nx = 1', Object.fromEntries([['__proto__', 1], ['constructor', { x: 1 }]])],
    ['\uFEFFa = 1', { a: 1 }],
  ];
  for (const [text, expected] of cases) assert.deepEqual(parseToml(text), expected, text);
});

test('TOML: what is not, with its line', () => {
  const cases = [
    ['a', '= was expected'],
    ['a =', 'a value was expected'],
    ['= 1', 'a key was expected'],
    ['a = 1 b = 2', 'the end of the line was expected'],
    ['a = 1\na = 2', 'line 2: a is there twice'],
    ['a.b = 1\na = 2', 'line 2: a is there twice'],
    ['a = 1\na.b = 2', 'a is there already'],
    ['[a]\n[a]', 'line 2: a is there twice'],
    ['[a.b]\n[a]\nb.c = 1', 'b is there already'],
    ['[a]\nb.c = 1\n[a.b]', 'a.b is there twice'],
    ['a = {b = 1}\na.c = 2', 'a is there already'],
    ['a = {b = 1}\n[a.c]', 'no table to add to'],
    ['a = [{b = 1}]\n[[a]]', 'a is no array of tables'],
    ['[a]\n[[a]]', 'a is no array of tables'],
    ['[[a]]\n[a]', 'a is there twice'],
    ['[[a]]\na.b = 1\n[a]', 'is there twice'],
    ['a = {b = 1,}', 'a key was expected'],
    ['a = {\nb = 1}', 'a key was expected'],
    ['a = [1 2]', '] was expected'],
    ['a = [1', '] was expected'],
    ['a = [,]', 'a value was expected'],
    ['a = "x', 'a text does not end'],
    ['a = "x\ny"', 'a text does not end'],
    ['a = """x', 'a text does not end'],
    ['a = "\\x"', '\\x is no escape'],
    ['a = "\\ud800"', 'is no character'],
    ['a = "\u0001"', 'control character'],
    ['# \u0001', 'control character'],
    ['a = 007', '007 is no value'],
    ['a = 1__0', 'is no value'],
    ['a = 1_', 'is no value'],
    ['a = .5', 'is no value'],
    ['a = 1.', 'is no value'],
    ['a = yes', 'put text in quotes'],
    ['a = 9007199254740993', 'too large a number'],
    ['a = 2026-11-28', 'is a date or time: put it in quotes'],
    ['a = 10:00:00', 'is a date or time'],
    ['[a', '] was expected'],
    ['[[a] ]', ']] was expected'],
    ['[]', 'a key was expected'],
    ['a\nb = 1', '= was expected'],
  ];
  for (const [text, expected] of cases) {
    assert.throws(() => parseToml(text), (error) => error instanceof SyntaxError && /^line \d+: /.test(error.message) && error.message.includes(expected), text);
  }
});

test('JSON with comments', () => {
  const cases = [
    ['{"a": 1, /* two\nlines */ "b": "// no /* comment", // comment\n}', { a: 1, b: '// no /* comment' }],
    ['[1, 2, // end\n /* more */ ]', [1, 2]],
    ['{"a": [1,], "b": {"c": "\\"//",},}', { a: [1], b: { c: '"//' } }],
    ['\uFEFF"x"', 'x'],
    ['"," // last', ','],
    ['[","]', [',']],
  ];
  for (const [text, expected] of cases) assert.deepEqual(parseJsonc(text), expected, text);
  for (const text of ['', '[,]', '{,}', '[1,,]', '[1,,2]', '{"a":,}', '[1] 2', '/* open', '{"a": 1}}', '"open', '{a: 1}', "['x']", '[1] /']) {
    assert.throws(() => parseJsonc(text), SyntaxError, text);
  }
});
