// Numbers as the Workers runtime takes them.

/**
 * A value as a 32-bit integer: what is no number becomes 0, and a fraction is cut off.
 *
 * @throws TypeError when it is beyond 32 bits
 */
export function toInt32(value: unknown): number {
  const number = Number(value);
  if (!Number.isFinite(number)) return 0;
  if (number < -(2 ** 31) || number > 2 ** 31 - 1) {
    throw new TypeError('Value out of range. Must be between -2147483648 and 2147483647 (inclusive).');
  }
  // A zero is never negative on the wire.
  return Math.trunc(number) + 0;
}
