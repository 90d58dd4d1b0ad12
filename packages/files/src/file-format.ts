import path from 'node:path'
import { TriphaseError } from 'triphase'
import { Source } from './source.ts'

/** What a file is. JSONL: an object a line. */
export type FileFormat = { readonly kind: 'csv'; readonly delimiter: string } | { readonly kind: 'jsonl' }

/** How a file is to be read or written, where its name does not say enough. */
export interface FormatOptions {
  /** Default: by the name's ending (`.csv`, `.tsv`, `.jsonl`, `.ndjson`). */
  format?: 'csv' | 'jsonl'
  /** Of a CSV file: one character. Default: a tab for `.tsv`, else whichever of `,` `;` and tab is in its header row. */
  delimiter?: string
}

const KINDS: Record<string, 'csv' | 'jsonl'> = {
  '.csv': 'csv',
  '.tsv': 'csv',
  '.jsonl': 'jsonl',
  '.ndjson': 'jsonl',
}
const DELIMITERS = [',', ';', '\t']

/** By options and name; null: neither says. */
export function kindOf(name: string, { format, delimiter }: FormatOptions): 'csv' | 'jsonl' | null {
  const faults = [
    ...(format === undefined || format === 'csv' || format === 'jsonl' ? [] : ['format: csv or jsonl']),
    ...(delimiter === undefined || /^[^\r\n"\p{L}\p{N}]$/u.test(delimiter)
      ? []
      : ['delimiter: one character, such as ; (no quote, line break, letter or digit)']),
  ]
  if (faults.length > 0) throw new TriphaseError('INVALID_OPTIONS', `${name}: ${faults.join('; ')}.`)
  return format ?? KINDS[path.extname(name).toLowerCase()] ?? null
}

/**
 * What a file is, by options, its name and its header row.
 *
 * @throws {TriphaseError} `INVALID_OPTIONS`, `FILE_UNREADABLE`
 */
export async function formatOf(file: string, options: FormatOptions): Promise<FileFormat> {
  const kind = kindOf(file, options)
  if (kind === null) {
    const endings = Object.keys(KINDS).join(', ')
    throw new TriphaseError(
      'INVALID_OPTIONS',
      `What is ${file}? Its name ends with none of ${endings}: give its format.`,
    )
  }
  if (kind === 'jsonl') return { kind }
  const named = options.delimiter ?? (/\.tsv$/i.test(file) ? '\t' : undefined)
  return { kind, delimiter: named ?? (await detectDelimiter(file)) }
}

/** The one that is most often in the first row, outside quotes. */
async function detectDelimiter(file: string): Promise<string> {
  const source = await Source.open(file)
  try {
    // Bytes that are not UTF-8 are refused when the file is read; here they separate nothing.
    const { value } = await source
      .chunks()
      .next()
      .catch(() => ({ value: undefined }))
    const header =
      (value ?? '')
        .toString()
        .replace(/"[^"]*"/g, '')
        .split(/[\r\n]/, 1)[0] ?? ''
    const counts = DELIMITERS.map((delimiter) => header.split(delimiter).length)
    return DELIMITERS[counts.indexOf(Math.max(...counts))] as string
  } finally {
    await source.close()
  }
}
