import { type Command, InvalidArgumentError, Option } from 'commander'
import type { Duration, SweepChanges } from 'triphase'
import { EXIT } from './exit-codes.ts'
import { Problem } from './problem.ts'

/** Reads a whole number of at least `least`. */
export function whole(least: number): (text: string) => number {
  return (text) => {
    if (/^\d{1,15}$/.test(text) && Number(text) >= least) return Number(text)
    throw new InvalidArgumentError(`A whole number of at least ${least}.`)
  }
}

export function positive(text: string): number {
  if (isNumber(text) && Number(text) > 0) return Number(text)
  throw new InvalidArgumentError('A number above 0.')
}

/** Milliseconds, or a number with a unit. */
export function duration(text: string): Duration {
  if (isNumber(text)) return Number(text)
  if (/^\d+(\.\d+)?(ms|s|m|h|d)$/.test(text)) return text as Duration
  throw new InvalidArgumentError("Milliseconds, or a number with ms, s, m, h or d, such as '1.5s'.")
}

/** Commander takes null for an option without a value, so the word stays a word until it is read. */
type OrNone = number | 'none'

function orNone(read: (text: string) => number): (text: string) => OrNone {
  return (text) => (text === 'none' ? text : read(text))
}

function limit(value: OrNone): number | null {
  return value === 'none' ? null : value
}

function isNumber(text: string): boolean {
  return /^\d+(\.\d+)?$/.test(text)
}

interface Limits {
  concurrency?: number
  rate?: OrNone
  budgetCalls?: OrNone
  budgetSpend?: OrNone
}

/** Adds the options that change a run's limits. */
export function withLimits(command: Command): Command {
  return command
    .addOption(new Option('--concurrency <calls>', 'calls at a time, over all processes').argParser(whole(1)))
    .addOption(
      new Option('--rate <calls|none>', 'calls a second, over all processes').argParser(orNone(positive)),
    )
    .addOption(
      new Option('--budget-calls <calls|none>', 'calls after which it pauses').argParser(orNone(whole(0))),
    )
    .addOption(
      new Option('--budget-spend <amount|none>', 'spending at which it pauses').argParser(orNone(positive)),
    )
}

/** The limits that were given, as the engine takes them. */
export function limitsOf(command: Command): SweepChanges {
  const { concurrency, rate, budgetCalls, budgetSpend } = command.opts<Limits>()
  const budget = {
    ...(budgetCalls === undefined ? {} : { calls: limit(budgetCalls) }),
    ...(budgetSpend === undefined ? {} : { spend: limit(budgetSpend) }),
  }
  return {
    ...(concurrency === undefined ? {} : { concurrency }),
    ...(rate === undefined ? {} : { rate: limit(rate) }),
    ...(Object.keys(budget).length === 0 ? {} : { budget }),
  }
}

/**
 * A record's key: `17`, or a JSON array of its columns, `["17","de"]`.
 *
 * @throws {Problem} for an array that is none, or has columns that are no texts or numbers.
 */
export function keyOf(text: string): string[] {
  if (!text.startsWith('[')) return [text]
  const columns = parsed(text)
  const fits = Array.isArray(columns) && columns.length > 0 && columns.every(isColumn)
  if (fits) {
    const inexact = columns.find((column) => typeof column === 'number' && !isExact(column))
    if (inexact === undefined) return columns.map(String)
    throw new InvalidArgumentError(
      `A number as long as ${inexact} is read exactly as a text only: put it in quotes.`,
    )
  }
  throw new InvalidArgumentError(`A key of several columns is a JSON array of them: '["17","de"]'.`)
}

/** The same, to be typed again. */
export function keyText(key: readonly string[]): string {
  const [only = ''] = key
  return key.length === 1 && !only.startsWith('[') ? only : JSON.stringify(key)
}

/** Refuses what commander cannot: options that do not go together. */
export function wrongUsage(message: string): Problem {
  return new Problem(EXIT.usage, 'USAGE', message)
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** JSON's numbers have some 15 digits: longer ones are read as others than were typed. */
function isExact(value: number): boolean {
  return Number.isSafeInteger(value) || (Math.abs(value) < 1e15 && String(value).length <= 16)
}

function isColumn(value: unknown): boolean {
  return typeof value === 'string' || typeof value === 'number'
}
