/** So many of something: `1 record`, `12,000 records`. */
export function counted(count: number, noun: string): string {
  return `${grouped(count)} ${noun}${count === 1 ? '' : 's'}`
}

/** With commas between thousands, and as many decimals as say something. */
export function grouped(value: number): string {
  return value.toLocaleString('en-US', { maximumFractionDigits: Math.abs(value) < 1 ? 6 : 2 })
}

/** A length of time, given in milliseconds, in at most two units. */
export function inWords(ms: number): string {
  if (ms < 1_000) return `${Math.round(ms)} ms`
  const seconds = Math.round(ms / 1_000)
  if (seconds < 60) return `${seconds} s`
  if (seconds < 3_600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`
  if (seconds < 172_800) return `${Math.floor(seconds / 3_600)} h ${Math.floor((seconds % 3_600) / 60)} min`
  return `${Math.floor(seconds / 86_400)} days ${Math.floor((seconds % 86_400) / 3_600)} h`
}

// What moves the cursor, rings or hides text when it is printed: C0, C1, line and paragraph separators, and the marks
// that reverse the direction of writing.
const UNPRINTABLE = /[\p{Cc}\p{Zl}\p{Zp}\u200e\u200f\u202a-\u202e\u2066-\u2069]+/gu

/** A text from outside (a message of an API, a result) as it can be shown on one line of a terminal. */
export function printable(text: string): string {
  return text.replace(UNPRINTABLE, ' ').toWellFormed()
}
