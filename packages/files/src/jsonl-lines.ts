import { UnreadableLine } from './faults.ts'
import type { Source } from './source.ts'

/** Takes one line that is not blank; a promise holds up the next. */
export type TakeText = (line: number, text: string) => Promise<void> | undefined

const LF = 10

/**
 * Reads the lines of a JSONL file.
 *
 * @throws {UnreadableLine} where a line is too long, or bytes are not UTF-8.
 */
export async function readJsonl(source: Source, maxLineBytes: number, take: TakeText): Promise<void> {
  let parts: Buffer[] = []
  let [line, length] = [1, 0]
  const keep = (part: Buffer) => {
    length += part.length
    if (length > maxLineBytes) {
      throw new UnreadableLine(line, `it is longer than ${maxLineBytes} bytes: allow more with maxLineBytes`)
    }
    parts.push(part)
  }
  const end = (): Promise<void> | undefined => {
    const text = (parts.length === 1 ? (parts[0] as Buffer) : Buffer.concat(parts)).toString().trim()
    parts = []
    length = 0
    return text === '' ? undefined : take(line, text)
  }
  for await (const chunk of source.chunks()) {
    let from = 0
    for (let to = chunk.indexOf(LF); to >= 0; to = chunk.indexOf(LF, from)) {
      keep(chunk.subarray(from, to))
      const taken = end()
      if (taken) await taken
      line++
      from = to + 1
    }
    if (from < chunk.length) keep(chunk.subarray(from))
  }
  await end()
}
