// The binding WAREHOUSE: a bucket with put() as a Worker knows it, in a folder.

import { mkdir, rename, writeFile } from 'node:fs/promises';
import { dirname, join, normalize } from 'node:path';

const folder = process.env.WAREHOUSE_FOLDER ?? 'warehouse';

export default {
  WAREHOUSE: {
    async put(key, value) {
      const file = join(folder, normalize(`/${key}`));
      await mkdir(dirname(file), { recursive: true });
      // Under its name only when it is whole.
      const part = `${file}.${crypto.randomUUID()}.part`;
      await writeFile(part, value);
      await rename(part, file);
    },
  },
};
