import stringWidth from 'string-width'

// What moves the cursor, rings or hides text when it is printed: C0, C1, line and paragraph separators, and the marks
// that reverse the direction of writing.
const UNPRINTABLE = /[\p{Cc}\p{Zl}\p{Zp}\u200e\u200f\u202a-\u202e\u2066-\u2069]+/gu

/** A text from outside (a file's name, a model's words) as it can be shown on one line of a terminal. */
export function printable(text: string): string {
  return text.replace(UNPRINTABLE, ' ').toWellFormed()
}

/** Columns that a printable text takes. */
export function widthOf(text: string): number {
  return stringWidth(text)
}

/** The text, or as much of its end as fits into `width` columns: of a path, the end says most. */
export function lastPart(text: string, width: number): string {
  if (widthOf(text) <= width) return text
  let kept = [...text]
  while (kept.length > 0 && widthOf(kept.join('')) > width - 1) kept = kept.slice(1)
  return `…${kept.join('')}`
}

/** The text, or as much of its beginning as fits into `width` columns. */
export function firstPart(text: string, width: number): string {
  if (widthOf(text) <= width) return text
  // From the front: what a model says may be 40,000 characters long, of which a line shows a hundred.
  let kept = ''
  for (const character of text) {
    if (widthOf(kept + character) > width - 1) break
    kept += character
  }
  return `${kept}…`
}
