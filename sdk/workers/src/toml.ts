// TOML 1.0, as wrangler.toml has it. Dates and times are the one thing that is refused: nothing in it is one.

/** A table while it is read; how it came to be decides what may still be added to it. */
class Table {
  readonly entries = new Map<string, Value>();
  /** `implied`: named only as a part of another's name. `closed`: an inline table, which is whole. */
  kind: 'implied' | 'header' | 'dotted' | 'closed';

  constructor(kind: Table['kind']) {
    this.kind = kind;
  }
}

/** An array of tables, `[[…]]`; other arrays are plain ones and take nothing more. */
class Tables {
  readonly items: Table[] = [];
}

type Value = string | number | boolean | Table | Tables | Value[];

const ESCAPES: Record<string, string> = { b: '\b', t: '\t', n: '\n', f: '\f', r: '\r', '"': '"', '\\': '\\' };

/**
 * Parses `text`.
 *
 * @throws SyntaxError with the line
 */
export function parseToml(text: string): Record<string, unknown> {
  return plain(new Parser(text.replace(/^\uFEFF/, '').replace(/\r\n/g, '\n')).document()) as Record<string, unknown>;
}

function plain(value: Value): unknown {
  if (Array.isArray(value)) return value.map(plain);
  if (value instanceof Tables) return value.items.map(plain);
  if (!(value instanceof Table)) return value;
  // Object.fromEntries defines, so that a key named __proto__ is a key.
  return Object.fromEntries([...value.entries].map(([key, entry]) => [key, plain(entry)]));
}

class Parser {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  document(): Table {
    const root = new Table('header');
    let table = root;
    for (this.#space(true); this.#at < this.#text.length; this.#space(true)) {
      if (this.#next('[[')) {
        table = this.#tablesHeader(root);
      } else if (this.#next('[')) {
        table = this.#tableHeader(root);
      } else {
        this.#keyValue(table);
      }
      this.#endOfLine();
    }
    return root;
  }

