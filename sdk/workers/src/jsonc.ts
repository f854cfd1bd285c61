// JSON with comments and trailing commas, as wrangler.jsonc has it.

/**
 * Parses `text`.
 *
 * @throws SyntaxError as JSON.parse does; lines and columns are those of `text`
 */
export function parseJsonc(text: string): unknown {
  // A byte order mark is no JSON, and some editors write one.
  return JSON.parse(blank(text.replace(/^\uFEFF/, '')));
}

/** Replaces comments and trailing commas by spaces, so that positions stay. */
function blank(text: string): string {
  const parts: string[] = [];
  // The last token that is neither space nor comment, and which part it is when it may be a trailing comma.
  let last = '';
  let comma = -1;
  for (let at = 0; at < text.length; ) {
    const end = tokenEnd(text, at);
    const token = text.slice(at, end);
    at = end;
    if (isComment(token)) {
      parts.push(token.replace(/[^\n\r]/g, ' '));
      continue;
    }
    if (token.trim() !== '') {
      if ((token === ']' || token === '}') && comma >= 0) parts[comma] = ' ';
      // Only after a value: `[,]` stays the error that it is.
      comma = token === ',' && !['', ',', '[', '{', ':'].includes(last) ? parts.length : -1;
      last = token;
    }
    parts.push(token);
  }
  return parts.join('');
}

function isComment(token: string): boolean {
  return token.startsWith('//') || token.startsWith('/*');
}

/** Where the token ends that begins at `at`: a comment, a string, or one character. */
function tokenEnd(text: string, at: number): number {
  const two = text.slice(at, at + 2);
  if (two === '//') {
    const end = text.slice(at).search(/[\n\r]/);
    return end < 0 ? text.length : at + end;
  }
  if (two === '/*') {
    const end = text.indexOf('*/', at + 2);
    if (end < 0) throw new SyntaxError(`a comment that begins at position ${at} does not end`);
    return end + 2;
  }
  if (text[at] !== '"') return at + 1;
  let end = at + 1;
  while (end < text.length && text[end] !== '"') end += text[end] === '\\' ? 2 : 1;
  return Math.min(end + 1, text.length);
}
