/** A value of JSON as a cell of a CSV file: text as it is, nothing for null, anything that is neither text nor number as JSON. */
export function cellOf(value: unknown): string {
  if (value === undefined || value === null) return ''
  return typeof value === 'string' ? value : JSON.stringify(value)
}

// The first characters after which spreadsheets take a cell for a formula, the full-width ones of Japanese input too.
const FORMULA = /^[=+\-@\t\r\uff0b\uff0d\uff1d\uff20]/
const NUMBER = /^[+-]?\d+([.,]\d+)*(e[+-]?\d+)?$/i

/**
 * A text that a spreadsheet would run as a formula, with an apostrophe before it, which makes it a text there. What a model
 * or a server has answered is nobody's formula.
 */
export function withoutFormula(cell: string): string {
  return FORMULA.test(cell) && !NUMBER.test(cell) ? `'${cell}` : cell
}
