// The binding STORE: a key-value store with get() and put() as a Worker knows them, in a folder.

import { createHash } from 'node:crypto';
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

const folder = process.env.STORE_FOLDER ?? 'store';
await mkdir(folder, { recursive: true });

// A key can be anything, a file's name cannot.
const fileOf = (key) => join(folder, `${createHash('sha256').update(key).digest('hex')}.json`);

const read = async (file) => {
  try {
    return JSON.parse(await readFile(file, 'utf8'));
  } catch (error) {
    if (error.code === 'ENOENT') return { value: null };
    throw error;
  }
};

export default {
  STORE: {
    get: async (key) => (await read(fileOf(key))).value,
    async put(key, value) {
      const part = `${fileOf(key)}.${crypto.randomUUID()}.part`;
      await writeFile(part, JSON.stringify({ value }));
      await rename(part, fileOf(key));
    },
  },
};
