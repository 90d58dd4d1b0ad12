import { isAbsolute, relative } from 'node:path'
import { fileURLToPath } from 'node:url'

const FRAMES = 40
const HERE = import.meta.filename.replaceAll('\\', '/')
/** This package's own sources or its build, unless a bundler has mixed them with the application's. */
const OWN = /\/guard\/place\.[jt]s$/.test(HERE) ? HERE.replace(/guard\/place\.[jt]s$/, '') : undefined
const LOCATION = /(?:\(|^\s*at (?:async )?)((?:file:\/\/|[A-Za-z]:[\\/]|\/)[^()]*?):(\d+):(\d+)\)?$/

/** Where the program was at some moment. Taking it costs a few microseconds; the text is made when it is asked for. */
export class Place {
  readonly #at: { stack?: string } = {}

  /** @param below the function whose caller is the innermost frame. */
  constructor(below: (...given: never[]) => unknown) {
    const limit = Error.stackTraceLimit
    Error.stackTraceLimit = FRAMES
    Error.captureStackTrace(this.#at, below)
    Error.stackTraceLimit = limit
  }

  /** The innermost line of the application's own code, as `file:line:column`; undefined when there is none. */
  get line(): string | undefined {
    for (const frame of this.#frames()) {
      const location = LOCATION.exec(frame)
      if (!location) continue
      const [, file = '', line, column] = location
      const path = (file.startsWith('file://') ? fileURLToPath(file) : file).replaceAll('\\', '/')
      if ((OWN && path.startsWith(OWN)) || path.includes('/node_modules/')) continue
      return `${fromHere(path)}:${line}:${column}`
    }
    return undefined
  }

  /** Whether one of these packages is on the way here. */
  passes(packages: RegExp): boolean {
    return this.#frames().some((frame) => packages.test(frame))
  }

  #frames(): string[] {
    return (this.#at.stack ?? '').split('\n').slice(1)
  }
}

/** Where a transaction is opened, in words that are made when somebody asks. Nothing when nobody will. */
export function opening(
  policy: { mode: string },
  below: (...given: never[]) => unknown,
): (() => string) | undefined {
  if (policy.mode === 'off') return undefined
  return whereOf(new Place(below))
}

/** The first of these places that is in the application's code, in words. */
export function whereOf(...places: (Place | undefined)[]): () => string {
  return () => {
    const lines = places.map((place) => place?.line)
    const line = lines.find((known) => known !== undefined)
    return line === undefined ? 'somewhere' : `at ${line}`
  }
}

function fromHere(path: string): string {
  const short = relative(process.cwd(), path)
  return short.startsWith('..') || isAbsolute(short) ? path : short
}
