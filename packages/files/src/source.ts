import { isUtf8 } from 'node:buffer'
import { createHash } from 'node:crypto'
import { constants } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { TriphaseError } from 'triphase'
import { UnreadableLine } from './faults.ts'

/** How far a file is read. */
export interface ReadProgress {
  /** A file is read twice: all lines are checked first. */
  readonly step: 'checking' | 'loading'
  readonly bytes: number
  /** Of the whole file. */
  readonly size: number
}

const CHUNK_BYTES = 256 * 1024
const [LF, CR] = [10, 13]
const BOM = Buffer.from('\ufeff')

/** The bytes of a file, read once from its beginning, a chunk at a time: hashed, known to be UTF-8, their lines counted. */
export class Source {
  readonly breaks: LineBreaks = new LineBreaks()
  readonly #handle: FileHandle
  readonly #hash = createHash('sha256')
  readonly size: number
  bytes = 0
  /** It begins with a byte order mark, as Excel writes and needs it. */
  bom = false

  private constructor(handle: FileHandle, size: number) {
    this.#handle = handle
    this.size = size
  }

  /** @throws {TriphaseError} `FILE_UNREADABLE` */
  static async open(path: string): Promise<Source> {
    let handle: FileHandle | undefined
    try {
      // Without O_NONBLOCK, opening a pipe would wait for ever.
      handle = await open(path, constants.O_RDONLY | constants.O_NONBLOCK)
      const facts = await handle.stat()
      if (!facts.isFile()) throw unreadable(path, 'is not a file')
      return new Source(handle, facts.size)
    } catch (error) {
      await handle?.close()
      throw error instanceof TriphaseError ? error : unreadable(path, reasonOf(error), error)
    }
  }

  /** SHA-256 of what was read, in hexadecimal. Once. */
  digest(): string {
    return this.#hash.digest('hex')
  }

  /**
   * The bytes, without a byte order mark.
   *
   * @throws {UnreadableLine} at the first line that is not UTF-8.
   */
  async *chunks(): AsyncGenerator<Buffer> {
    // The beginning of a character whose end is in the next chunk.
    let split: Buffer = Buffer.alloc(0)
    while (true) {
      const { bytesRead, buffer } = await this.#handle.read(Buffer.allocUnsafe(CHUNK_BYTES), 0, CHUNK_BYTES)
      if (bytesRead === 0) break
      const chunk = buffer.subarray(0, bytesRead)
      this.#hash.update(chunk)
      const text = split.length > 0 ? Buffer.concat([split, chunk]) : chunk
      const whole = text.subarray(0, text.length - splitBytes(text))
      split = text.subarray(whole.length)
      yield this.#checked(whole)
    }
    if (split.length > 0) this.#refuse(split)
  }

  async close(): Promise<void> {
    await this.#handle.close()
  }

  #checked(chunk: Buffer): Buffer {
    if (!isUtf8(chunk)) this.#refuse(chunk)
    const first = this.bytes === 0
    this.bytes += chunk.length
    this.bom ||= first && chunk.subarray(0, BOM.length).equals(BOM)
    const text = first && this.bom ? chunk.subarray(BOM.length) : chunk
    this.breaks.read(text)
    return text
  }

  #refuse(chunk: Buffer): never {
    const utf16 = this.bytes === 0 && /^(\xff\xfe|\xfe\xff)/.test(chunk.subarray(0, 2).toString('latin1'))
    if (utf16) throw new UnreadableLine(1, 'the file is UTF-16: save it as UTF-8')
    let line = this.breaks.count + 1
    for (let from = 0; ; line++) {
      const end = chunk.indexOf(LF, from) + 1
      if (end === 0 || !isUtf8(chunk.subarray(from, end))) break
      from = end
    }
    throw new UnreadableLine(line, 'it is not UTF-8: save the file as UTF-8 (Excel: "CSV UTF-8")')
  }
}

/** How many bytes at the end begin a character that is not complete. */
function splitBytes(text: Buffer): number {
  for (let back = 1; back <= Math.min(3, text.length); back++) {
    const byte = text[text.length - back] as number
    if (byte < 0x80) return 0
    if (byte >= 0xc0) return byte >= (back === 1 ? 0xc0 : back === 2 ? 0xe0 : 0xf0) ? back : 0
  }
  return 0
}

/**
 * Where the lines of a text end, by `\n`, `\r\n` or `\r`, so that a place in it becomes the number of its line.
 * csv-parse's own count takes a `\r\n` in quotes for two. Places are asked for in rising order, and forgotten then.
 */
export class LineBreaks {
  /** All that were read. */
  count = 0
  #ends: number[] = []
  #next = 0
  #passed = 0
  #offset = 0
  #afterCr = false
  #pairs = 0

  /** Most lines end with `\r\n`. */
  get crlf(): boolean {
    return this.#pairs * 2 > this.count
  }

  read(text: Uint8Array): void {
    for (let index = 0; index < text.length; index++) {
      const byte = text[index]
      if (byte === LF && this.#afterCr) {
        this.#ends[this.#ends.length - 1] = this.#offset + index + 1
        this.#pairs++
      } else if (byte === LF || byte === CR) {
        this.#ends.push(this.#offset + index + 1)
        this.count++
      }
      this.#afterCr = byte === CR
    }
    this.#offset += text.length
  }

  /** How many lines end at or before this place. */
  before(place: number): number {
    while (this.#next < this.#ends.length && (this.#ends[this.#next] as number) <= place) this.#next++
    // The last one stays: a \n may still move its end.
    if (this.#next > 10_000) {
      this.#passed += this.#next - 1
      this.#ends = this.#ends.slice(this.#next - 1)
      this.#next = 1
    }
    return this.#passed + this.#next
  }
}

function unreadable(path: string, reason: string, cause?: unknown): TriphaseError {
  return new TriphaseError('FILE_UNREADABLE', `${path} ${reason}. Check the path.`, { cause })
}

function reasonOf(error: unknown): string {
  const code = error instanceof Error && 'code' in error ? String(error.code) : 'unknown'
  if (code === 'ENOENT') return 'does not exist'
  return code === 'EACCES' ? 'cannot be read: this user has no right to' : `cannot be read (${code})`
}
