// Bodies of messages, as they are sent and as a handler gets them.

import v8 from 'node:v8';

/** What a handler gets, or a producer sends. */
export type Body = unknown;

export const CONTENT_TYPES = ['text', 'bytes', 'json', 'v8'] as const;

export type ContentType = (typeof CONTENT_TYPES)[number];

/** A body on the wire: the JSON text of the field `body`, and how many bytes of the queue it takes. */
export interface Encoded {
  json: string;
  bytes: number;
}

/**
 * Reads the name of a content type, in any case.
 *
 * @throws TypeError when there is no such content type
 */
export function contentTypeOf(name: unknown): ContentType {
  const found = CONTENT_TYPES.find((type) => type === String(name).toLowerCase());
  if (!found) throw new TypeError(`Unsupported queue message content type: ${String(name)}`);
  return found;
}

/**
 * Writes a body down.
 *
 * @throws TypeError when it does not fit its content type, and DataCloneError when V8 cannot copy it
 */
export function encode(body: Body, type: ContentType): Encoded {
  if (body === undefined) throw new TypeError('Message body cannot be undefined');
  switch (type) {
    case 'json':
      return encodeJson(body);
    case 'text': {
      if (typeof body !== 'string') throw mismatch(type, 'string', body);
      // Half a surrogate pair has no UTF-8: it becomes the replacement character, as in any text that is encoded.
      const bytes = Buffer.from(body, 'utf8');
      return { json: JSON.stringify(bytes.toString('utf8')), bytes: bytes.length };
    }
    case 'bytes':
      if (!ArrayBuffer.isView(body)) throw mismatch(type, 'ArrayBufferView', body);
      return base64(Buffer.from(body.buffer, body.byteOffset, body.byteLength));
    case 'v8':
      return base64(serialize(body));
  }
}

/**
 * A body as a handler gets it: the value for `json`, a string for `text`, a Uint8Array for `bytes`, a copy for `v8`.
 *
 * @throws Error when the bytes are none of that content type
 */
export function decode(body: unknown, type: ContentType): Body {
  if (type === 'json') return body;
  if (typeof body !== 'string') throw new Error(`a body of content type ${type} is a string, not ${typeof body}`);
  if (type === 'text') return body;
  const bytes = Buffer.from(body, 'base64');
  if (bytes.toString('base64') !== body) throw new Error(`a body of content type ${type} is no base64`);
  // A copy, for a small Buffer is a window into memory that others use.
  return type === 'bytes' ? new Uint8Array(bytes) : deserialize(bytes);
}

function encodeJson(body: Body): Encoded {
  const text = JSON.stringify(body) as string | undefined;
  if (text === undefined) throw new TypeError(`Message body cannot be undefined as JSON, which this ${typeof body} is`);
  const json = wellFormed(text);
  return { json, bytes: Buffer.byteLength(json) };
}

/**
 * Half a surrogate pair, which JSON.stringify() writes as an escape, becomes the replacement character here too: many parsers
 * stop at the escape, so the broker refuses it. An escaped backslash before `ud800` is none.
 */
function wellFormed(json: string): string {
  return json.replace(/\\(?:(ud[89a-f][0-9a-f]{2})|.)/g, (escape, half?: string) => (half ? '\ufffd' : escape));
}

function mismatch(type: ContentType, required: string, body: Body): TypeError {
  return new TypeError(`Content Type "${type}" requires a value of type ${required}, but received: ${typeof body}`);
}

function base64(bytes: Buffer): Encoded {
  return { json: `"${bytes.toString('base64')}"`, bytes: bytes.length };
}

/** The plain serializer and not that of v8.serialize(), which has a form of its own for typed arrays that no other reader knows. */
class Serializer extends v8.Serializer {
  /** V8 asks here for the error about a value that it cannot copy. */
  _getDataCloneError(message: string): Error {
    return new DOMException(message, 'DataCloneError');
  }
}

function serialize(body: Body): Buffer {
  const serializer = new Serializer();
  serializer.writeHeader();
  serializer.writeValue(body);
  return serializer.releaseBuffer();
}

function deserialize(bytes: Buffer): Body {
  const deserializer = new v8.Deserializer(bytes);
  deserializer.readHeader();
  return deserializer.readValue();
}
