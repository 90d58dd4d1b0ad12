import { finished } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { type CsvError, type Options, parse } from 'csv-parse'
import { UnreadableLine } from './faults.ts'
import type { Source } from './source.ts'

/** Takes one row; a promise holds up the next, and `enough` is the end. */
export type TakeRow = (line: number, fields: string[]) => Promise<void> | 'enough' | undefined

/**
 * Reads a CSV file (RFC 4180, any line ends), its header row first. Lines without anything are left out.
 *
 * @throws {UnreadableLine} where quotes do not fit, a line is too long, or bytes are not UTF-8.
 */
export async function readCsv(
  source: Source,
  { delimiter, maxLineBytes }: { delimiter: string; maxLineBytes: number },
  take: TakeRow,
): Promise<void> {
  const failed: { error: CsvError | null; line: number } = { error: null, line: 0 }
  let [end, empty] = [0, 0]
  // Of the rows that are parsed and not taken yet.
  const lines: number[] = []
  const options: Options<string[]> = {
    delimiter,
    record_delimiter: ['\r\n', '\n', '\r'],
    relax_column_count: true,
    skip_empty_lines: true,
    max_record_size: maxLineBytes,
    on_record: (fields: string[], info) => {
      if (failed.error) return null
      const line = source.breaks.before(end) + (info.empty_lines - empty) + 1
      end = info.bytes
      empty = info.empty_lines
      lines.push(line)
      return fields
    },
    // Not thrown: that would drop the rows before it, which are parsed and not taken yet.
    skip_records_with_error: true,
    on_skip: (error) => {
      if (!error || failed.error) return undefined
      failed.error = error
      failed.line = source.breaks.before(end) + (Number(error.empty_lines ?? empty) - empty) + 1
      return undefined
    },
  }
  const parser = parse(options)
  const feeding = pipeline(source.chunks(), parser)
  // Told by the parser, too; that is where it is met.
  feeding.catch(() => {})
  try {
    for await (const fields of parser as AsyncIterable<string[]>) {
      const taken = take(lines.shift() as number, fields)
      if (taken === 'enough') return
      if (taken) await taken
    }
  } finally {
    parser.destroy()
    await new Promise((resolve) => finished(parser, resolve))
  }
  if (failed.error) throw new UnreadableLine(failed.line, reasonOf(failed.error, maxLineBytes))
}

function reasonOf({ code, message }: CsvError, maxLineBytes: number): string {
  switch (code) {
    case 'CSV_QUOTE_NOT_CLOSED':
      return 'a quote that opens here, or in a line below, is never closed'
    case 'CSV_MAX_RECORD_SIZE':
      return `it is longer than ${maxLineBytes} bytes: is a quote missing? If not, allow more with maxLineBytes`
    case 'CSV_INVALID_CLOSING_QUOTE':
      return 'after a quoted field there is something else than a delimiter; quotes inside of it are written twice'
    default:
      return /opening quote/i.test(message)
        ? 'a quote stands in the middle of a field: put the whole field in quotes, and write quotes inside of it twice'
        : message
  }
}
