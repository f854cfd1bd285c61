// The package as it is published: packed, installed elsewhere, and run by its command's name.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';

import { deliver, folderOf, here, messagesOf, NOTHING_SAID, start } from './support.js';

test('what is packed runs, and has nothing but the program', async (t) => {
  const folder = folderOf(t, { 'worker.js': `export default { queue(batch) { batch.messages[0].ack(); } };` });
  const npm = (...args) => execFileSync('npm', [...args, '--ignore-scripts', '--offline', '--silent'], { cwd: here('..'), encoding: 'utf8' });
  const [{ filename, files }] = JSON.parse(npm('pack', '--json', '--pack-destination', folder));
  const names = files.map((file) => file.path);
  assert.ok(names.includes('dist/main.js') && names.includes('dist/hooks.js') && names.includes('README.md'));
  assert.deepEqual(names.filter((name) => !/^(dist\/[a-z]+\.(js|d\.ts)|README\.md|package\.json)$/.test(name)), []);
  npm('install', '--global', '--prefix', join(folder, 'there'), join(folder, filename));
  const command = [join(folder, 'there/bin/capstan-workers')];
  const program = start(t, ['worker.js', '--port', '0', '--host', '127.0.0.1'], { cwd: folder, command });
  const { port } = await program.line('listening');
  const { status, verdict } = await deliver({ port }, messagesOf([1, 2]));
  assert.deepEqual([status, verdict], [200, { ...NOTHING_SAID, explicitAcks: ['m1'] }]);
});

test('it depends on nothing at run time', () => {
  const { dependencies, peerDependencies, optionalDependencies } = JSON.parse(readFileSync(here('../package.json'), 'utf8'));
  assert.deepEqual([dependencies, peerDependencies, optionalDependencies], [undefined, undefined, undefined]);
});