  #tableHeader(root: Table): Table {
    const path = this.#key();
    this.#expect(']');
    const [parent, name] = this.#parent(root, path);
    const there = parent.entries.get(name);
    if (there === undefined) return this.#add(parent, name, new Table('header'));
    if (!(there instanceof Table) || there.kind !== 'implied') this.#fail(`${path.join('.')} is there twice`);
    there.kind = 'header';
    return there;
  }

  #tablesHeader(root: Table): Table {
    const path = this.#key();
    this.#expect(']]');
    const [parent, name] = this.#parent(root, path);
    const there = parent.entries.get(name) ?? this.#add(parent, name, new Tables());
    if (!(there instanceof Tables)) this.#fail(`${path.join('.')} is no array of tables`);
    const table = new Table('header');
    there.items.push(table);
    return table;
  }

  /** The table in which the last part of a header's name belongs; missing ones on the way are implied. */
  #parent(root: Table, path: string[]): [Table, string] {
    let table = root;
    for (const name of path.slice(0, -1)) {
      const there = table.entries.get(name) ?? this.#add(table, name, new Table('implied'));
      const next = there instanceof Tables ? there.items.at(-1) : there;
      if (!(next instanceof Table) || next.kind === 'closed') this.#fail(`${name} in ${path.join('.')} is no table to add to`);
      table = next;
    }
    return [table, path.at(-1) as string];
  }

  #keyValue(table: Table): void {
    const path = this.#key();
    this.#expect('=');
    this.#space(false);
    let target = table;
    for (const name of path.slice(0, -1)) {
      const there = target.entries.get(name) ?? this.#add(target, name, new Table('dotted'));
      // What a header made is not added to from elsewhere.
      if (!(there instanceof Table) || there.kind !== 'dotted') this.#fail(`${path.join('.')}: ${name} is there already`);
      target = there;
    }
    const name = path.at(-1) as string;
    if (target.entries.has(name)) this.#fail(`${path.join('.')} is there twice`);
    this.#add(target, name, this.#value());
  }

  #add<T extends Value>(table: Table, name: string, value: T): T {
    table.entries.set(name, value);
    return value;
  }

  #key(): string[] {
    const path: string[] = [];
    do {
      this.#space(false);
      path.push(this.#simpleKey());
      this.#space(false);
    } while (this.#next('.'));
    return path;
  }

  #simpleKey(): string {
    if (this.#next('"')) return this.#basic();
    if (this.#next("'")) return this.#literal();
    const bare = this.#match(/[A-Za-z0-9_-]+/y);
    return bare ?? this.#fail('a key was expected');
  }

  #value(): Value {
    if (this.#next('"""')) return this.#basicLines();
    if (this.#next('"')) return this.#basic();
    if (this.#next("'''")) return this.#literalLines();
    if (this.#next("'")) return this.#literal();
    if (this.#next('[')) return this.#array();
    if (this.#next('{')) return this.#inline();
    return this.#scalar(this.#match(/[^\s,#\]}]+/y) ?? this.#fail('a value was expected'));
  }

  #scalar(token: string): number | boolean {
    if (token === 'true' || token === 'false') return token === 'true';
    const special = /^([+-]?)(inf|nan)$/.exec(token);
    if (special) return special[2] === 'nan' ? Number.NaN : Number(`${special[1]}Infinity`);
    const digits = token.replaceAll('_', '');
    if (/^[+-]?(0|[1-9](_?\d)*)$/.test(token) || /^0(x[\da-fA-F](_?[\da-fA-F])*|o[0-7](_?[0-7])*|b[01](_?[01])*)$/.test(token)) {
      const number = Number(digits);
      if (!Number.isSafeInteger(number)) this.#fail(`${token} is too large a number`);
      return number + 0;
    }
    if (/^[+-]?(0|[1-9](_?\d)*)(\.\d(_?\d)*)?([eE][+-]?\d(_?\d)*)?$/.test(token)) return Number(digits);
    if (/^\d{4}-\d\d-\d\d|^\d\d:\d\d/.test(token)) this.#fail(`${token} is a date or time: put it in quotes`);
    return this.#fail(`${token} is no value: put text in quotes`);
  }

  #array(): Value[] {
    const items: Value[] = [];
    for (this.#space(true); !this.#next(']'); this.#space(true)) {
      items.push(this.#value());
      this.#space(true);
      if (this.#next(',')) continue;
      this.#expect(']');
      return items;
    }
    return items;
  }

  #inline(): Table {
    const table = new Table('header');
    this.#space(false);
    if (!this.#next('}')) {
      do this.#keyValue(table);
      while ((this.#space(false), this.#next(',')));
      this.#expect('}');
    }
    close(table);
    return table;
  }

  #basic(): string {
    let text = '';
    while (!this.#next('"')) text += this.#next('\\') ? this.#escape() : this.#character(false);
    return text;
  }

  #basicLines(): string {
    let text = '';
    this.#next('\n');
    while (!this.#next('"""')) {
      // A backslash at the end of a line takes the line's end and all space after it away.
      if (this.#match(/\\[ \t]*\n\s*/y) !== undefined) continue;
      text += this.#next('\\') ? this.#escape() : this.#character(true);
    }
    return text + this.#quotes('"');
  }

  #literal(): string {
    let text = '';
    while (!this.#next("'")) text += this.#character(false);
    return text;
  }

  #literalLines(): string {
    let text = '';
    this.#next('\n');
    while (!this.#next("'''")) text += this.#character(true);
    return text + this.#quotes("'");
  }

  /** One or two quotes may stand right before the three that end a text. */
  #quotes(quote: string): string {
    let text = '';
    while (text.length < 2 && this.#next(quote)) text += quote;
    return text;
  }

  #escape(): string {
    const hex = this.#match(/u[\da-fA-F]{4}|U[\da-fA-F]{8}/y);
    if (hex !== undefined) {
      const point = Number.parseInt(hex.slice(1), 16);
      if (point > 0x10ffff || (point >= 0xd800 && point <= 0xdfff)) this.#fail(`\\${hex} is no character`);
      return String.fromCodePoint(point);
    }
    const character = this.#text[this.#at] ?? '';
    this.#at += 1;
    return ESCAPES[character] ?? this.#fail(`\\${character} is no escape`);
  }

  #character(lines: boolean): string {
    const character = this.#text[this.#at];
    if (character === undefined || (character === '\n' && !lines)) this.#fail('a text does not end');
    if (isControl(character) && character !== '\n') this.#fail('a text has a control character');
    this.#at += 1;
    return character;
  }

  /** Skips space and, with `lines`, comments and ends of lines. */
  #space(lines: boolean): void {
    for (;;) {
      this.#match(/[ \t]+/y);
      if (!lines) return;
      this.#comment();
      if (!this.#next('\n')) return;
    }
  }

  #comment(): void {
    const comment = this.#match(/#[^\n]*/y);
    if (comment !== undefined && [...comment].some(isControl)) this.#fail('a comment has a control character');
  }

  #endOfLine(): void {
    this.#space(false);
    this.#comment();
    if (this.#at < this.#text.length && !this.#next('\n')) this.#fail('the end of the line was expected');
  }

  #next(token: string): boolean {
    if (!this.#text.startsWith(token, this.#at)) return false;
    this.#at += token.length;
    return true;
  }

  #expect(token: string): void {
    this.#space(false);
    if (!this.#next(token)) this.#fail(`${token} was expected`);
  }

  #match(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.#at;
    const found = pattern.exec(this.#text)?.[0];
    this.#at += found?.length ?? 0;
    return found;
  }

  #fail(message: string): never {
    const line = this.#text.slice(0, this.#at).split('\n').length;
    throw new SyntaxError(`line ${line}: ${message}`);
  }
}

function isControl(character: string): boolean {
  const code = character.charCodeAt(0);
  return (code < 32 && character !== '\t') || code === 127;
}

function close(value: Value): void {
  if (!(value instanceof Table)) return;
  value.kind = 'closed';
  value.entries.forEach(close);
}
